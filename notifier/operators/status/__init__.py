"""The status of the service, its workers and its clients, and operators' requests to workers. Open `service_status`."""

"""The status of the service, its workers and its clients, and operators' requests to workers.

Read `service_status` first.
"""

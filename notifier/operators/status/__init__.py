"""The state of the service, its workers and its clients, and what operators ask of workers."""

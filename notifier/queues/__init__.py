"""The queue port, and a folder for each implementation: RabbitMQ and SQLite. Start with `queue_port.py`."""

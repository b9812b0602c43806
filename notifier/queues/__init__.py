"""The queue port, and a room for each queue that implements it: RabbitMQ and SQLite. Start with `queue_port.py`."""

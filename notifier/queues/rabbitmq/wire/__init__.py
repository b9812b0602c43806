"""The frames exchanged with RabbitMQ. Start with `decoding.py`."""

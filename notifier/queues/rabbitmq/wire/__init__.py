"""The frames that RabbitMQ sends and receives. Start with `decoding.py`."""

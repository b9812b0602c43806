"""The frames that RabbitMQ sends and gets."""

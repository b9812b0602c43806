"""What RabbitMQ sends and gets, frame by frame."""

"""TLS from PEM files: of connections to clients, to the broker, and of the listener."""

"""Takes messages, and starts their deliveries."""

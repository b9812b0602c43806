"""The queues: one room for each that can hold events and deliveries."""

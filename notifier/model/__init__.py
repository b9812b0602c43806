"""What all rooms speak of: event, client, delivery, outcome, message, registry, and times and texts. No I/O."""

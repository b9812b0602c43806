"""What everybody speaks of: event, client, delivery, outcome, message, registry, and times and texts. No I/O."""

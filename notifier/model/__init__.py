"""The types of all rooms: event, client, delivery, outcome, message, registry, times. No I/O. Start: `delivery.py`."""

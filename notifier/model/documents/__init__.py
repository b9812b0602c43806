"""The documents in queues: events as publishers write them, and notifier's own documents."""

"""The documents that travel in queues: events as publishers write them, and what notifier writes itself."""

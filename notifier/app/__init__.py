"""The composition root: the only place that knows every class. Builds the service from its configuration, runs it."""

from notifier.app.observers import subject_hash
from notifier.app.queue import Queue, build_queue, rabbit_options
from notifier.app.service import Service
from notifier.app.tracing import build_tracing

__all__ = ["Queue", "Service", "build_queue", "build_tracing", "rabbit_options", "subject_hash"]

"""The composition root: the only place that knows every class. Builds the service from its configuration, runs it."""

from notifier.app.builders import build_event_queue, build_queue, build_tracing, rabbit_options, subject_hash
from notifier.app.service import Service

__all__ = ["Service", "build_event_queue", "build_queue", "build_tracing", "rabbit_options", "subject_hash"]

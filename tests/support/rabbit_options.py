"""RabbitMQ for a test: with two buckets, since each is a queue that a node declares in 10 ms and keeps in 80 KiB."""

from typing import Any

from notifier.queues.rabbitmq.options import RabbitOptions

BUCKETS = 2


def rabbit_options(url: str, prefix: str = "notifier", **more: Any) -> RabbitOptions:
    """The options of a queue on this broker."""
    ours: dict[str, Any] = {"urls": (url,), "prefix": prefix, "buckets": BUCKETS}
    return RabbitOptions(**ours | more)

"""RabbitMQ settings for tests: two buckets, since the node needs 10 ms and 80 KiB for each queue."""

from typing import Any

from notifier.queues.rabbitmq.options import RabbitOptions

BUCKETS = 2


def rabbit_options(url: str, prefix: str = "notifier", **more: Any) -> RabbitOptions:
    """Return the options of a queue on this broker."""
    ours: dict[str, Any] = {"urls": (url,), "prefix": prefix, "buckets": BUCKETS}
    return RabbitOptions(**ours | more)

"""RabbitMQ settings for tests: two buckets, since the node needs 10 ms and 80 KiB for each queue."""

from typing import Any

from notifier.queues.rabbitmq.options import RabbitOptions

BUCKETS = 2
LARGE_BUCKET = "parked-large-00.delay.1024s"
BUCKET_NAMES = (*(f"parked-{number:02d}.delay.1024s" for number in range(BUCKETS)), LARGE_BUCKET)


def rabbit_options(url: str, prefix: str = "notifier", **more: Any) -> RabbitOptions:
    """Return the options of a queue on this broker."""
    ours: dict[str, Any] = {"urls": (url,), "prefix": prefix, "buckets": BUCKETS}
    return RabbitOptions(**ours | more)

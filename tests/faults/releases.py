"""Run the worker of a release with large buckets, or of an older release without them.

    python releases.py newer|older run -c …

Of the newer, twenty parked deliveries of a client are a large backlog.
"""

import sys

from notifier.cli import main
from notifier.delivery import fetches, settlement
from notifier.queues.rabbitmq import buckets, side_channel, topology, topology_watch
from notifier.queues.rabbitmq.options import RabbitOptions

LARGE_BACKLOG = 20


def set_large_backlog(count: int) -> None:
    """Set the number of parked deliveries from which on a backlog is large."""
    for module in (settlement, fetches):
        module.LARGE_BACKLOG = count  # type: ignore[attr-defined]


def forget_large_buckets() -> None:
    """Neither declare, use nor announce large buckets."""
    names = buckets.bucket_names

    def ordinary_names(options: RabbitOptions) -> tuple[str, ...]:
        return names(options)[: options.buckets]

    for module in (topology, topology_watch):
        module.bucket_names = ordinary_names  # type: ignore[attr-defined]
    side_channel.LARGE_BUCKETS = "unknown"
    set_large_backlog(10**9)


if __name__ == "__main__":
    if sys.argv.pop(1) == "older":
        forget_large_buckets()
    else:
        set_large_backlog(LARGE_BACKLOG)
    main()

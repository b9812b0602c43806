"""The number of workers, of announcements and consumers."""

import pytest

from notifier.queues.rabbitmq.topology_watch import WorkerCount


@pytest.mark.parametrize("announced", [2, 3])
def test_brief_announcements_hide_no_worker_without_a_side_channel(announced: int) -> None:
    """Of three workers, one or two announce themselves. A killed worker counts for a while beside its replacement."""
    workers, values = WorkerCount(), list[int]()
    for count in (1, announced, announced + 1, 1, 1):
        workers.on_announced(count)
        workers.on_consumers(3, may_decrease=True)
        values.append(workers.value)
    assert values == [3, 3, max(3, announced + 1), 3, 3]
    assert not workers.by_presence

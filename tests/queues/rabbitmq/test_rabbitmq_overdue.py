"""What a worker expects from delay queues: by a monotonic clock, and no longer than until a queue is seen to move."""

from typing import Any

from notifier.model.documents.documents import dump_delivery
from notifier.model.message import Kind, Lane, Message
from notifier.queues.rabbitmq.overdue import OVERDUE_SECONDS, OverdueDelays
from notifier.queues.rabbitmq.waiting import RabbitWaiting
from tests.model.documents.test_documents import DELIVERY

HOP = 8.0


class Clocks:
    """A monotonic clock and a wall clock."""

    monotonic = 1000.0
    wall = 1_800_000_000.0


def watch(clocks: Clocks) -> OverdueDelays:
    """Return a watch that fails if it examines a queue."""

    def no_waiting() -> RabbitWaiting:
        raise AssertionError("nothing is overdue")

    async def is_empty(queue: str) -> bool:
        raise AssertionError(queue)

    return OverdueDelays(no_waiting, is_empty, lambda: clocks.wall, lambda: clocks.monotonic)


def out_of(queue: str) -> Message:
    """Return a message from this queue (full name)."""
    headers: dict[str, Any] = {"x-death": [{"queue": queue, "reason": "expired", "exchange": ""}]}
    return Message(lane=Lane.RETRIES, body=b"", tag=1, headers=headers)


def test_message_that_stays_too_long_is_overdue() -> None:
    """Half a minute after its due time, whatever the wall clock shows meanwhile."""
    clocks = Clocks()
    overdue = watch(clocks)
    overdue.on_published("delay.8s")
    overdue.on_published("retries")
    clocks.wall += 3600
    clocks.monotonic += HOP + OVERDUE_SECONDS
    assert overdue.find_missed() == []
    clocks.monotonic += 0.1
    assert overdue.find_missed() == ["delay.8s"]


def test_moving_queue_is_not_checked() -> None:
    """Messages of this queue are distinguished by its name from those of a bucket or another queue."""
    clocks = Clocks()
    overdue = watch(clocks)
    overdue.on_published("delay.8s")
    clocks.monotonic += 1.0
    overdue.on_published("delay.8s")
    clocks.monotonic += HOP - 0.5
    overdue.on_received(out_of("a.b.delay.8s"))
    clocks.monotonic += OVERDUE_SECONDS + 0.4
    assert overdue.find_missed() == []  # the second is expected now
    clocks.monotonic += 0.2
    for other in ("notifier.parked-07.delay.8s", "notifier.delay.4s"):
        overdue.on_received(out_of(other))
    assert overdue.find_missed() == ["delay.8s"]
    overdue.on_received(out_of("notifier.delay.8s"))
    assert overdue.find_missed() == []


def test_only_overdue_documents_are_moved() -> None:
    """A message of another kind, or of a later release, is left to the broker."""
    clocks = Clocks()
    overdue = watch(clocks)

    def meant(kind: Kind | None, body: bytes) -> bool:
        return overdue.read(Message(lane=Lane.RETRIES, body=body, tag=1, kind=kind)).summary is not None

    late = clocks.wall - OVERDUE_SECONDS
    assert meant(Kind.DELIVERY, dump_delivery(DELIVERY, due=late - 1))
    assert not meant(Kind.DELIVERY, dump_delivery(DELIVERY, due=late + 1))
    hops = dump_delivery(DELIVERY, due=late - 1)[:-2] + b',"hops":[4,2]}}'
    assert meant(Kind.DELIVERY, hops)
    for body in (dump_delivery(DELIVERY), b"", b'{"schedule":{"due":"x"}}', b'{"schedule":{}}'):
        assert not meant(Kind.DELIVERY, body)
    assert not meant(Kind.SOURCED, dump_delivery(DELIVERY, due=late - 1))

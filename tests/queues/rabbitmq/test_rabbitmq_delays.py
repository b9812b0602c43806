"""Delays on RabbitMQ: a wait as hops through delay queues, and messages forwarded from one hop to the next."""

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.delivery import Delivery
from notifier.model.documents.documents import dump_delivery
from notifier.model.errors import OneQueueUnavailable, QueueFull, QueueUnavailable
from notifier.model.message import CRASHES_HEADER, LAST_CHANCE, Kind, Lane, Message, MessageDraft, NewerKind
from notifier.queues.rabbitmq.delays import (
    DELAY_QUEUES,
    HOP_SECONDS,
    MAX_HOPS,
    Forwarder,
    find_neighbours,
    publish_delayed,
    split_into_hops,
    to_first_hop,
    to_next_hop,
)
from tests.contract.queues import Inbox

NOW = 1_800_000_000.0
DELIVERY = Delivery(id="d", event_id="e", id_given=True, iss="i", client_id="c", sub='"hops":[8]}}', sid=None)
BODY = dump_delivery(DELIVERY, due=NOW + 45)


def outgoing(body: bytes = BODY) -> MessageDraft:
    """A delivery that is due in 45 s."""
    return MessageDraft(kind=Kind.DELIVERY, body=body, message_id="d")


def came(body: bytes) -> Message:
    """The delivery, as it comes out of a delay queue."""
    return Message(lane=Lane.RETRIES, body=body, tag=1, kind=Kind.DELIVERY, message_id="d")


WAITING = to_first_hop(outgoing(), 45, "down")[1].body


@pytest.mark.parametrize(
    ("seconds", "rounding", "expected"),
    [
        (45, "down", (32, 8, 4)),
        (44.995, "down", (32, 8, 4)),
        (45, "up", (32, 16)),
        (0, "down", (1,)),
        (0.3, "up", (1,)),
        (1.2, "up", (2,)),
        (3600, "down", (2048, 1024, 512)),
        (200_000, "down", (65536, 65536, 65536)),
        (200_000, "up", (65536, 65536, 65536)),
    ],
)
def test_a_wait_is_written_as_hops(seconds: float, rounding: str, expected: tuple[int, ...]) -> None:
    """Longest first; down for a backoff, up where the client named the time."""
    assert split_into_hops(seconds, "up" if rounding == "up" else "down") == expected


@given(seconds=st.floats(0, MAX_HOPS * HOP_SECONDS[-1]))
def test_hops_are_queues_that_exist_and_come_close(seconds: float) -> None:
    """At most three. For a wait of up to 18 h an eighth is missing at most, or it is a seventh longer at most."""
    down, up = split_into_hops(seconds, "down"), split_into_hops(seconds, "up")
    for path in (down, up):
        assert 1 <= len(path) <= MAX_HOPS
        assert set(path) <= set(HOP_SECONDS)
        assert list(path) == sorted(path, reverse=True)
    assert sum(down) <= max(1.0, seconds + max(0.01, min(0.5, seconds / 1024)))
    assert seconds <= sum(up) + 0.01
    if seconds <= HOP_SECONDS[-1]:
        assert sum(down) >= int(seconds) * 7 / 8
        assert sum(up) <= (seconds + 1) * 8 / 7


def test_document_has_the_remaining_hops() -> None:
    """Each hop takes one away, as every release writes and reads it; the rest of the document stays as it is."""
    queue, sent = to_first_hop(outgoing(), 45, "down")
    assert (queue, json.loads(sent.body)["schedule"]) == ("delay.32s", {"due": NOW + 45, "hops": [8, 4]})
    queue, sent = to_next_hop(came(sent.body), NOW + 32) or pytest.fail("it is not due")
    assert (queue, json.loads(sent.body)["schedule"]) == ("delay.8s", {"due": NOW + 45, "hops": [4]})
    queue, sent = to_next_hop(came(sent.body), NOW + 40) or pytest.fail("it is not due")
    assert (queue, sent) == ("delay.4s", outgoing())
    assert to_next_hop(came(sent.body), NOW + 44) is None


def test_crash_count_survives_a_hop() -> None:
    """Other headers do not: a copied `x-death` makes the broker drop the message."""
    waiting = replace(came(WAITING), headers={CRASHES_HEADER: "7", "x-death": []}, delivery_count=1)
    _, sent = to_next_hop(waiting, NOW + 32) or pytest.fail("it is not due")
    assert sent.headers == {CRASHES_HEADER: "7"}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"v":7}', b"\xff}}"])
def test_message_with_invalid_hops_has_one_hop(body: bytes) -> None:
    """Its body is a later release's, and stays as it is."""
    assert to_first_hop(outgoing(body), 45, "down") == ("delay.32s", outgoing(body))
    assert to_first_hop(outgoing(body), 45, "up") == ("delay.64s", outgoing(body))


@pytest.mark.parametrize(
    "message",
    [
        came(WAITING.replace(b"[8,4]", b"[3]")),
        came(WAITING.replace(b"[8,4]", b"[true]")),
        came(WAITING.replace(b"[8,4]", b"[]")),
        came(WAITING.replace(b"1800000045.0", b"1e999")),
        came(WAITING.replace(b"1800000045.0", b'"soon"')),
        came(WAITING[:-1]),
        came(BODY),
        replace(came(WAITING), kind=None),
        replace(came(WAITING), kind=NewerKind("notifier.batch")),
    ],
)
def test_message_without_hops_is_due(message: Message) -> None:
    """A wait that nobody could keep ends nothing and lasts no longer; a publisher cannot ask for one."""
    assert to_next_hop(message, NOW + 32) is None


def test_the_wall_clock_shortens_a_wait() -> None:
    """A message that is due by the wall clock takes no further hop, although hops remain."""
    assert to_next_hop(came(WAITING), NOW + 44.5) is None


def delays_of(queue: str, message: MessageDraft) -> list[int]:
    """Return the delays of the message in seconds, from this queue on."""
    return [DELAY_QUEUES[queue], *json.loads(message.body).get("schedule", {}).get("hops", ())]


@pytest.mark.parametrize(
    ("seconds", "paths"),
    [
        (45, [[16, 16, 8, 4], [4, 4, 8, 16, 8, 4], [64, 8, 4], [256, 8, 4]]),
        (2, [[1, 1], [4], [16]]),
        (1, [[2], [8]]),
        (65536, [[32768, 32768], [8192, 8192, 16384, 32768]]),
    ],
)
def test_neighbours_of_a_delay_queue_keep_the_wait(seconds: float, paths: list[list[int]]) -> None:
    """The rest of a shorter delay becomes hops, which every release forwards. Longer delays come last."""
    found = [*find_neighbours(*to_first_hop(outgoing(), seconds, "down"))]
    assert [delays_of(*each) for each in found] == paths
    (first, *hops), (_, sent) = paths[0], found[0]
    assert {**json.loads(sent.body), "schedule": None} == {**json.loads(BODY), "schedule": None}
    if seconds == 45:
        assert (to_next_hop(came(sent.body), NOW + first) or pytest.fail("it is not due"))[0] == f"delay.{hops[0]}s"


def test_no_neighbour_uses_the_channel_of_its_queue() -> None:
    """Queues of odd and even powers of two have different channels: a silent queue may block its channel."""
    for queue, seconds in DELAY_QUEUES.items():
        for neighbour, _ in find_neighbours(queue, outgoing()):
            assert (seconds * DELAY_QUEUES[neighbour]).bit_length() % 2 == 0


@pytest.mark.parametrize("kind", [Kind.DELIVERY, Kind.SOURCED])
def test_document_that_cannot_have_hops_waits_longer(kind: Kind) -> None:
    """Its body stays as it is: that of a publisher may only look like one of notifier's."""
    sent = replace(outgoing(b"{}" if kind is Kind.DELIVERY else BODY), kind=kind)
    assert [*find_neighbours("delay.4s", sent)] == [("delay.8s", sent), ("delay.32s", sent)]


async def test_message_goes_to_the_first_neighbour_that_takes_it() -> None:
    """After a silent neighbour it goes to no other: each would hold a copy. The error is that of the first queue."""
    refusing = dict[str, Exception]()
    tried = list[str]()

    async def publish(queue: str, _message: MessageDraft) -> None:
        tried.append(queue)
        if queue in refusing:
            raise refusing[queue]

    for error in (OneQueueUnavailable("silent"), QueueFull("full")):
        refusing["delay.16s"] = error
        await publish_delayed(publish, "delay.16s", outgoing())
    refusing["delay.8s"] = QueueFull("full, too")
    await publish_delayed(publish, "delay.16s", outgoing())
    assert tried == ["delay.16s", "delay.8s"] * 3 + ["delay.2s"]
    tried.clear()
    refusing["delay.2s"] = OneQueueUnavailable("silent, too")
    with pytest.raises(QueueUnavailable, match=r"^full$") as failed:
        await publish_delayed(publish, "delay.16s", outgoing())
    assert (tried, isinstance(failed.value, OneQueueUnavailable)) == (["delay.16s", "delay.8s", "delay.2s"], False)


class Broker:
    """Confirms publishes while it is `up`."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.published: list[str] = []
        self.acked: list[Message] = []
        self.inbox = Inbox()
        self.forwarder = Forwarder(
            self.inbox, self.publish, self.wait_until_available, self.acked.append, lambda: NOW + 32
        )

    async def publish(self, queue: str, _message: MessageDraft) -> None:
        if not self.up.is_set():
            raise QueueUnavailable("away")
        self.published.append(queue)

    async def wait_until_available(self) -> None:
        await self.up.wait()


async def rounds() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_early_message_is_forwarded_and_acked_once_durable() -> None:
    """The inbox gets only what is due."""
    broker, waiting, due = Broker(), came(WAITING), came(BODY)
    broker.forwarder.take(waiting)
    broker.forwarder.take(due)
    await rounds()
    assert (await broker.inbox.next(), broker.acked) == (due, [])
    broker.up.set()
    await rounds()
    assert (broker.published, broker.acked) == (["delay.8s"], [waiting])
    assert broker.inbox.empty()


@pytest.mark.parametrize(("lane", "published"), [(Lane.RETRIES, []), (Lane.EVENTS, ["delay.8s"])])
async def test_lost_message_is_not_forwarded(lane: Lane, published: list[str]) -> None:
    """It comes again, and is forwarded then. Another lane's loss concerns other messages."""
    broker = Broker()
    broker.forwarder.take(came(WAITING))
    await rounds()
    broker.forwarder.on_lost(lane)
    broker.up.set()
    await rounds()
    assert (broker.published, len(broker.acked), broker.inbox.lost_lanes) == (published, len(published), [lane])


async def test_worn_out_message_is_not_delayed() -> None:
    """It is at its last chance to be buried."""
    broker, at_delivery_limit = Broker(), replace(came(WAITING), delivery_count=LAST_CHANCE)
    broker.forwarder.take(at_delivery_limit)
    assert await broker.inbox.next() == at_delivery_limit

"""Replies to publishers: each client's result once it is durable, and the end of the replies."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.message import DEAD, Lane
from notifier.model.notice import DeliveryResult, Notice
from notifier.model.registry import Followers
from notifier.model.reply import ReplyTo, parse_reply_to
from notifier.publishing.notice_wait import EventNotices, dump_reply, load_reply
from notifier.publishing.reply_observer import ReplyObserver
from notifier.queues.queue_port import Presence
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, running

ASKED = ReplyTo(to="amq.gen-x", correlation_id="7")


class SideChannel:
    """Keep the replies of a worker."""

    address = "here"
    dropped = 0

    def __init__(self) -> None:
        self.replies: list[tuple[ReplyTo, Notice]] = []

    def on_malformed(self) -> None:
        """Do nothing."""

    def listen(self, state: Callable[[], bytes], received: Callable[[str, bytes], None]) -> None:
        """Do nothing."""

    def handle_requests(self, handle: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Do nothing."""

    def share_updates(
        self, next_update: Callable[[], Awaitable[bytes]], on_update: Callable[[bytes], None], kind: str = "news"
    ) -> None:
        """Do nothing."""

    def share_presence(self, presence: Presence) -> None:
        """Do nothing."""

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Keep a reply as the publisher reads it."""
        notice = load_reply(body)
        assert notice is not None
        self.replies.append((ReplyTo(to=to, correlation_id=correlation_id), notice))


def replies_of(harness: WorkerHarness) -> list[tuple[ReplyTo, Notice]]:
    """Return the replies to all facts so far."""
    side_channel = SideChannel()
    replies = ReplyObserver(side_channel, clock=lambda: harness.now, new_id=lambda: "id")
    for fact in harness.facts:
        replies.observe(fact)
    return side_channel.replies


def known_of(harness: WorkerHarness) -> EventNotices:
    """Return what the replies so far contain for the publisher."""
    known = EventNotices()
    for _, notice in replies_of(harness):
        known.add(notice)
    return known


def body_of(*clients: object, **members: object) -> bytes:
    """Return an event of alice's session."""
    return json.dumps({"iss": ISS, "sub": "alice", "sid": "s1", "clients": list(clients)} | members).encode()


async def served(harness: WorkerHarness, body: bytes, *, asked: ReplyTo | None = ASKED) -> list[Notice]:
    """Deliver an event, and return the replies to its publisher."""
    async with running(harness):
        await harness.acked(harness.take(body, reply_to=asked))
    return [notice for _, notice in replies_of(harness)]


async def test_replies_contain_no_resolved_address() -> None:
    """A publisher may name any URI; its resolved address, and whether it is internal, is not disclosed."""
    [reply_] = await served(
        WorkerHarness(inline="allow"),
        body_of({"client_id": "inside", "backchannel_logout_uri": "https://10.1.2.3/out"}),
    )
    assert (reply_.fate, reply_.reason, reply_.text) == (DeliveryResult.DEAD, "egress_denied", "")


async def test_replies_contain_the_result_and_reason_of_each_client() -> None:
    """Delivered, retrying, dead and skipped, with the total, so that the publisher can detect the end."""
    silent = replace(client("silent"), backchannel_logout_uri=None)
    harness = WorkerHarness(client("well"), client("down"), client("wiki"), silent)
    harness.receivers.behaviours |= {"down": answers(500), "wiki": answers(403)}
    fates = {
        reply_.client_id: reply_
        for reply_ in await served(harness, body_of("well", "down", "wiki", "silent", id="e-1"))
    }
    assert {asked for asked, _ in replies_of(harness)} == {ASKED}
    assert {name: reply_.fate for name, reply_ in fates.items()} == {
        "well": DeliveryResult.DELIVERED,
        "down": DeliveryResult.RETRYING,
        "wiki": DeliveryResult.DEAD,
        "silent": DeliveryResult.SKIPPED,
    }
    assert all((reply_.of, reply_.event_id, reply_.iss) == (4, "e-1", ISS) for reply_ in fates.values())
    assert (fates["down"].reason, fates["down"].status, fates["down"].attempts) == ("server_error", 500, 1)
    assert fates["down"].next_due == harness.now + 1.0
    assert (fates["wiki"].reason, fates["wiki"].text) == ("refused", "the client answered 403")
    assert fates["silent"].reason == "no_uri"
    known = known_of(harness)
    assert not known.settled
    assert known.idle_until(harness.now + 1.0)
    assert not known.idle_until(harness.now + 1.1)


async def test_client_with_two_uris_has_two_results() -> None:
    """In one event: neither the deliveries, nor their dead letters, nor their replies are mistaken for copies."""
    harness = WorkerHarness(client("well"), inline="allow")
    harness.receivers.behaviours["wiki"] = harness.receivers.behaviours["off"] = answers(403)
    uris = [f"https://{host}.example/out" for host in ("well", "wiki", "off", "wiki")]
    reply_ = await served(harness, body_of(*({"client_id": "well", "backchannel_logout_uri": uri} for uri in uris)))
    assert sorted(name for name, _ in harness.receivers.posts) == ["off", "well", "wiki"]
    dead_letters = [message.message_id for queue, message in harness.queue.published if queue == DEAD]
    assert len(set(dead_letters)) == len(dead_letters) == 2
    assert sorted((each.fate, each.of) for each in reply_) == [
        (DeliveryResult.DEAD, 3),
        (DeliveryResult.DEAD, 3),
        (DeliveryResult.DELIVERED, 3),
    ]
    assert len({each.delivery_id for each in reply_}) == 3
    assert known_of(harness).settled


async def test_retry_sends_another_reply() -> None:
    """The reply address is part of the delivery, so that any worker can reply after a retry."""
    harness = WorkerHarness(client("down"))
    harness.receivers.behaviours["down"] = answers(500)
    async with running(harness):
        await harness.acked(harness.take(body_of("down"), reply_to=ASKED))
        del harness.receivers.behaviours["down"]
        harness.now += 1
        await harness.acked(harness.retake("delay.1s"))
    assert [reply_.fate for _, reply_ in replies_of(harness)] == [DeliveryResult.RETRYING, DeliveryResult.DELIVERED]
    assert known_of(harness).settled


async def test_parts_of_a_large_event_have_one_total() -> None:
    """120 clients are split into two parts; the replies contain 120, and a duplicate client counts once."""
    harness = WorkerHarness(*(client(f"c{number}") for number in range(120)))
    async with running(harness):
        await harness.acked(harness.take(body_of(*(f"c{number}" for number in range(120)), "c0"), reply_to=ASKED))
        parts = [message for queue, message in harness.queue.published if queue == Lane.EVENTS]
        for part in parts:
            harness.take(part.body, kind=part.kind, message_id=part.message_id)
        await harness.until(lambda: len(harness.queue.acked) == 1 + len(parts))
    assert len(parts) == 2
    assert [reply_.of for _, reply_ in replies_of(harness)] == [120] * 120
    assert known_of(harness).settled


@pytest.mark.parametrize("name", ["shop", "alias", "*"])
async def test_each_address_of_a_client_has_a_reply(name: str) -> None:
    """The total counts them, also if the event is split or names an alias."""
    harness = WorkerHarness(client("shop"), client("shop-us", follows="shop"))
    followers = {ISS: Followers(of={"shop": ["shop-us"]}, leaders={"shop-us": "shop"})}
    harness.registry = replace(harness.registry, followers=followers, aliases={ISS: {"alias": "shop"}})
    body = body_of(**{"clients": "*"} if name == "*" else {"clients": [name, "shop", "shop-us"]})
    async with running(harness):
        await harness.acked(harness.take(body, reply_to=ASKED))
        parts = [message for queue, message in harness.queue.published if queue == Lane.EVENTS]
        for part in parts:
            await harness.acked(harness.take(part.body, kind=part.kind, message_id=part.message_id))
    assert [(reply_.client_id, reply_.of) for _, reply_ in replies_of(harness)] == [("shop", 2), ("shop-us", 2)]
    assert known_of(harness).settled


async def test_event_without_clients_has_a_reply() -> None:
    """Otherwise the publisher would wait until the end of its time."""
    harness = WorkerHarness()
    [reply_] = await served(harness, json.dumps({"iss": ISS, "sub": "alice", "clients": "*"}).encode())
    assert (reply_.fate, reply_.client_id, reply_.of) == (DeliveryResult.SKIPPED, "", 0)
    assert known_of(harness).settled


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"{", "malformed_event"), (json.dumps({"iss": "https://no", "sub": "a", "clients": ["x"]}).encode(), "unknown")],
)
async def test_unserved_event_has_one_reply(body: bytes, reason: str) -> None:
    """It concerns no single client."""
    harness = WorkerHarness()
    [reply_] = await served(harness, body)
    assert [asked for asked, _ in replies_of(harness)] == [ASKED]
    assert (reply_.client_id, reply_.reason) == ("", reason)
    assert known_of(harness).settled is (reply_.fate is DeliveryResult.DEAD)


def test_late_reply_overrides_nothing() -> None:
    """Replies of two workers may be reordered."""
    known = EventNotices()
    known.add(Notice(fate=DeliveryResult.DELIVERED, iss=ISS, event_id="e", client_id="c", delivery_id="d", of=1))
    known.add(
        Notice(fate=DeliveryResult.RETRYING, iss=ISS, event_id="e", client_id="c", delivery_id="d", next_due=9.0, of=1)
    )
    assert known.settled


def test_event_that_was_unknown_at_first_has_replies_by_client() -> None:
    """Replies for clients replace the reply for the event."""
    known = EventNotices()
    known.add(Notice(fate=DeliveryResult.RETRYING, iss=ISS, event_id="e", reason="unknown", next_due=9.0))
    assert not known.settled
    known.add(Notice(fate=DeliveryResult.DELIVERED, iss=ISS, event_id="e", client_id="c", delivery_id="d", of=1))
    assert [reply_.fate for reply_ in known.known] == [DeliveryResult.DELIVERED]
    assert known.settled


def test_format_of_replies_is_stable() -> None:
    """Byte for byte: publishers and workers of other releases read it."""
    notice = Notice(
        fate=DeliveryResult.RETRYING, iss="https://i", event_id="e", client_id="c", delivery_id="d",
        reason="server_error",
        status=503, attempts=2, next_due=1_800_000_000.0, of=3,
    )  # fmt: skip
    assert dump_reply(notice) == (
        b'{"v": 1, "fate": "retrying", "iss": "https://i", "event_id": "e", "next_due": "2027-01-15T08:00:00.000000Z", '
        b'"client_id": "c", "id": "d", "reason": "server_error", "status": 503, "attempts": 2, "of": 3}'
    )
    assert load_reply(dump_reply(notice)) == notice


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b'{"v": 2, "fate": "dead"}', b'{"v": 1, "fate": "lost"}']))
def test_invalid_reply_is_ignored(body: bytes) -> None:
    """Anybody may send to a queue with a known name."""
    assert load_reply(body) is None


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("amq.rabbitmq.reply-to.g1h2AA5yZXBseUAxMjM0.QWxhZGRpbg==", True),
        ("amq.gen-JzTY20BRgKO-HjmUJj0wLg", True),
        ("notifier.retries", False),
        ("amq.direct", False),
        ("amq.gen-", False),
        ("amq.gen-with space", False),
        ("", False),
    ],
)
def test_reply_queue_must_be_generated_by_the_broker(name: str, may: bool) -> None:
    """Otherwise it could write into any queue through the worker."""
    assert parse_reply_to(name, "7") == (ReplyTo(to=name, correlation_id="7") if may else None)

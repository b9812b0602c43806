"""Whoever asks hears of each client what became of it, once it is durable, and knows when the last word was said."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.fate import Fate, Notice
from notifier.model.message import DEAD, Lane
from notifier.model.reply import ReplyTo, parse_reply_to
from notifier.publishing.notice_wait import EventNotices, dump_reply, load_reply
from notifier.publishing.reply_observer import ReplyObserver
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, running

ASKED = ReplyTo(to="amq.gen-x", correlation_id="7")


class SideChannel:
    """Keeps the replies that a worker sends."""

    address = "here"
    dropped = 0

    def __init__(self) -> None:
        self.replies: list[tuple[ReplyTo, Notice]] = []

    def listen(self, state: Callable[[], bytes], heard: Callable[[str, bytes], None]) -> None:
        """Nobody asks."""

    def handle_requests(self, handle: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Nobody asks for anything here."""

    def share_updates(self, next_update: Callable[[], Awaitable[bytes]], heard: Callable[[bytes], None]) -> None:
        """There are no other workers."""

    share_presence = share_updates

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Keep a reply as the publisher reads it."""
        notice = load_reply(body)
        assert notice is not None
        self.replies.append((ReplyTo(to=to, correlation_id=correlation_id), notice))


def replies_of(harness: WorkerHarness) -> list[tuple[ReplyTo, Notice]]:
    """Return the replies to all that happened so far."""
    side_channel = SideChannel()
    replies = ReplyObserver(side_channel, clock=lambda: harness.now, new_id=lambda: "id")
    for fact in harness.facts:
        replies.observe(fact)
    return side_channel.replies


def known_of(harness: WorkerHarness) -> EventNotices:
    """Return what the publisher who asked knows by now."""
    known = EventNotices()
    for _, notice in replies_of(harness):
        known.add(notice)
    return known


def body_of(*clients: object, **members: object) -> bytes:
    """An event of alice's session."""
    return json.dumps({"iss": ISS, "sub": "alice", "sid": "s1", "clients": list(clients)} | members).encode()


async def served(harness: WorkerHarness, body: bytes, *, asked: ReplyTo | None = ASKED) -> list[Notice]:
    """Hand over an event, and return what its publisher was told."""
    async with running(harness):
        await harness.acked(harness.take(body, reply_to=asked))
    return [notice for _, notice in replies_of(harness)]


async def test_who_publishes_learns_no_address_behind_a_name() -> None:
    """Whoever may publish may name any URI; which address it led to, and that it is one of ours, stays here."""
    [told] = await served(
        WorkerHarness(inline="allow"),
        body_of({"client_id": "inside", "backchannel_logout_uri": "https://10.1.2.3/out"}),
    )
    assert (told.fate, told.reason, told.text) == (Fate.DEAD, "egress_denied", "")


async def test_each_client_s_fate_is_told_with_its_reason() -> None:
    """Delivered, retrying, dead and skipped, and of how many in all: so the asker knows that these are all."""
    silent = replace(client("silent"), backchannel_logout_uri=None)
    harness = WorkerHarness(client("well"), client("down"), client("wiki"), silent)
    harness.receivers.behaviours |= {"down": answers(500), "wiki": answers(403)}
    fates = {
        told.client_id: told for told in await served(harness, body_of("well", "down", "wiki", "silent", id="e-1"))
    }
    assert {asked for asked, _ in replies_of(harness)} == {ASKED}
    assert {name: told.fate for name, told in fates.items()} == {
        "well": Fate.DELIVERED,
        "down": Fate.RETRYING,
        "wiki": Fate.DEAD,
        "silent": Fate.SKIPPED,
    }
    assert all((told.of, told.event_id, told.iss) == (4, "e-1", ISS) for told in fates.values())
    assert (fates["down"].reason, fates["down"].status, fates["down"].attempts) == ("server_error", 500, 1)
    assert fates["down"].next_due == harness.now + 1.0
    assert (fates["wiki"].reason, fates["wiki"].text) == ("refused", "the client answered 403")
    known = known_of(harness)
    assert not known.settled
    assert known.idle_until(harness.now + 1.0)
    assert not known.idle_until(harness.now + 1.1)


async def test_a_client_with_two_uris_is_told_at_both_and_each_has_its_fate() -> None:
    """By one event: neither delivery is taken for a copy of the other, nor its dead letter, nor its reply."""
    harness = WorkerHarness(client("well"), inline="allow")
    harness.receivers.behaviours["wiki"] = harness.receivers.behaviours["off"] = answers(403)
    uris = [f"https://{host}.example/out" for host in ("well", "wiki", "off", "wiki")]
    told = await served(harness, body_of(*({"client_id": "well", "backchannel_logout_uri": uri} for uri in uris)))
    assert sorted(name for name, _ in harness.receivers.posts) == ["off", "well", "wiki"]
    letters = [message.message_id for queue, message in harness.queue.published if queue == DEAD]
    assert len(set(letters)) == len(letters) == 2
    assert sorted((each.fate, each.of) for each in told) == [(Fate.DEAD, 3), (Fate.DEAD, 3), (Fate.DELIVERED, 3)]
    assert len({each.delivery_id for each in told}) == 3
    assert known_of(harness).settled


async def test_a_retry_tells_again() -> None:
    """The address travels with the delivery, so that whichever worker makes the retry tells of it."""
    harness = WorkerHarness(client("down"))
    harness.receivers.behaviours["down"] = answers(500)
    async with running(harness):
        await harness.acked(harness.take(body_of("down"), reply_to=ASKED))
        del harness.receivers.behaviours["down"]
        harness.now += 1
        await harness.acked(harness.retake("delay.1s"))
    assert [told.fate for _, told in replies_of(harness)] == [Fate.RETRYING, Fate.DELIVERED]
    assert known_of(harness).settled


async def test_the_parts_of_a_large_event_are_counted_as_one() -> None:
    """120 clients go as two parts; the replies say 120, and a client named twice is one."""
    harness = WorkerHarness(*(client(f"c{number}") for number in range(120)))
    async with running(harness):
        await harness.acked(harness.take(body_of(*(f"c{number}" for number in range(120)), "c0"), reply_to=ASKED))
        parts = [message for queue, message in harness.queue.published if queue == Lane.EVENTS]
        for part in parts:
            harness.take(part.body, kind=part.kind, message_id=part.message_id)
        await harness.until(lambda: len(harness.queue.acked) == 1 + len(parts))
    assert len(parts) == 2
    assert [told.of for _, told in replies_of(harness)] == [120] * 120
    assert known_of(harness).settled


async def test_all_clients_where_there_is_none_are_told_as_nobody() -> None:
    """Else who asked would wait for the rest of the time."""
    harness = WorkerHarness()
    [told] = await served(harness, json.dumps({"iss": ISS, "sub": "alice", "clients": "*"}).encode())
    assert (told.fate, told.client_id, told.of) == (Fate.SKIPPED, "", 0)
    assert known_of(harness).settled


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"{", "malformed_event"), (json.dumps({"iss": "https://no", "sub": "a", "clients": ["x"]}).encode(), "unknown")],
)
async def test_an_event_that_is_not_served_is_told_as_a_whole(body: bytes, reason: str) -> None:
    """It concerns no client alone."""
    harness = WorkerHarness()
    [told] = await served(harness, body)
    assert [asked for asked, _ in replies_of(harness)] == [ASKED]
    assert (told.client_id, told.reason) == ("", reason)
    assert known_of(harness).settled is (told.fate is Fate.DEAD)


def test_a_late_word_takes_back_nothing() -> None:
    """Replies of two workers may cross."""
    known = EventNotices()
    known.add(Notice(fate=Fate.DELIVERED, iss=ISS, event_id="e", client_id="c", delivery_id="d", of=1))
    known.add(Notice(fate=Fate.RETRYING, iss=ISS, event_id="e", client_id="c", delivery_id="d", next_due=9.0, of=1))
    assert known.settled


def test_an_event_that_was_unknown_at_first_is_told_by_its_clients_then() -> None:
    """The word on the whole gives way."""
    known = EventNotices()
    known.add(Notice(fate=Fate.RETRYING, iss=ISS, event_id="e", reason="unknown", next_due=9.0))
    assert not known.settled
    known.add(Notice(fate=Fate.DELIVERED, iss=ISS, event_id="e", client_id="c", delivery_id="d", of=1))
    assert [told.fate for told in known.known] == [Fate.DELIVERED]
    assert known.settled


def test_a_reply_is_written_as_every_release_writes_it() -> None:
    """Byte for byte: publishers read it, and workers of other releases."""
    notice = Notice(
        fate=Fate.RETRYING, iss="https://i", event_id="e", client_id="c", delivery_id="d", reason="server_error",
        status=503, attempts=2, next_due=1_800_000_000.0, of=3,
    )  # fmt: skip
    assert dump_reply(notice) == (
        b'{"v": 1, "fate": "retrying", "iss": "https://i", "event_id": "e", "next_due": "2027-01-15T08:00:00.000000Z", '
        b'"client_id": "c", "id": "d", "reason": "server_error", "status": 503, "attempts": 2, "of": 3}'
    )
    assert load_reply(dump_reply(notice)) == notice


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b'{"v": 2, "fate": "dead"}', b'{"v": 1, "fate": "lost"}']))
def test_what_is_no_reply_is_nothing(body: bytes) -> None:
    """Anybody may send anything to a queue whose name is known."""
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
def test_a_publisher_may_name_only_what_the_broker_makes_up(name: str, may: bool) -> None:
    """Else it could write into any queue by the worker's hand."""
    assert parse_reply_to(name, "7") == (ReplyTo(to=name, correlation_id="7") if may else None)

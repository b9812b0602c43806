"""Releases side by side: messages of older releases are accepted, older releases can read new messages, and messages of
a later release are left to it.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery.facts import Deferred
from notifier.model.message import Kind, Lane, Message, NewerKind, parse_kind
from notifier.model.outcome import Cause
from tests.delivery.worker_harness import WorkerHarness, client, running
from tests.recorded.story import Recorded, kept, run_story

WRITTEN = kept("written")
PUBLISHED = kept("published")
OURS = ("delivery-retried", "delivery-deferred", "event-split", "event-of-unknown-issuer", "event-written-down")


def within(old: Any, new: Any) -> bool:
    """Return True if `new` has all members of `old` with the same values; it may have more."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and within(old[name], new[name]) for name in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(within, old, new))
    return bool(old == new)


def extended(value: Any) -> Any:
    """Add an unknown member to every object."""
    if isinstance(value, dict):
        return {**{name: extended(member) for name, member in value.items()}, "added_later": {"deep": [1]}}
    return [extended(member) for member in value] if isinstance(value, list) else value


def a_stage() -> WorkerHarness:
    """Run a worker whose clients all accept, at a time when each recorded delay is over."""
    harness = WorkerHarness(client("refuses"), client("fails"), client("shop"))
    harness.now += 3
    return harness


async def after_taking(message: Message) -> WorkerHarness:
    """Return a worker that took this message, after the ack."""
    async with running(a_stage()) as harness:
        harness.worker.take(message)
        await harness.until(lambda: harness.queue.acked == [message])
    return harness


async def test_this_release_writes_the_recorded_messages() -> None:
    """Within a version, members may be added; none is removed or changes its meaning.

    Ids equal the recorded ones.
    """
    fresh = await run_story()
    assert fresh.keys() == WRITTEN.keys()
    for name, recorded in WRITTEN.items():
        for part in Recorded.__slots__:
            assert within(getattr(recorded, part), getattr(fresh[name], part)), f"{part} of {name}"


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("name", "to_tell", "to_write"),
    [
        ("delivery-retried", ["fails"], []),
        ("delivery-deferred", [], ["delay.4s"]),
        ("event-split", ["shop", "fails"], []),
        ("event-of-unknown-issuer", [], ["delay.4s"]),
        ("event-written-down", ["shop"], []),
    ],
)
async def test_recorded_messages_are_accepted(name: str, to_tell: list[str], to_write: list[str], later: bool) -> None:
    """By a worker of this release, also if a later one has added members."""
    recorded = WRITTEN[name]
    harness = await after_taking(replace(recorded, body=extended(recorded.body) if later else recorded.body).message())
    assert sorted(harness.notified()) == sorted(to_tell)
    assert [queue for queue, _ in harness.queue.published] == to_write


@pytest.mark.parametrize("name", ["delivery-probe", "delivery-parked"])
async def test_recorded_pending_deliveries_are_delivered(name: str) -> None:
    """Any worker can send it."""
    harness = await after_taking(WRITTEN[name].message())
    assert harness.notified() == ["fails"]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", list(PUBLISHED))
async def test_recorded_events_of_publishers_are_accepted(name: str, later: bool) -> None:
    """Bare JSON and both forms of CloudEvents; their members are a contract with strangers."""
    recorded = PUBLISHED[name]
    harness = await after_taking(replace(recorded, body=extended(recorded.body) if later else recorded.body).message())
    assert harness.notified() == ["shop"]
    assert harness.queue.published == []


async def rests(harness: WorkerHarness, message: Message) -> tuple[str, Message]:
    """Let a worker postpone the message. Return the queue, and the message as it will return."""
    harness.worker.take(message)
    await harness.until(lambda: bool(harness.queue.acked) and harness.queue.acked[-1] == message)
    queue, written = harness.queue.published[-1]
    assert (written.body, written.kind, written.message_id) == (message.body, message.kind, message.message_id)
    return queue, replace(message, lane=Lane.RETRIES, headers=written.headers)


async def test_recorded_event_of_many_clients_continues() -> None:
    """As it was: no larger than it came."""
    message = WRITTEN["event-of-many-names"].message()
    ((queue, sent),) = (await after_taking(message)).queue.published
    assert queue == "delay.4s"
    assert json.loads(sent.body)["event"] == json.loads(message.body)["event"]
    assert json.loads(sent.body)["v"] == 2


@pytest.mark.parametrize("name", OURS)
async def test_message_of_a_later_version_is_deferred(name: str) -> None:
    """It is deferred by 4 s at first, and 256 s in the end, without limit; it is reported, and never a dead letter."""
    body = {**WRITTEN[name].body, "v": 3}
    message = replace(WRITTEN[name], body=body).message()
    waits = []
    async with running(a_stage()) as harness:
        for _ in range(9):
            queue, message = await rests(harness, message)
            waits.append(queue)
        assert harness.dead() == []
        assert harness.notified() == []
    assert waits == [f"delay.{wait}s" for wait in (4, 8, 16, 32, 64, 128, 256, 256, 256)]
    deferrals = [fact for fact in harness.facts if isinstance(fact, Deferred)]
    assert {fact.cause for fact in deferrals} == {Cause.UNKNOWN}
    known = 2 if name.startswith("event") else 1
    assert {fact.text for fact in deferrals} == {f"version 3 of a document; this release knows {known}"}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"v": 1}', b"\xff binary of some sort"])
async def test_kind_of_a_later_release_is_deferred(body: bytes) -> None:
    """Whatever its content: this release cannot interpret it."""
    message = Message(lane=Lane.EVENTS, body=body, tag=None, kind=NewerKind("notifier.batch"), message_id="b")
    async with running(a_stage()) as harness:
        queue, again = await rests(harness, message)
        assert queue == "delay.4s"
        assert again.kind == "notifier.batch"
        [fact] = [fact for fact in harness.facts if isinstance(fact, Deferred)]
        assert fact.text == "a message of type notifier.batch, which this release does not know"


@pytest.mark.parametrize(
    ("headers", "queue"),
    [
        ({}, "delay.4s"),
        ({"passes": "2"}, "delay.16s"),
        ({"passes": "99999999"}, "delay.4s"),
        ({"passes": 7}, "delay.256s"),
    ],
)
async def test_invalid_count_is_not_an_error(headers: dict[str, object], queue: str) -> None:
    """Headers are anybody's; the wait is short or long, and never an error."""
    message = Message(
        lane=Lane.RETRIES, body=json.dumps({"v": 2}).encode(), tag=None, kind=Kind.DELIVERY, headers=headers
    )
    assert [where for where, _ in (await after_taking(message)).queue.published] == [queue]


@pytest.mark.parametrize("name", [None, "", "order.created", "Notifier.event", "notifier"])
def test_message_without_our_type_is_a_publishers(name: str | None) -> None:
    """It is read as what a publisher wrote."""
    assert parse_kind(name) is None

"""Suspects: messages that were given back again and again, each of which may be what kills the process.

The fate of the neighbours of a killer is in `tests/simulator/test_crashes.py`.
"""

import asyncio
from dataclasses import replace

import pytest

from notifier.delivery.facts import DeadLettered, Skipped
from notifier.messages.selection import GATHER_SECONDS, GROUP_PAUSE_SECONDS
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.documents.documents import EventDocument, dump_delivery, dump_event
from notifier.model.message import (
    CRASHES_HEADER,
    DEAD,
    LAST_CHANCE,
    MIN_SUSPECT_CRASHES,
    Kind,
    Lane,
    Message,
    NewerKind,
)
from notifier.model.outcome import DeadReason
from notifier.model.session_ended import SessionEnded
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, running


async def test_redelivery_without_a_crash_makes_no_suspect() -> None:
    """A broker that flaps gives everything back, again and again, and nothing of that is slow afterwards."""
    harness = WorkerHarness(client("shop"))
    running = asyncio.create_task(harness.worker.run())
    for count in range(1, 21):
        harness.worker.on_lost(Lane.EVENTS)
        taken = harness.event("shop", delivery_count=count, id=str(count))
        await harness.until(lambda taken=taken: harness.queue.acked[-1:] == [taken])  # type: ignore[misc]
    harness.event("shop", lane=Lane.RETRIES, delivery_count=20, id="other lane")
    harness.event("shop", id="fresh")
    await harness.until(lambda: len(harness.notified()) == 21)
    assert len(harness.queue.acked) == 21  # the other lane's message was not lost: it is a suspect
    harness.worker.stop()
    await running


DELIVERY = Delivery(id="d", event_id="e", id_given=True, iss=ISS, client_id="shop", sub="s", sid=None, publisher="idp")
EVENT = SessionEnded(id="e", id_given=True, iss=ISS, sub="s", sid=None, clients="*", publisher="idp")
BARE = b'{"iss": "https://id.example", "id": "e", "sub": "s", "clients": ["shop"]}'


def trial(crashes: int, **more: object) -> Message:
    """A delivery's message with so many crashes."""
    return Message(
        lane=Lane.RETRIES,
        body=dump_delivery(DELIVERY),
        tag=1,
        kind=Kind.DELIVERY,
        message_id="d",
        headers={CRASHES_HEADER: str(crashes)},
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("counted", "returns", "crashes", "suspect"),
    [
        (0, 0, 0, False),
        (0, 2, 2, False),
        (1, 2, 3, True),
        (0, 50, 3, True),
        (3, 0, 3, False),
        (3, 1, 4, True),
        (3, 7, 4, True),
        (98, 0, 98, False),
    ],
)
def test_what_counts_as_a_crash(counted: int, returns: int, crashes: int, suspect: bool) -> None:
    """Each return makes a suspect; then the return of a trial alone, once. A trial that comes first is none."""
    message = trial(counted, delivery_count=returns)
    assert (message.crashes, message.suspect, message.at_delivery_limit) == (crashes, suspect, False)
    survived = replace(message, delivery_count=returns + 5, survived=5)
    assert (survived.crashes, survived.suspect) == (crashes, suspect)


def test_crash_header_counts_only_on_our_messages() -> None:
    """A publisher may write any header."""
    for kind in (None, Kind.EVENT):
        message = replace(trial(50, delivery_count=1), kind=kind)
        assert (message.crashes, message.lasting_headers) == (1, {})
    for header in ("-1", "many", 10**9, None, ["3"]):
        assert replace(trial(0), headers={CRASHES_HEADER: header}).crashes == 0


@pytest.mark.parametrize("crashes", [MIN_SUSPECT_CRASHES, LAST_CHANCE - 1])
async def test_a_suspect_runs_from_a_trial(crashes: int) -> None:
    """It is rewritten, confirmed and acked. The trial rests for a second and is attempted, even before the last one."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.event("shop", id="e", delivery_count=crashes)
        harness.now += GATHER_SECONDS
        await harness.until(lambda: bool(harness.queue.acked))
        assert harness.queue.log == ["published delay.1s", "acked 1"]
        assert harness.notified() == []
        assert harness.queue.published[-1][1].headers == {CRASHES_HEADER: str(MIN_SUSPECT_CRASHES)}
        await harness.acked(harness.retake("delay.1s"))
        assert harness.notified() == ["shop"]


async def test_deferred_trial_keeps_its_crash_count() -> None:
    """It is deferred like any delivery. An attempt that ended resets them."""
    harness = WorkerHarness(client("shop", paused=True))
    async with running(harness):
        await harness.acked(harness.take(dump_delivery(DELIVERY), kind=Kind.DELIVERY, headers={CRASHES_HEADER: "7"}))
        ((_, put_off),) = harness.queue.published
        assert put_off.headers == {CRASHES_HEADER: "7"}
        harness.registry.clients[ISS]["shop"] = client("shop")  # type: ignore[index]
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.retake("delay.512s"))
        assert harness.notified() == ["shop"]
        assert harness.queue.published[-1][1].headers == {}


async def test_crash_count_below_the_limit_is_kept() -> None:
    """Put off again and again, it would never become a suspect."""
    async with running(WorkerHarness(client("shop", paused=True))) as harness:
        await harness.acked(harness.event("shop", id="e", delivery_count=1))
        assert harness.queue.published[-1][1].headers == {CRASHES_HEADER: "1"}
        again = harness.retake("delay.512s")
        await harness.acked(again)
        assert harness.queue.published[-1][1].headers == {CRASHES_HEADER: "1"}


async def test_suspect_with_its_last_crash_dead_letters() -> None:
    """However few times its message was given back."""
    async with running(WorkerHarness(client("shop"))) as harness:
        headers = {CRASHES_HEADER: str(LAST_CHANCE - 1)}
        harness.take(dump_delivery(DELIVERY), kind=Kind.DELIVERY, headers=headers, delivery_count=1)
        harness.now += GATHER_SECONDS
        await harness.until(lambda: bool(harness.queue.acked))
        ((queue, _),) = harness.queue.published
        assert queue == DEAD
        assert str(LAST_CHANCE) in harness.dead()[0]["text"]


async def test_suspect_reports_skipped_clients() -> None:
    """Whoever waits for the fates of an event gets them all, though its deliveries are rewritten."""
    nowhere = Client(iss=ISS, client_id="nowhere", backchannel_logout_uri=None)
    async with running(WorkerHarness(client("shop"), nowhere)) as harness:
        came = harness.event("shop", "nowhere", id="e", delivery_count=MIN_SUSPECT_CRASHES)
        harness.now += GATHER_SECONDS
        await harness.acked(came)
        assert [fact.client_id for fact in harness.facts if isinstance(fact, Skipped)] == ["nowhere"]
        assert [queue for queue, _ in harness.queue.published] == ["delay.1s"]


async def test_other_messages_continue_beside_suspects() -> None:
    """A fresh logout waits neither for suspects to gather, nor for the trial of a client that hangs."""
    harness = WorkerHarness(client("shop"), client("hangs"))
    release = harness.hold("hangs")
    async with running(harness):
        harness.event("hangs", id="first", delivery_count=MIN_SUSPECT_CRASHES)
        harness.event("shop", id="fresh")
        await harness.until(lambda: harness.notified() == ["shop"])
        harness.now += GATHER_SECONDS
        await harness.until(lambda: len(harness.queue.published) == 1)
        harness.retake("delay.1s")
        await harness.until(lambda: harness.notified() == ["shop", "hangs"])
        harness.event("shop", id="second", delivery_count=MIN_SUSPECT_CRASHES)

        def both_rewritten() -> bool:
            harness.now += GROUP_PAUSE_SECONDS
            return len(harness.queue.published) == 2

        await harness.until(both_rewritten)
        await harness.acked(harness.retake("delay.1s"))
        assert harness.notified() == ["shop", "hangs", "shop"]
        release.set()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.DELIVERY, dump_delivery(DELIVERY)),
        (Kind.EVENT, dump_event(EventDocument(event=EVENT))),
        (None, BARE),
        (None, b"no JSON"),
    ],
)
@pytest.mark.parametrize("lost", [0, 200])
async def test_message_at_its_last_chance_dead_letters_unread(kind: Kind | None, body: bytes, lost: int) -> None:
    """Whatever the cause: a message that the queue itself discards cannot be replayed. It is reported like any dead
    letter.
    """
    async with running(WorkerHarness(client("shop"))) as harness:
        for _ in range(lost):
            harness.worker.on_lost(Lane.EVENTS)
        harness.take(body, kind=kind, delivery_count=LAST_CHANCE, user_id="idp")
        harness.now += GATHER_SECONDS
        await harness.until(lambda: bool(harness.queue.acked))
        assert harness.queue.log == ["published dead", "acked 1"]
        assert harness.notified() == []
        (outgoing,) = [outgoing for queue, outgoing in harness.queue.published if queue == DEAD]
        dead_letter = load_dead_letter(
            Message(lane=Lane.RETRIES, kind=outgoing.kind, body=outgoing.body, headers=outgoing.headers, tag=None)
        )
        assert (dead_letter.reason, dead_letter.publisher) == (DeadReason.DELIVERY_LIMIT, "idp")
        assert str(LAST_CHANCE) in dead_letter.text
        assert [(fact.reason, fact.delivery) for fact in harness.facts if isinstance(fact, DeadLettered)] == [
            (DeadReason.DELIVERY_LIMIT, DELIVERY if kind is Kind.DELIVERY else None)
        ]
        assert (dead_letter.delivery, dead_letter.event) == (
            DELIVERY if kind is Kind.DELIVERY else None,
            EVENT if kind is Kind.EVENT else None,
        )
        assert dead_letter.raw is None if kind else dead_letter.raw is not None


async def test_message_of_a_later_release_is_kept_at_its_last_chance() -> None:
    """This release must not give it up: it is deferred, and its count restarts."""
    async with running(WorkerHarness(client("shop"))) as harness:
        for kind, body in ((NewerKind("notifier.batch"), b"{}"), (Kind.DELIVERY, b'{"v": 2}')):
            harness.take(body, kind=kind, delivery_count=LAST_CHANCE)

        def both_gone() -> bool:
            harness.now += GATHER_SECONDS
            return len(harness.queue.acked) == 2

        await harness.until(both_gone)
        assert [queue for queue, _ in harness.queue.published] == ["delay.4s", "delay.4s"]

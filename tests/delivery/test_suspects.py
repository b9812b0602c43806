"""Suspects: one message that kills the process, again and again, and what becomes of those it was prefetched with.

Each life is a worker of its own on the stage. At its death every message that it had not acked is given back, and
counts one more; the next life gets them all at once.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from notifier.delivery.facts import Buried
from notifier.delivery.selection import GATHER, PAUSE
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.documents.documents import EventDocument, dump_delivery, dump_event
from notifier.model.message import DEAD, DELIVERY_LIMIT, LAST_CHANCE, SUSPECT, Kind, Lane, Message, NewerKind
from notifier.model.outcome import Answer, DeadReason, Wire
from notifier.model.request import Request
from notifier.model.session_ended import SessionEnded
from tests.delivery.stage import ISS, Stage, client, running

HANGS = 5.0  # seconds that a dead client takes


class Dead(BaseException):
    """The process has gone."""


class Life:
    """One worker, from its start to its death, or to the end of its work."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._died = asyncio.Event()
        self._stage = Stage(client("shop"), client("hangs"), client("kills"), shutdown_grace=0)
        self._stage.receivers.behaviours |= {"kills": self._kills, "hangs": self._hangs}

    async def _kills(self, _request: Request) -> Wire:
        self._died.set()
        raise Dead

    async def _hangs(self, _request: Request) -> Wire:
        end = self._stage.now + HANGS
        while self._stage.now < end:  # noqa: ASYNC110  the stage's time, and a round of the loop is no wait
            await asyncio.sleep(0)
        return Answer(status=200)

    async def live(self) -> list[Message]:
        """Returns what was left, as it will come again."""
        stage = self._stage
        running = asyncio.create_task(stage.worker.run())
        for message in self._messages:
            stage.worker.take(message)
        while not self._died.is_set() and len(stage.queue.acked) < len(self._messages):
            for _ in range(20):
                await asyncio.sleep(0)
            stage.now += 0.05  # as much as between two ticks of the worker
            stage.worker._pump()
        acked = {message.tag for message in stage.queue.acked}
        stage.worker.stop()
        with suppress(Dead):
            await running
        left = [message for message in self._messages if message.tag not in acked]
        return [replace(message, delivery_count=message.delivery_count + 1) for message in left]


def message(tag: int, client_id: str, delivery_count: int = 0) -> Message:
    """An event for this client."""
    body = f'{{"iss": "https://id.example", "id": "{tag}", "sub": "s", "sid": "{tag}", "clients": ["{client_id}"]}}'
    return Message(lane=Lane.EVENTS, body=body.encode(), tag=tag, delivery_count=delivery_count)


@pytest.mark.parametrize("hanging", [0, 10])
async def test_no_neighbour_of_a_killer_comes_near_the_limit(hanging: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500, none is given back thirty times, though some of them hang: they are waited for, too."""
    monkeypatch.setattr("notifier.delivery.selection.random", random.Random(3))
    left = [message(0, "kills")]
    left += [message(tag, "hangs" if tag <= hanging else "shop") for tag in range(1, 501)]
    highest = 0
    for _ in range(DELIVERY_LIMIT):
        left = await Life(left).live()
        assert left[0].tag == 0
        if len(left) == 1:
            break
        highest = max(one.delivery_count for one in left[1:])
    assert len(left) == 1
    assert SUSPECT <= highest < 30


async def test_one_that_hangs_is_waited_for() -> None:
    """Alone with a killer, it must be told and acked before the killer goes, in half of all lives."""
    left = [message(0, "kills", SUSPECT), message(1, "hangs", SUSPECT)]
    while len(left) > 1:
        left = await Life(left).live()
        assert all(one.delivery_count < 30 for one in left)


async def test_what_is_no_suspect_goes_on_beside_them() -> None:
    """A fresh logout waits neither for suspects to gather, nor for one that hangs."""
    stage = Stage(client("shop"), client("hangs"))
    running = asyncio.create_task(stage.worker.run())
    release = asyncio.Event()

    async def hangs(_request: Request) -> Wire:
        await release.wait()
        return Answer(status=200)

    stage.receivers.behaviours["hangs"] = hangs
    stage.event("hangs", id="first", delivery_count=SUSPECT)
    stage.event("hangs", id="second", delivery_count=SUSPECT)
    stage.event("shop")
    await stage.until(lambda: stage.told() == ["shop"])
    stage.now += GATHER
    await stage.until(lambda: stage.told() == ["shop", "hangs"])
    stage.event("shop")
    await stage.until(lambda: stage.told() == ["shop", "hangs", "shop"])
    release.set()

    def both_told() -> bool:
        stage.now += PAUSE
        return len(stage.queue.acked) == 4

    await stage.until(both_told)
    stage.worker.stop()
    await running


async def test_what_the_process_lived_through_is_no_cause_for_suspicion() -> None:
    """A broker that flaps gives everything back, again and again, and nothing of that is slow afterwards."""
    stage = Stage(client("shop"))
    running = asyncio.create_task(stage.worker.run())
    for count in range(1, 21):
        stage.worker.lost(Lane.EVENTS)
        taken = stage.event("shop", delivery_count=count, id=str(count))
        await stage.until(lambda taken=taken: stage.queue.acked[-1:] == [taken])  # type: ignore[misc]
    stage.event("shop", lane=Lane.RETRIES, delivery_count=20, id="other lane")
    stage.event("shop", id="fresh")
    await stage.until(lambda: len(stage.told()) == 21)
    assert len(stage.queue.acked) == 21  # the other lane's never was lost: that one is a suspect
    stage.worker.stop()
    await running


DELIVERY = Delivery(id="d", event_id="e", id_given=True, iss=ISS, client_id="shop", sub="s", sid=None, publisher="idp")
EVENT = SessionEnded(id="e", id_given=True, iss=ISS, sub="s", sid=None, clients="*", publisher="idp")
BARE = b'{"iss": "https://id.example", "id": "e", "sub": "s", "clients": ["shop"]}'


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
async def test_at_the_last_chance_it_is_buried_unread(kind: Kind | None, body: bytes, lost: int) -> None:
    """Whoever is to blame: what the queue itself gives up cannot be replayed. It is told like any other dead letter."""
    async with running(Stage(client("shop"))) as stage:
        for _ in range(lost):
            stage.worker.lost(Lane.EVENTS)
        stage.take(body, kind=kind, delivery_count=LAST_CHANCE, user_id="idp")
        stage.now += GATHER
        await stage.until(lambda: bool(stage.queue.acked))
        assert stage.queue.log == ["published dead", "acked 1"]
        assert stage.told() == []
        (outgoing,) = [outgoing for queue, outgoing in stage.queue.published if queue == DEAD]
        letter = load_dead_letter(
            Message(lane=Lane.RETRIES, kind=outgoing.kind, body=outgoing.body, headers=outgoing.headers, tag=None)
        )
        assert (letter.reason, letter.publisher) == (DeadReason.DELIVERY_LIMIT, "idp")
        assert str(LAST_CHANCE) in letter.text
        assert [(fact.reason, fact.delivery) for fact in stage.facts if isinstance(fact, Buried)] == [
            (DeadReason.DELIVERY_LIMIT, DELIVERY if kind is Kind.DELIVERY else None)
        ]
        assert (letter.delivery, letter.event) == (
            DELIVERY if kind is Kind.DELIVERY else None,
            EVENT if kind is Kind.EVENT else None,
        )
        assert letter.raw is None if kind else letter.raw is not None


async def test_before_the_last_chance_it_is_tried() -> None:
    """As any suspect."""
    async with running(Stage(client("shop"))) as stage:
        stage.event("shop", id="e", delivery_count=LAST_CHANCE - 1)
        stage.now += GATHER
        await stage.until(lambda: bool(stage.queue.acked))
        assert stage.told() == ["shop"]


async def test_what_a_later_release_wrote_goes_on_at_its_last_chance() -> None:
    """It is not for this one to give up: it rests, and its count begins anew."""
    async with running(Stage(client("shop"))) as stage:
        for kind, body in ((NewerKind("notifier.batch"), b"{}"), (Kind.DELIVERY, b'{"v": 2}')):
            stage.take(body, kind=kind, delivery_count=LAST_CHANCE)

        def both_gone() -> bool:
            stage.now += GATHER
            return len(stage.queue.acked) == 2

        await stage.until(both_gone)
        assert [queue for queue, _ in stage.queue.published] == ["delay.4s", "delay.4s"]

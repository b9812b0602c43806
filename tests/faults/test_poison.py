"""Poison: a message that kills the process is given up in the end, and no other message with it.

The worker itself buries it at its last chance, unless it dies of that too: then the broker moves it.
"""

import json
import signal
import sys
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from notifier.model.message import CRASHES_HEADER, Kind, Lane
from tests.faults.conftest import Form, Record
from tests.faults.rig import CLIENTS, Rig
from tests.support.rabbit_options import BUCKETS
from tests.system.broker import broker
from tests.system.waiting import until
from tests.system.worker_process import ROOT, worker

POISON = 5  # the number of the event that kills: among the first, so that every worker comes to it at once
LIMIT = 100  # the topology's `x-delivery-limit`
LANES = ("events", "retries", *(f"parked-{number:02}.delay.1024s" for number in range(BUCKETS)))
COPIES = range(1, 9)  # of the poison: a process that dies after it published a trial leaves the event as well
RETURN_PATIENCE = 3.0  # seconds
PATIENCE = 600.0  # seconds; a life takes one or two


def killed_by(when: str, client: str) -> list[str]:
    """The command of a worker that the event kills, under a supervisor."""
    return [sys.executable, str(ROOT / "tests" / "faults" / "killed_by.py"), when, str(POISON), client]


def given_up(dead_letters: Sequence[AbstractIncomingMessage]) -> bool:
    """Return True if a message was given up: by a worker, with a reason, or by the broker, without."""
    return any(dead_letter.headers.get("reason", "delivery_limit") == "delivery_limit" for dead_letter in dead_letters)


async def live_and_die(made: Rig, command: Sequence[str], left: Container[int], tally: Counter[str]) -> None:
    """Let workers live and die until everything is settled but so many messages."""

    looks = 0  # at which it looked settled: what a worker has in hand is in no queue

    def settled(found: Mapping[str, int]) -> bool:
        return sum(count for queue, count in found.items() if queue != "dead") in left

    def long_enough(found: Mapping[str, int]) -> bool:
        """A worker that is stopped at once delivers nothing: each life is a little longer than the one before."""
        nonlocal looks
        looks += settled(found)
        return looks > 5 * tally["stops"]

    async with broker(made.urls[0], made.prefix) as rabbit:
        while True:
            async with worker(made.site, ready=False, command=command) as running:
                await made.clients.until(lambda: len(made.clients.accepted) >= tally["owed"], PATIENCE)
                if 0 in left:
                    await until(rabbit.dead_letters, given_up, PATIENCE)
                looks = 0
                await until(rabbit.depths, long_enough, PATIENCE)
                # 143: the last worker was still starting.
                assert await running.stop() in (0, 128 + signal.SIGTERM)
                tally["deaths"] += len(running.logged("killed"))
                tally["stops"] += 1  # which may give it back once more
                tally["highest"] = max([tally["highest"], *(line["count"] for line in running.logged("neighbour"))])
            with suppress(AssertionError):  # what the last worker had in hand is soon in the queue again
                await until(rabbit.depths, settled, RETURN_PATIENCE)
                return


def is_poisoned_delivery(message: AbstractIncomingMessage) -> bool:
    """Return True for the delivery that kills. Neighbours that a worker had in hand may wait beside it."""
    if message.type != Kind.DELIVERY:
        return False
    content = json.loads(message.body)
    event_id: str = content.get("delivery", content)["event_id"]
    return event_id == str(POISON)


async def look_away(made: Rig) -> int:
    """Take what waits and give it back, up to its last chance. Returns how often.

    What counts for a delivery are the crashes of its trials, so its messages are replaced by some with nearly all of
    them.
    """
    times = highest = 0
    async with await aio_pika.connect(made.urls[0]) as connection:
        while highest < LIMIT - 2:  # at the next look it has been given back once more
            async with connection.channel() as channel:
                queues = [await channel.get_queue(f"{made.prefix}.{name}", ensure=False) for name in LANES]
                found = [
                    message for queue in queues for _ in COPIES if (message := await queue.get(fail=False)) is not None
                ]
                poisoned = [message for message in found if is_poisoned_delivery(message)]
                for message in poisoned:
                    trial = aio_pika.Message(
                        message.body,
                        type=message.type,
                        message_id=message.message_id,
                        headers={CRASHES_HEADER: str(LIMIT - 3)},
                    )
                    await channel.default_exchange.publish(trial, f"{made.prefix}.{Lane.RETRIES}")
                    await message.ack()
                if poisoned:
                    return LIMIT - 3
                highest = max([highest, *(int(str(message.headers.get("x-delivery-count", 0))) for message in found)])
                times += bool(found)
    return times


@pytest.mark.parametrize(
    ("when", "dying"),
    [
        pytest.param(
            "reading", CLIENTS,
            marks=pytest.mark.fault("poison", "an event that kills whoever reads it, hundreds prefetched beside it"),
        ),
        pytest.param(
            "telling", ("flaky",),
            marks=pytest.mark.fault("poison", "an event of three clients of which telling one kills the process"),
        ),
    ],
)  # fmt: skip
@pytest.mark.timeout(1200)
async def test_one_that_kills_the_process(
    made: Rig, form: Form[Any], record: Record, when: str, dying: tuple[str, ...]
) -> None:
    """Only the poison reaches the limit and is buried. Everything that was prefetched beside it is delivered.

    In the short form workers die until it is the only one left, and most of its hundred lives are mere looks.
    """
    count = form(40, 800)
    await made.publisher.publish(range(count), rate=1000)
    made.expected = {**made.to_die, **{(str(POISON), who): "delivery_limit" for who in dying}}
    tally = Counter(owed=len(CLIENTS) * count - len(made.to_die))
    await live_and_die(made, killed_by(when, dying[0]), form(COPIES if when == "telling" else (1,), (0,)), tally)
    looks = 0
    if form(1, 0):
        looks = await look_away(made)
        await live_and_die(made, killed_by(when, dying[0]), (0,), tally)
    deaths, highest = tally["deaths"], tally["highest"]
    print(f"{deaths} deaths; the neighbours were given back {highest} times at most; {looks} looks")  # noqa: T201  as the account is
    assert deaths + tally["stops"] + looks >= LIMIT - 1
    assert highest < LIMIT / 2
    dead_lettered = {each.headers.get("reason") for each in await made.found(["dead"])}
    assert ("delivery_limit" in dead_lettered) == (when == "telling")
    record(await made.account(cause="held by a worker that was killed"), times=deaths)

"""Messages that nobody can read, thousands of them, between those that matter."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from notifier.domain.dead_letter import load_dead_letter
from notifier.domain.errors import MalformedEvent
from notifier.domain.event_document import understand
from notifier.domain.message import Kind, Lane, Message
from notifier.domain.outcome import DeadReason
from tests.faults.conftest import Form, Tell
from tests.faults.rig import CLIENTS, Rig, judge
from tests.fuzz.mutation import mutated, samples
from tests.fuzz.promises import NOW
from tests.system import ledger
from tests.system.broker import Broker, broker
from tests.system.site import client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

GROWTH = 16 * 1024 * 1024  # bytes that the worker may grow by while thousands come; a dead letter of each would be more
AT_A_TIME = 4
TEMPLATES = (
    b'{"id":"m-1","iss":"https://id.example.com","sub":"mallory","sid":"m-1","clients":["healthy","nobody"],"reason":"x"}',
    b'{"iss":"https://id.example.com","sid":"m-2","clients":[{"client_id":"healthy","sub":"m-3"},7,""],"ended_at":"2026-01-31T12:00:00Z"}',
    b'{"specversion":"1.0","id":"m-4","source":"/idp","type":"t","data":{"iss":"https://id.example.com","sub":"m-5","clients":["flaky"]}}',
)  # fmt: skip
CONTENT_TYPES = ("application/json", "application/json", "application/cloudevents+json", "text/plain", "\u2028", "")
HEADERS: tuple[Mapping[str, Any], ...] = (
    {}, {}, {"cloudEvents_id": "m-6"}, {"cloudEvents:specversion": bytearray(b"\xff"), "x-death": [{"exchange": ""}]},
    {"cloudEvents:specversion": "1.0", "cloudEvents:id": "m-7", "cloudEvents:source": "/idp", "cloudEvents:type": "t"},
    {"x-delivery-count": 99, "a": {"b": [None, 1.5, True, {"c": -1}]}}, {"timestamp_in_ms": -(2**60)},
)  # fmt: skip
TYPES = ("", "", "notifier.delivery", "notifier.dead-letter", "notifier.event", "notifier.of-tomorrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One message, as it is published."""

    body: bytes
    content_type: str
    headers: Mapping[str, Any]
    type: str

    @property
    def is_event(self) -> bool:
        """True if it is still an event after its mutations."""
        message = Message(
            lane=Lane.EVENTS, body=self.body, tag=None, content_type=self.content_type or None, headers=self.headers
        )
        try:
            understand(message, max_bytes=128 * 1024, new_id=lambda: "made-up", now=NOW)
        except MalformedEvent:
            return False
        return True


def mutants(count: int, chance: random.Random) -> dict[str, Mutant]:
    """So many, by their `message_id`."""
    bodies = [*TEMPLATES * 4, *samples().values()]
    return {
        f"mutant-{number}": Mutant(
            body=mutated(chance.choice(bodies), bodies, chance),
            content_type=chance.choice(CONTENT_TYPES),
            headers=chance.choice(HEADERS),
            type=chance.choice(TYPES),
        )
        for number in range(count)
    }


async def publish(rabbit: Broker, made: Mapping[str, Mutant], *, rate: float) -> None:
    """At a pace, ten at a time, each confirmed."""
    each = iter(made.items())
    while some := list(islice(each, 10)):
        sending = (
            rabbit.publish(
                one.body, headers=dict(one.headers), content_type=one.content_type, message_id=name, type=one.type
            )
            for name, one in some
        )
        await asyncio.gather(*sending, asyncio.sleep(10 / rate))


async def until_idle(rabbit: Broker, running: WorkerProcess) -> None:
    """Wait until no queue but the dead letters has messages, and the worker holds none."""

    async def left() -> tuple[set[str], float, float]:
        depths = await rabbit.depths()
        return depths.keys() - {"dead"}, await running.metric("queue_unsettled"), await running.metric("in_flight")

    for _ in range(3):  # a message on its way from one queue to the next is in neither for a moment
        await until(left, lambda found: found == (set(), 0, 0), 120)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def dead_letters(made: Rig) -> dict[str, DeadReason]:
    """Why each message that could not be read is a dead letter, by its `message_id`."""
    found = {}
    for each in await ledger.in_rabbitmq(made.urls[0], made.prefix, ["dead"]):
        kind = None if each.type is None else Kind(each.type)
        message = Message(lane=Lane.RETRIES, body=each.body, tag=None, kind=kind, headers=each.headers)
        letter = load_dead_letter(message)
        assert "reading it failed" not in letter.text
        if letter.raw is not None and letter.raw.message_id is not None:
            found[letter.raw.message_id] = letter.reason
    return found


@pytest.mark.fault("messages", "mutated ones that cannot be read, thousands between the valid ones")
@pytest.mark.timeout(900)
async def test_mutated_messages_between_the_valid_ones(
    made: Rig, form: Form[int], chance: random.Random, tell: Tell
) -> None:
    """Every valid message is delivered, every other becomes a dead letter. The worker neither ends nor grows."""
    count = form(400, 10_000)
    first, rest = mutants(100, chance), mutants(count, chance)
    made.clients.judge = lambda hit: judge(hit) if hit.who.isdecimal() else 200  # an event again, by chance
    made.site.config["registry"]["inline"] = "deny"
    made.site.write()
    made.site.write_clients([client(name, made.clients.url(name), max_concurrent=AT_A_TIME) for name in CLIENTS])
    async with worker(made.site) as running, broker(made.urls[0], made.prefix) as rabbit:
        await publish(rabbit, {f"first-{name}": mutant for name, mutant in first.items()}, rate=300)
        await until_idle(rabbit, running)
        size, open_files = resident(running.pid), await running.descriptors()
        valid = asyncio.create_task(made.publisher.publish(range(count // 5), rate=60))
        await publish(rabbit, rest, rate=300)
        await valid
        await until_idle(rabbit, running)
        assert resident(running.pid) - size < GROWTH
        assert await running.descriptors() <= open_files + AT_A_TIME * len(CLIENTS)  # connections kept alive
        assert "Traceback" not in running.log
        assert await running.stop() == 0
    dead = await dead_letters(made)
    unread = {name for name, mutant in rest.items() if not mutant.is_event}
    assert len(unread) > count / 2
    assert {name: dead.get(name) for name in unread} == dict.fromkeys(unread, DeadReason.MALFORMED_EVENT)
    tell(await made.account(), times=count)

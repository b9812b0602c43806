"""Events at which a parser crashes. Each becomes a dead letter with its reason, and nobody else notices."""

import asyncio
import json
import sys
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage

from notifier.domain.message import Lane, Message, kind_named
from notifier.operations.dead_letter_listing import exported
from tests.faults.conftest import Tell
from tests.faults.rig import CLIENTS, Rig
from tests.system.broker import broker
from tests.system.site import ISSUER
from tests.system.waiting import until
from tests.system.worker_process import ROOT, worker

CRASHED_BY = [sys.executable, str(ROOT / "tests" / "faults" / "crashed_by.py")]
CRASHES = ("RecursionError", "MemoryError", "ValueError", "AssertionError", "StopIteration")
EVENT = {"iss": ISSUER, "sid": "n", "clients": ["healthy"]}


def letter_of(letter: AbstractIncomingMessage) -> dict[str, Any]:
    """A dead letter, as scripts get it."""
    kind, headers = kind_named(letter.type), dict(letter.headers)
    return exported(Message(lane=Lane.RETRIES, body=letter.body, tag=None, kind=kind, headers=headers))


@pytest.mark.fault("poison", "parsers that raise what nobody expects, as an event is read and as it is planned")
@pytest.mark.timeout(600)
async def test_crashing_parsers(made: Rig, tell: Tell) -> None:
    """The worker goes on. The dead letter names the exception, and holds the event for a replay."""
    crashes = [f"{when}: {name}" for when in ("reading", "planning") for name in CRASHES]
    async with worker(made.site, command=CRASHED_BY) as running:
        async with broker(made.urls[0], made.prefix) as rabbit:
            publishing = asyncio.create_task(made.publisher.publish(range(200), rate=100))
            for crash in crashes:
                await rabbit.publish({**EVENT, "id": crash, "clients": list(CLIENTS), "reason": crash})
            await publishing
            await made.until_settled()
            await until(rabbit.depths, lambda found: set(found) <= {"dead"})  # a client heard of a crash's session
            await rabbit.until_dead(len(made.to_die) + len(crashes))
            letters = [letter_of(one) for one in await rabbit.dead_letters()]
        assert await running.stop() == 0
        malformed = {letter["event_id"]: letter for letter in letters if letter["reason"] == "malformed_event"}
        assert malformed.keys() == set(crashes)
        for crash, letter in malformed.items():
            name = crash.partition(": ")[2].replace(
                "StopIteration", "RuntimeError" if "planning" in crash else "StopIteration"
            )
            assert name in letter["text"]
            assert json.loads(letter["raw"]["body"])["id"] == crash
        tell(await made.account(), times=len(crashes))

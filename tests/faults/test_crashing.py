"""Messages that crash a parser, or try to. Each becomes a dead letter with its reason, and nobody else notices."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage

from notifier.domain.message import Lane, Message, kind_named
from notifier.operations.dead_letter_listing import exported
from tests.faults.conftest import Tell
from tests.faults.rig import CLIENTS, rig
from tests.system.broker import Broker, broker
from tests.system.site import ISSUER
from tests.system.waiting import until
from tests.system.worker_process import ROOT, worker

CRASHED_BY = [sys.executable, str(ROOT / "tests" / "faults" / "crashed_by.py")]
CRASHES = ("RecursionError", "MemoryError", "ValueError", "AssertionError", "StopIteration")
EVENT = {"iss": ISSUER, "sid": "n", "clients": ["healthy"]}
WHOLE = json.dumps(EVENT).encode()
CLOUD = {"cloudEvents:specversion": "1.0", "cloudEvents:id": "c", "cloudEvents:source": "s", "cloudEvents:type": "t"}

NASTY: dict[str, bytes] = {
    "nothing": b"",
    "deep lists": b"[" * 100_000,
    "deep lists, closed": b"[" * 60_000 + b"]" * 60_000,
    "deep objects": b'{"iss":' * 18_000,
    "deep in a member": b'{"iss": "%s", "sid": "n", "clients": %s}' % (ISSUER.encode(), b"[" * 5000 + b"]" * 5000),
    "a number of 100,000 digits": b"1" * 100_000,
    "such a number as `sid`": b'{"iss": "%s", "sid": %s, "clients": ["healthy"]}' % (ISSUER.encode(), b"9" * 5000),
    "an exponent": b'{"iss": "x", "not_after": 1e999999, "clients": ["healthy"]}',
    "half of a surrogate pair": b'{"iss": "%s", "sid": "\\ud800", "clients": ["healthy"]}' % ISSUER.encode(),
    "half of another as a name": b'{"iss": "%s", "\\udfff": 1, "clients": ["healthy"]}' % ISSUER.encode(),
    "NUL": b"\x00" * 1000,
    "no UTF-8": b'{"iss": "\xff\xfe"}',
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "NaN": b'{"iss": NaN, "clients": ["healthy"]}',
    "a string": b'"event"',
    "null": b"null",
    "too large": json.dumps({**EVENT, "padding": "x" * 200_000}).encode(),
    "YAML": b"iss: &a [*a]",
}
ODD_HEADERS: dict[str, dict[str, Any]] = {
    "a table in a table": {"x": {"y": {"z": [1, {"a": None}]}}},
    "no text for a CloudEvents attribute": {**CLOUD, "cloudEvents:id": {"not": "text"}},
    "a list for another": {**CLOUD, "cloudEvents:specversion": [1, 0]},
    "the delivery count": {"x-delivery-count": 10**15},
    "a death that never was": {"x-death": [{"exchange": "", "count": "many"}]},
    "a moment beyond time": {"timestamp_in_ms": 2**62},
}


def letter_of(letter: AbstractIncomingMessage) -> dict[str, Any]:
    """A dead letter, as scripts get it."""
    kind, headers = kind_named(letter.type), dict(letter.headers)
    return exported(Message(lane=Lane.RETRIES, body=letter.body, tag=None, kind=kind, headers=headers))


async def publish_nasty(rabbit: Broker) -> None:
    """Publish each body plain and as CloudEvents, and each set of headers with a good event."""
    for body in NASTY.values():
        await rabbit.publish(body)
        await rabbit.publish(body, content_type="application/cloudevents+json; charset=utf-7")
    for headers in ODD_HEADERS.values():
        await rabbit.publish(WHOLE, headers=headers)


@pytest.mark.fault("poison", "bodies and headers that would crash a parser: nested, huge, broken, of another kind")
@pytest.mark.timeout(200)
async def test_nasty_messages(tmp_path: Path, amqp_url: str, prefix: str, tell: Tell) -> None:
    """Each body becomes one dead letter that says why. Odd headers harm at most their own message."""
    async with rig(tmp_path, amqp_url, prefix) as made, worker(made.site) as running:
        async with broker(amqp_url, prefix) as rabbit:
            publishing = asyncio.create_task(made.publisher.publish(range(200), rate=100))
            await publish_nasty(rabbit)
            await publishing
            await made.until_settled()
            await until(rabbit.depths, lambda found: set(found) <= {"dead"})
            letters = [letter_of(one) for one in await rabbit.dead_letters()]
        assert await running.stop() == 0
        reasons = Counter(letter["reason"] for letter in letters)
        assert reasons["malformed_event"] == 2 * len(NASTY) + 2  # and two whose CloudEvents attributes are no text
        assert all(letter["text"] for letter in letters)
        assert len([hit for hit in made.clients.hits if hit.who == "n"]) == len(ODD_HEADERS) - 2
        assert running.said("unexpected") == []
        tell(await made.account(), times=reasons["malformed_event"])


@pytest.mark.fault("poison", "parsers that raise what nobody expects, as an event is read and as it is planned")
@pytest.mark.timeout(200)
async def test_crashing_parsers(tmp_path: Path, amqp_url: str, prefix: str, tell: Tell) -> None:
    """The worker goes on. The dead letter names the exception, and holds the event for a replay."""
    crashes = [f"{when}: {name}" for when in ("reading", "planning") for name in CRASHES]
    async with rig(tmp_path, amqp_url, prefix) as made, worker(made.site, command=CRASHED_BY) as running:
        async with broker(amqp_url, prefix) as rabbit:
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

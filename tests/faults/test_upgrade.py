"""An upgrade, and half of one: a worker of this release meets documents of a later one under load."""

import asyncio
import json
import sys
from collections.abc import Mapping

import aio_pika
import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import Rig
from tests.system import ledger
from tests.system.ledger import Found
from tests.system.site import ISSUER
from tests.system.worker_process import ROOT, worker

KNOWS_MORE = [sys.executable, str(ROOT / "tests" / "faults" / "knows_more.py")]
FIRST = 1_000_001  # number of the first event that a later release wrote; neither `flaky` nor `refusing` mind them
KINDS = ("notifier.event", "notifier.delivery", "notifier.batch")


def of_a_later_release(kind: str, number: int) -> Mapping[str, object]:
    """A document of version 3, for one client."""
    names = {"id_given": True, "iss": ISSUER, "sub": "alice", "sid": str(number)}
    if kind == "notifier.event":
        return {"v": 3, "event": {"id": str(number), **names, "clients": [{"client_id": "healthy"}]}}
    return {"v": 3, "delivery": {"id": f"d{number}", "event_id": str(number), **names, "client_id": "healthy"}}


async def write(url: str, prefix: str, count: int) -> list[str]:
    """Publish so many of each kind as workers do: deliveries into retries, the others also into events.

    Returns the event ids.
    """
    numbers = range(FIRST, FIRST + count * len(KINDS))
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        for number in numbers:
            kind = KINDS[number % len(KINDS)]
            body = json.dumps(of_a_later_release(kind, number)).encode()
            message = aio_pika.Message(body, type=kind, message_id=str(number), delivery_mode=2)
            lane = "retries" if kind == "notifier.delivery" else ("events", "retries")[number % 2]
            await channel.default_exchange.publish(message, f"{prefix}.{lane}")
    return [str(number) for number in numbers]


@pytest.mark.fault("upgrade", "documents of a later version and of an unknown kind, put into the queues under load")
@pytest.mark.timeout(600)
async def test_documents_of_a_later_release(made: Rig, form: Form[int], tell: Tell) -> None:
    """They wait, and everything else is delivered. A worker of that release then delivers them too."""
    count = form(12, 1000)

    def waiting(found: list[Found], theirs: list[str]) -> int:
        cast = ledger.account({event: ["healthy"] for event in theirs}, made.clients, found)
        assert cast.missing == ()
        assert cast.wrong == ()
        return sum(cast.waiting.values())

    async with worker(made.site) as running:
        publishing = asyncio.create_task(made.publisher.publish(range(form(100, 5000)), rate=200))
        theirs = await write(made.urls[0], made.prefix, count)
        await publishing
        await made.until_settled()
        shown = await running.until_said("deferral", lambda line: line["level"] == "warning")
        assert (shown["event_id"] in theirs, shown["cause"]) == (True, "unknown")
        assert "this release" in shown["error"]
        assert await running.metric("deferrals_total", cause="unknown") >= len(theirs)
        assert await running.stop() == 0
    assert waiting(await made.found(), theirs) == len(theirs)
    async with worker(made.site, command=KNOWS_MORE) as running:
        made.publisher.confirmed |= {event: ["healthy"] for event in theirs}
        await made.until_settled()
        await running.until_metric(0, "in_flight")
        assert await running.stop() == 0
    tell(await made.account(), times=len(theirs))

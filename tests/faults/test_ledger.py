"""The ledger can fail: a worker that acks before it delivers is caught, and every kind of remainder is named."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from tests.faults import story
from tests.faults.conftest import Tell
from tests.faults.rig import judge, kill, rig
from tests.system.clients import Clients, Hit
from tests.system.ledger import Found, account
from tests.system.worker_process import ROOT, worker

ACKS_FIRST = [sys.executable, str(ROOT / "tests" / "faults" / "acks_first.py")]


async def lose(folder: Path, amqp_url: str, prefix: str, tell: Tell) -> None:
    """Have a worker ack each message as it comes, and kill it while its clients take their time."""
    killed = asyncio.Event()

    async def slowly(hit: Hit) -> int:
        if killed.is_set():
            return await judge(hit)
        await killed.wait()
        return 503

    async with rig(folder, amqp_url, prefix) as made:
        made.clients.judge = slowly
        async with worker(made.site, command=ACKS_FIRST) as running:
            await made.publisher.publish(range(60), rate=600)
            await made.clients.until(lambda: bool(made.clients.at("healthy")))
            await kill(running)
        killed.set()
        async with worker(made.site) as running:
            await running.until_metric(0, "queue_messages", queue="events")
            await running.until_metric(0, "in_flight")
            assert await running.stop() == 0
        tell(await made.account())


@pytest.mark.timeout(600)
async def test_a_worker_that_acks_first_is_caught(tmp_path: Path, amqp_url: str, prefix: str, tell: Tell) -> None:
    """The ledger finds what is lost, and tells who saw it last."""
    with pytest.raises(pytest.fail.Exception, match="LOST"):
        await lose(tmp_path, amqp_url, prefix, tell)
    told = (tmp_path / story.FILE).read_text()
    last = r"LOST: event \d+ for client healthy\n  its publisher sent it\n  \S+ the client gets request 1\n"
    assert re.search(last, told), told
    assert re.search(r"^worker-\d+ ended with -9$", told, re.MULTILINE), told


def letter(reason: str) -> Found:
    """A dead letter of the delivery e1 → c1."""
    body = json.dumps({"v": 1, "event_id": "e1", "client_id": "c1", "reason": reason}).encode()
    return Found(queue="dead", body=body, headers={"reason": reason})


@pytest.mark.parametrize(
    ("found", "holds", "text"),
    [
        ([], False, "1 LOST: (('e1', 'c1'),)"),
        ([letter("refused")], True, "1 dead (refused)"),
        ([letter("expired")], False, "1 WRONG: ((('e1', 'c1'), 'expired'),)"),
        ([Found(queue="events", body=b'{"id": "e1", "clients": ["c1"]}')], False, "1 waiting in events"),
        ([Found(queue="events", body=b'{"id": "e2", "clients": ["c1"]}')], False, "1 LOST"),
        ([Found(queue="delay.1s", body=b'{"v":1,"delivery":{"event_id":"e1","client_id":"c1"}}')], False, "1 waiting"),
    ],
)
async def test_each_kind_of_remainder_is_named(found: list[Found], holds: bool, text: str) -> None:
    """A delivery that was never told and waits nowhere is lost. Waiting is no end. A dead letter needs its reason."""
    cast = account({"e1": ["c1"]}, Clients(), found, to_die={("e1", "c1"): "refused"})
    assert cast.holds is holds
    assert text in str(cast)


async def test_duplicates_are_told_by_their_cause() -> None:
    """One duplicate is the publisher's, one has another cause. A retry after a failure is no duplicate."""
    clients = Clients()
    for path, who, times, accepted in (("/c1", "e1", 3, 2), ("/c1", "e2", 2, 1), ("/c1", "e3", 1, 1)):
        clients.add_past(path, who, times=times, accepted=accepted)
    cast = account({event: ["c1"] for event in ("e1", "e2", "e3")}, clients, [], resent=["e2"], cause="killed")
    assert cast.holds
    assert cast.duplicates == {"killed": 1, "sent again by its publisher": 1}
    assert (cast.deliveries, cast.delivered) == (3, 3)

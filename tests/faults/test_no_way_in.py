"""Clients that take almost nothing for longer than `max_age`: what waits for them expires, and says why.

One is down and rests; one asks to be left alone for an hour; one may have an attempt in a hundred seconds;
one takes three seconds for each, one at a time. A healthy one beside them hears of everything.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import embedded
from tests.faults.http_publisher import HttpPublisher
from tests.faults.rig import PATIENCE, Rig, rig
from tests.system import ledger
from tests.system.clients import Answer, Hit
from tests.system.ledger import Account, Found
from tests.system.publisher import Publisher
from tests.system.site import client
from tests.system.waiting import until
from tests.system.worker_process import worker

MAX_AGE = 12  # seconds
CLOSED: Mapping[str, Mapping[str, Any]] = {
    "circuit": {},
    "retry_after": {},
    "rate": {"per_second": 0.01},
    "slot": {"max_concurrent": 1},
}
"""The clients, by what deliveries for them wait for."""
CLIENTS = ("healthy", *CLOSED)
WHAT = "deliveries that never find a way in expire"


async def judge(hit: Hit) -> Answer:
    """What a request is answered with."""
    match hit.path:
        case "/circuit":
            return 503
        case "/retry_after":
            return web.Response(status=503, headers={"Retry-After": "3600"})
        case "/slot":
            await asyncio.sleep(3)
    return 200


@contextlib.asynccontextmanager
async def served(made: Rig) -> AsyncIterator[None]:
    """Run a worker with these clients and this `max_age`."""
    made.clients.judge = judge
    made.site.config["delivery"]["max_age"] = f"{MAX_AGE}s"
    made.site.write()
    clients = [client(name, made.clients.url(name), **limits) for name, limits in CLOSED.items()]
    made.site.write_clients([*clients, client("healthy", made.clients.url("healthy"))])
    async with worker(made.site) as running:
        yield
        assert await running.stop() == 0


async def end_of_all(made: Rig, look: Callable[[], Awaitable[Sequence[Found]]]) -> None:
    """Wait until every delivery was accepted, or is a dead letter."""

    async def ended() -> int:
        return len(made.clients.accepted) + len(await look())

    every = len(CLIENTS) * len(made.publisher.confirmed)
    await until(ended, lambda count: count >= every, PATIENCE)


def account(made: Rig, found: Sequence[Found]) -> Account:
    """What a closed client did not accept has expired. Each dead letter says how long it waited, and for what."""
    told = {(who, path.removeprefix("/")) for path, who in made.clients.accepted}
    to_die = {
        (event, name): "expired" for event in made.publisher.confirmed for name in CLOSED if (event, name) not in told
    }
    never = dict.fromkeys(CLOSED, 0)
    for letter in (json.loads(each.body) for each in found):
        attempts = letter["delivery"].get("attempts", 0)
        text, name = letter["text"], letter["client_id"]
        assert text.startswith(f"given up after {attempts}" if attempts else "never attempted in 1"), text
        assert text.endswith(f": older than max_age ({MAX_AGE} s)"), text
        if not attempts:
            assert f", put off for {name}" in text or ", put off for slot" in text, text
            never[name] += 1
    assert all(count > len(made.publisher.confirmed) / 2 for count in never.values()), never
    return ledger.account(made.publisher.confirmed, made.clients, found, to_die=to_die)


@pytest.mark.fault("client", WHAT)
@pytest.mark.timeout(900)
async def test_on_rabbitmq(tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], tell: Tell) -> None:
    """Most deliveries wait in vain for each of four clients."""
    async with rig(tmp_path, amqp_url, prefix) as made, served(made):
        made.publisher = Publisher(amqp_url, prefix, CLIENTS)
        await made.publisher.publish(range(form(60, 2000)), rate=200)
        await end_of_all(made, lambda: ledger.in_rabbitmq(amqp_url, prefix, ["dead"]))
        tell(account(made, await ledger.in_rabbitmq(amqp_url, prefix)))


@pytest.mark.fault("embedded queue", WHAT)
@pytest.mark.timeout(900)
async def test_on_sqlite(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """The same, over HTTP."""
    async with embedded(tmp_path) as made, served(made):
        made.publisher = HttpPublisher(made.port, CLIENTS)
        await made.publisher.publish(range(form(60, 2000)), rate=200)

        async def letters() -> Sequence[Found]:
            return [each for each in ledger.in_sqlite(made.file) if each.queue == "dead"]

        async def rest() -> int:
            return len(ledger.in_sqlite(made.file)) - len(await letters())

        await end_of_all(made, letters)
        await until(rest, lambda count: count == 0)  # what was told at last is acked a moment later
        tell(account(made, ledger.in_sqlite(made.file)))

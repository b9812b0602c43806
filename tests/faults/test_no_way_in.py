"""Clients that take almost nothing for longer than `max_age`: what waits for them expires, and says why.

One is down and rests; one asks to be left alone for an hour; one may have an attempt in a hundred seconds;
one takes three seconds for each, one at a time. A healthy one beside them hears of everything.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from aiohttp import web

from tests.faults.conftest import Form, Tell
from tests.faults.rig import PATIENCE, Rig
from tests.system.clients import Answer, Hit
from tests.system.ledger import Found
from tests.system.site import client
from tests.system.waiting import until
from tests.system.worker_process import worker

CLOSED: Mapping[str, Mapping[str, Any]] = {
    "circuit": {},
    "retry_after": {},
    "rate": {"per_second": 0.01},
    "slot": {"max_concurrent": 1},
}
"""The clients, by what deliveries for them wait for."""
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


@pytest.mark.parametrize(
    "installation",
    [
        pytest.param("rabbitmq", marks=pytest.mark.fault("client", WHAT)),
        pytest.param("sqlite", marks=pytest.mark.fault("embedded queue", WHAT)),
    ],
    indirect=True,
)
@pytest.mark.timeout(900)
async def test_what_never_finds_a_way_in_expires(installation: Rig, form: Form[int], tell: Tell) -> None:
    """Most deliveries wait in vain for each of four clients. Each dead letter says how long, and for what."""
    installation.clients.judge, max_age = judge, form(6, 12)
    installation.publish_for(("healthy", *CLOSED))
    installation.site.config["delivery"]["max_age"] = f"{max_age}s"
    del installation.site.config["delivery"]["retry"]["max_delay"]  # it bounds the pause
    installation.site.write()
    clients = [client(name, installation.clients.url(name), **limits) for name, limits in CLOSED.items()]
    installation.site.write_clients([*clients, client("healthy", installation.clients.url("healthy"))])
    async with worker(installation.site) as running:
        await installation.publisher.publish(range(form(60, 2000)), rate=200)

        async def ended() -> int:
            return len(installation.clients.accepted) + len(await installation.found(["dead"]))

        every = sum(map(len, installation.publisher.confirmed.values()))
        await until(ended, lambda count: count >= every, PATIENCE)
        await running.until_metric(0, "in_flight")
        assert await running.stop() == 0
    look_at_letters(await installation.found(["dead"]), len(installation.publisher.confirmed), max_age)
    installation.expected = {
        (event, name): "expired"
        for event in installation.publisher.confirmed
        for name in CLOSED
        if (f"/{name}", event) not in installation.clients.accepted
    }
    tell(await installation.account())


def look_at_letters(letters: Sequence[Found], events: int, max_age: int) -> None:
    """Fail unless most were never attempted, and say for what they waited instead."""
    never = dict.fromkeys(CLOSED, 0)
    for letter in (json.loads(each.body) for each in letters):
        attempts = letter["delivery"].get("attempts", 0)
        text, name = letter["text"], letter["client_id"]
        assert text.startswith(f"given up after {attempts}" if attempts else "never attempted in "), text
        assert text.endswith(f": older than max_age ({max_age} s)"), text
        if not attempts:
            assert f", put off for {name}" in text or ", put off for slot" in text, text
            never[name] += 1
    assert all(count > events / 2 for count in never.values()), never

"""However much waits, one fresh logout does not wait with it. Told by counting, not by the clock."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.broker import broker
from tests.system.clients import Clients, Hit
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

pytestmark = pytest.mark.alone  # what is overtaken, and that nothing is put off, hangs on the machine's pace

CROWD = 500


def slowly(seconds: float) -> "Callable[[Hit], int | asyncio.Future[int]]":
    """The crowd's clients take their time; the fresh one is quick."""
    return lambda hit: 200 if hit.path == "/fresh" else asyncio.ensure_future(asyncio.sleep(seconds, 200))


def install(tmp_path: Path, url: str, prefix: str, clients: Clients, crowd: int) -> Site:
    """A client that is quick, and a crowd that is not."""
    site = Site(tmp_path, url, prefix)
    site.write_clients([client(name, clients.url(name)) for name in ("fresh", *(f"c{n}" for n in range(crowd)))])
    return site


def fresh(number: int) -> dict[str, object]:
    """A person who has just signed out."""
    return {"iss": ISSUER, "sub": "alice", "sid": f"fresh-{number}", "clients": ["fresh"]}


async def overtaken(clients: Clients, sid: str) -> int:
    """How many others were told from now until this one."""
    before = len(clients.hits)
    await clients.until_told("fresh", [sid])
    return next(index for index, hit in enumerate(clients.hits) if hit.who == sid) - before


@pytest.mark.timeout(120)
async def test_a_mass_logout_does_not_delay_a_fresh_one(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """10,000 bulk events for 10 clients each wait, 100,000 deliveries; a fresh logout passes nearly all of them."""
    async with Clients(slowly(0.05)) as clients, broker(amqp_url, prefix) as rabbit:
        site = install(tmp_path, amqp_url, prefix, clients, CROWD)
        async with worker(site):
            bulk = (
                {
                    "iss": ISSUER,
                    "sub": f"user-{number}",
                    "clients": [f"c{(number * 10 + each) % CROWD}" for each in range(10)],
                }
                for number in range(10_000)
            )
            await rabbit.publish_all(bulk, exchange="bulk")
            for number in range(5):
                await clients.until(lambda number=number: len(clients.hits) >= 600 * (number + 1))  # type: ignore[misc]
                await rabbit.publish(fresh(number))
                assert await overtaken(clients, f"fresh-{number}") < 1000
            assert (await rabbit.depths(["bulk"]))["bulk"] > 5000


@pytest.mark.parametrize("seconds", [0.05, 0.4], ids=["quick", "slow"])
async def test_one_event_of_thousands_of_clients_does_not_delay_a_fresh_one(
    seconds: float, tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """An event of 5,000 clients came first, in the same lane; a fresh logout passes most of them.

    Where the crowd is slow it fills what clients not proven yet may have of the window, and the fresh one is none of
    the proven either.
    """
    async with Clients(slowly(seconds)) as clients, broker(amqp_url, prefix) as rabbit:
        site = install(tmp_path, amqp_url, prefix, clients, 5000)
        async with worker(site) as running:
            everybody = {"iss": ISSUER, "sub": "bob", "clients": [f"c{number}" for number in range(5000)]}
            await rabbit.publish(everybody)
            for number in range(3):
                await clients.until(lambda number=number: len(clients.hits) >= 200 * (number + 1))  # type: ignore[misc]
                await rabbit.publish(fresh(number))
                assert await overtaken(clients, f"fresh-{number}") < 1500
            await clients.until(lambda: len(clients.hits) == 5003)
            await running.until_metric(1, "events_total", result="split")
            assert not await running.metric("deferrals_total", cause="slot")

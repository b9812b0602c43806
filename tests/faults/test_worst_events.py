"""A publisher that sends the worst events it may, one after another: nobody else waits for them, and nothing grows."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import Rig, rig
from tests.faults.test_mutated_messages import resident
from tests.faults.worst_events import worst
from tests.system.broker import broker
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

AT_ONCE = 100
MOST_MEMORY = 200 * 1024 * 1024
LIVEZ_WITHIN = 0.1  # seconds
LATE = 2.0
LOOK_EVERY = 0.02
PATIENCE = 120.0


@dataclass(slots=True)
class Watched:
    """What a worker was at most: bytes of memory, and seconds for an answer of `/livez`."""

    memory: int = 0
    livez: float = 0.0


@contextlib.asynccontextmanager
async def watched(running: WorkerProcess) -> AsyncIterator[Watched]:
    """Look at it for as long as the block lasts."""
    found = Watched()

    async def look() -> None:
        url = await running.ops() + "/livez"
        async with aiohttp.ClientSession() as session:
            while True:
                begun = time.monotonic()
                async with session.get(url) as response:
                    assert response.status == 200
                found.livez = max(found.livez, time.monotonic() - begun)
                found.memory = max(found.memory, resident(running.pid))
                await asyncio.sleep(LOOK_EVERY)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def one_behind(made: Rig, number: int) -> float:
    """Seconds until the healthy client hears of an event that is published now."""
    begun = time.monotonic()
    publishing = asyncio.create_task(made.publisher.publish([number], rate=100))
    await made.clients.until(lambda: ("/healthy", str(number)) in made.clients.accepted, PATIENCE)
    late = time.monotonic() - begun
    await publishing
    return late


@pytest.mark.fault("publisher", "the worst events of 128 KiB in a row: nobody waits for them, and nothing grows")
@pytest.mark.timeout(900)
async def test_the_worst_events_in_a_row(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], tell: Tell
) -> None:
    """Behind each hundred a logout comes at once; each of them is one dead letter, no larger than what came."""
    rounds = form(1, 10)
    late: list[float] = []
    async with rig(tmp_path, amqp_url, prefix) as made:
        made.site.config["registry"]["grace"] = "6s"
        made.site.write()
        async with worker(made.site) as running, broker(amqp_url, prefix) as rabbit, watched(running) as seen:
            for number in range(rounds):
                await asyncio.gather(*(rabbit.publish(body) for body in worst(AT_ONCE)))
                late.append(await one_behind(made, number))
            await until(rabbit.depths, lambda found: found.keys() <= {"dead"}, PATIENCE)
            await rabbit.until_depths({"dead": rounds * AT_ONCE + len(made.to_die)}, PATIENCE)
            print(f"late {max(late):.2f} s, /livez {seen.livez:.3f} s, {seen.memory / 2**20:.0f} MiB")  # noqa: T201
            assert await running.metric("publishing_blocked") == 0
        letters = [each for each in await made_letters(made) if len(each) > 64 * 1024]
        tell(await made.account(), times=rounds * AT_ONCE)
    assert len(letters) == rounds * AT_ONCE
    assert max(map(len, letters)) <= 132 * 1024
    assert max(late) <= LATE
    assert seen.livez < LIVEZ_WITHIN
    assert seen.memory < MOST_MEMORY


async def made_letters(made: Rig) -> list[bytes]:
    """The bodies of the dead letters."""
    async with broker(made.urls[0], made.prefix) as rabbit:
        return [letter.body for letter in await rabbit.dead_letters()]

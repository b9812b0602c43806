"""What waits, while workers are replaced and while the broker is slow to confirm."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.parking_rig import parked, until_parked
from tests.faults.rig import ANSWER, Rig, rig
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.clients import Hit
from tests.system.publisher import Publisher
from tests.system.site import client
from tests.system.waiting import until
from tests.system.worker_process import worker

CLIENTS = ("paced", "dead")
PACE = 10  # a second
SECONDS = 30.0  # beyond what the pace takes
SLOWLY, QUICKLY = 0.2, 0.05  # seconds for which the broker stands still, and for which it goes on
APART = 0.03  # seconds between an event and its copy
PATIENCE = 120.0  # seconds


class Moods:
    """The clients `paced` and others, of which those that are `ill` answer 503."""

    def __init__(self, made: Rig, *others: str, paced: float | None = None) -> None:
        self.ill: set[str] = set()
        self._made = made
        made.clients.judge = self._judge
        limits: dict[str, Any] = {} if paced is None else {"per_second": paced}
        made.site.write_clients(
            [
                client("paced", made.clients.url("paced"), **limits),
                *(client(name, made.clients.url(name)) for name in others),
            ]
        )

    async def _judge(self, hit: Hit) -> int:
        await asyncio.sleep(ANSWER)
        return 503 if hit.path.removeprefix("/") in self.ill else 200

    def owed(self, name: str) -> int:
        """How many confirmed events it has not accepted."""
        accepted = self._made.clients.accepted
        named = self._made.publisher.confirmed.items()
        return sum(name in clients and (f"/{name}", event) not in accepted for event, clients in named)

    async def until_owed(self, name: str, most: int) -> None:
        """Wait until it has accepted all but so many."""
        await self._made.clients.until(lambda: self.owed(name) <= most, PATIENCE)


class OfOne(Publisher):
    """Each event is for one client, by its number: `dead` has the first."""

    dead = 0

    def event(self, number: int) -> dict[str, object]:
        """See the class."""
        return {**super().event(number), "clients": ["dead" if number < self.dead else "paced"]}


@pytest.mark.fault(
    "parking", "the only worker replaced, while logouts wait for a paced client beside the backlog of one that is down"
)
@pytest.mark.timeout(600)
async def test_what_waits_for_its_pace_goes_on_after_a_rolling_update(made: Rig, form: Form[int], tell: Tell) -> None:
    """It does not wait for what the old worker knew of it."""
    behind, waiting = form(300, 1000), form(100, 300)
    moods = Moods(made, "dead", paced=PACE)
    moods.ill = {"dead"}
    made.publisher = publisher = OfOne(made.urls[0], made.prefix, CLIENTS)
    publisher.dead = behind
    async with worker(made.site) as old:
        await publisher.publish(range(behind), rate=200)
        await until_parked(made, behind - 10)
        await publisher.publish(range(behind, behind + waiting), rate=200)
        await moods.until_owed("paced", waiting - 2 * PACE)
        async with worker(made.site) as new:
            assert await old.stop() == 0
            loop, left = asyncio.get_running_loop(), moods.owed("paced")
            began = loop.time()
            assert left > PACE, "it had told all before it was replaced"
            await moods.until_owed("paced", 0)
            assert loop.time() - began < left / PACE + SECONDS
            assert moods.owed("dead") == behind
            moods.ill.clear()
            await made.settle(new)
    tell(await made.account(cause="held by a worker that was replaced"))


class Twice(Publisher):
    """Sends each event a second time, a moment after the first."""

    async def _insist(self, number: int) -> None:
        body = json.dumps(self.event(number)).encode()
        try:
            for wait in (0.0, APART):
                await asyncio.sleep(wait)
                while not await self._try(body):
                    pass
            self.confirmed[str(number)] = list(self._clients)
            self.resent.add(str(number))
        finally:
            self._in_flight.release()


@asynccontextmanager
async def slow(node: RabbitmqNode) -> AsyncIterator[None]:
    """The broker stands still for most of the time, so that each confirm is late."""

    async def stutter() -> None:
        while True:
            node.freeze()
            try:
                await asyncio.sleep(SLOWLY)
            finally:
                node.thaw()
            await asyncio.sleep(QUICKLY)

    stuttering = asyncio.create_task(stutter())
    try:
        yield
    finally:
        stuttering.cancel()
        with suppress(asyncio.CancelledError):
            await stuttering


@pytest.mark.fault("publisher", "each event sent twice, the broker slow to confirm, the client down for a while")
@pytest.mark.timeout(600)
async def test_copies_while_confirms_are_late(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, form: Form[int], tell: Tell
) -> None:
    """A copy that comes while its delivery is parked, and before that is confirmed, waits: nobody is told twice."""
    count = form(300, 3000)
    async with rig(tmp_path, own_node.url, queues) as made:
        moods = Moods(made)
        made.publisher = Twice(own_node.url, queues, ["paced"])
        async with worker(made.site) as running:
            moods.ill = {"paced"}
            async with slow(own_node):
                publishing = asyncio.create_task(made.publisher.publish(range(count), rate=100))
                await until(lambda: parked(made), lambda many: many >= count // 4, PATIENCE)
                moods.ill.clear()
                await publishing
            await made.settle(running)
        tell(await made.account(), once=True)

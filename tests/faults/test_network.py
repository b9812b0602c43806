"""The network between the worker and the broker: cut, reset in mid-frame, stalled one way, slow, refusing.

Only the worker is behind the proxy. The identity server and the ledger speak to the broker directly.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from yarl import URL

from tests.faults.conftest import Form, Record
from tests.faults.rig import Rig, answers, rig
from tests.system.ledger import Account
from tests.system.tcp_proxy import Ending, TcpProxy, Way
from tests.system.waiting import PATIENCE, until
from tests.system.worker_process import WorkerProcess, worker

LOST = "the connection to the broker was lost before the ack"
LINKS = 2  # connections of a worker: one consumes, one publishes; a third one reads the pauses at times
LONG = 120.0  # seconds for a worker that pauses up to 15 s between two tries
HEARTBEAT = 2  # seconds; the broker gives a silent worker up after two or three, the worker the broker after 9 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A worker behind a proxy to its broker, and how many descriptors it had at first."""

    rig: Rig
    proxy: TcpProxy
    worker: WorkerProcess
    descriptors: int

    async def account(self) -> Account:
        """The account once everything is settled; nothing of a lost connection is left open, and the worker ends."""
        await self.rig.until_settled()
        await self.worker.until_ready(patience=LONG)

        async def left() -> int:
            self.rig.clients.hang_up()
            return await self.worker.descriptors() - self.descriptors

        await until(left, lambda more: more <= 0, PATIENCE)

        async def connections() -> int:  # reading the broker's policies takes another connection, which ends
            return self.proxy.connections

        await until(connections, lambda count: LINKS <= count <= LINKS + 1, PATIENCE)
        assert await self.worker.stop() == 0
        return await self.rig.account(cause=LOST)

    def publish(self, count: int, rate: float) -> "asyncio.Task[None]":
        """Begin to publish so many events."""
        return asyncio.create_task(self.rig.publisher.publish(range(count), rate=rate))


@pytest.fixture
async def given(tmp_path: Path, amqp_url: str, prefix: str) -> AsyncIterator[Behind]:
    """A worker behind a proxy."""
    broker = URL(amqp_url)
    async with (
        rig(tmp_path, amqp_url, prefix) as made,
        TcpProxy(broker.host or "localhost", broker.port or 5672) as proxy,
    ):
        url = broker.with_host("127.0.0.1").with_port(proxy.port).update_query(heartbeat=HEARTBEAT)
        made.clients.judge = answers(20)  # retries all the while
        made.site.config["queue"]["url"] = str(url)
        made.site.write()
        async with worker(made.site) as running:
            yield Behind(rig=made, proxy=proxy, worker=running, descriptors=await running.descriptors())


@pytest.mark.fault("network to the broker", "reset in mid-frame, now from the worker, now to it")
@pytest.mark.timeout(1200)
async def test_reset_in_mid_frame(given: Behind, form: Form[int], chance: random.Random, record: Record) -> None:
    """The reset comes after a random number of bytes, mostly within a frame: an ack has 21 bytes, a delivery 400."""
    times = form(3, 30)
    publishing = given.publish(150 * times, rate=100)
    for _ in range(times):
        before = given.proxy.made
        await given.proxy.until_connections(LINKS, LONG)
        given.proxy.end_after(chance.choice(list(Way)), chance.randint(1, 20_000), Ending.RESET)
        await given.proxy.until_made(before + 1, LONG)
    await publishing
    record(await given.account(), times=times)


STALLED = "network to the broker, stalled past the heartbeat"


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param([Way.DOWN], marks=pytest.mark.fault(STALLED, "from the broker to the worker")),
        pytest.param([Way.UP], marks=pytest.mark.fault(STALLED, "from the worker to the broker: no ack arrives")),
    ],
)
@pytest.mark.timeout(400)
async def test_stalled_past_the_heartbeat(given: Behind, form: Form[int], record: Record, ways: list[Way]) -> None:
    """The silent connection is closed after the heartbeats. Later all delayed data arrives."""
    times = form(1, 4)
    publishing = given.publish(form(240, 4000), rate=40)
    for count in range(times):
        await given.worker.until_ready(patience=LONG)
        await given.rig.more(50)
        given.proxy.stall(*ways)
        await lost(given.worker, LINKS * (count + 1))
        given.proxy.flow()
    await publishing
    account = await given.account()
    silent = [line for line in given.worker.logged("queue_connection_lost") if "nothing was heard" in line["reason"]]
    assert bool(silent) is (Way.DOWN in ways)
    record(account, times=times)


async def lost(running: WorkerProcess, times: int) -> None:
    """Wait until the worker has logged so many lost connections."""

    async def text() -> int:
        return len(running.logged("queue_connection_lost"))

    await until(text, lambda count: count >= times, LONG)

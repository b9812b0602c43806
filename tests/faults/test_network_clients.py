"""The network between the worker and its clients: cut, reset, stalled one way, slow, refusing.

A client whose answer was lost is told again, each time with a new token.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import Rig, answers, rig
from tests.system.ledger import Account
from tests.system.tcp_proxy import Ending, TcpProxy, Way
from tests.system.waiting import PATIENCE, until
from tests.system.worker_process import WorkerProcess, worker

ANSWER_LOST = "its answer was lost on the way"
TOO_LATE = "the request arrived after its deadline"
IN_THE_ANSWER = 120  # bytes; with its headers an answer has 150
IN_THE_REQUEST = 700  # bytes; with its headers a request has 850
DEADLINE = 1  # seconds
SLOW = 400.0  # seconds for the last delivery: where many wait for a client that failed, some are put off by 256 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A worker with a proxy before its clients, and how many descriptors it had at first."""

    rig: Rig
    proxy: TcpProxy
    worker: WorkerProcess
    descriptors: int

    async def account(self, cause: str = ANSWER_LOST) -> Account:
        """The account once everything is settled; no connection is left, and no token went out twice."""
        await self.rig.until_settled(SLOW)

        async def left() -> int:
            self.rig.clients.hang_up()
            return max(0, await self.worker.descriptors() - self.descriptors) + self.proxy.connections

        await until(left, lambda more: more == 0, PATIENCE)
        assert await self.worker.stop() == 0
        jtis = Counter(hit.claims["jti"] for hit in self.rig.clients.hits)
        assert max(jtis.values()) == 1
        return await self.rig.account(cause=cause)


Befores = Callable[..., contextlib.AbstractAsyncContextManager[Before]]


@pytest.fixture
def before(tmp_path: Path, amqp_url: str, prefix: str) -> Befores:
    """`before(deadline=10)` makes one."""

    @contextlib.asynccontextmanager
    async def before(deadline: int = DEADLINE) -> AsyncIterator[Before]:
        async with rig(tmp_path, amqp_url, prefix) as made, TcpProxy("127.0.0.1", made.clients.port) as proxy:
            made.clients.judge = answers(0)  # only the network fails here
            made.register(proxy.port)
            made.site.config["delivery"]["timeout"] = f"{deadline}s"
            made.site.write()
            async with worker(made.site) as running:
                yield Before(rig=made, proxy=proxy, worker=running, descriptors=await running.descriptors())

    return before


async def failures(running: WorkerProcess) -> Counter[str]:
    """Why attempts failed, by the worker's own log."""
    return Counter(line["reason"] for line in running.said("attempt") if line["outcome"] == "failed")


NETWORK = "network to the clients"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((Way.DOWN, IN_THE_ANSWER), marks=pytest.mark.fault(NETWORK, "reset in the middle of an answer")),
        pytest.param((Way.UP, IN_THE_REQUEST), marks=pytest.mark.fault(NETWORK, "reset in the middle of a request")),
    ],
)
@pytest.mark.timeout(900)
async def test_ended_in_the_middle(
    before: Befores, form: Form[int], chance: random.Random, tell: Tell, fault: tuple[Way, int]
) -> None:
    """Again and again, every open connection ends after some more bytes."""
    times, (way, within) = form(4, 60), fault
    async with before(deadline=10) as given:
        publishing = asyncio.create_task(given.rig.publisher.publish(range(30 * times), rate=30))
        for _ in range(times):
            await given.proxy.until_connections(1, PATIENCE)
            given.proxy.end_after(way, chance.randint(1, within), Ending.RESET)
            await asyncio.sleep(chance.uniform(0.5, 1.5))
        await publishing
        account = await given.account()
        reasons = await failures(given.worker)
        tell(account, times=times)
    # A kept connection that ends before any byte of an answer is stale: one more go at once, and no attempt.
    assert way is Way.UP or (reasons["disconnected"] and account.duplicates)


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param([Way.DOWN], marks=pytest.mark.fault(NETWORK, "stalled past the deadline: no answer comes")),
        pytest.param([Way.UP], marks=pytest.mark.fault(NETWORK, "stalled past the deadline: no request arrives")),
    ],
)
@pytest.mark.timeout(900)
async def test_stalled_past_the_deadline(before: Befores, form: Form[int], tell: Tell, ways: list[Way]) -> None:
    """Each attempt ends at its deadline. The held-back bytes arrive later and do no harm."""
    times = form(1, 10)
    async with before() as given:
        publishing = asyncio.create_task(given.rig.publisher.publish(range(form(120, 250) * times), rate=40))
        for _ in range(times):
            await given.rig.more(30)
            given.proxy.stall(*ways)
            await asyncio.sleep(2 * DEADLINE)
            given.proxy.flow()
        await publishing
        account = await given.account(TOO_LATE if ways == [Way.UP] else ANSWER_LOST)
        reasons = await failures(given.worker)
        tell(account, times=times)
    assert reasons["timeout"]

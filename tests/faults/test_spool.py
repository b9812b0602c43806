"""Identity servers send each logout token once, while the broker or a worker is down; the workers have a spool.

Each token is answered 200, and each session ends once the broker is back, none by two tokens with one `jti`.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.conftest import Record
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.clients import Clients, Hit
from tests.system.ledger import Account
from tests.system.loopback import LoopbackServer
from tests.system.site import Site, client
from tests.system.test_relays import IdentityServer, installation, send, token
from tests.system.worker_process import WorkerProcess, worker

MANY = 20  # sign-outs during an outage
ANSWER_SECONDS = 1.5
GROUP = "sign-outs of a sender that does not retry"
pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


class Signer:
    """Sends tokens as an identity server does, once each, to workers that are ready, as a Service does, by turns."""

    def __init__(self) -> None:
        self.sids: list[str] = []
        self.slowest = 0.0

    async def sign_out(self, running: Sequence[WorkerProcess], count: int = MANY) -> None:
        """Sign users out at a time. Each token is accepted."""
        workers = [each for each in running if (await each.get("/readyz"))[0] == 200]

        async def one(nth: int) -> tuple[int, str]:
            sid = f"s{len(self.sids)}"
            self.sids.append(sid)
            logout = token("shop", sub="alice", sid=sid, jti=f"j-{sid}")
            began_at = time.monotonic()
            answer = await send(workers[nth % len(workers)], logout)
            self.slowest = max(self.slowest, time.monotonic() - began_at)
            return answer

        assert set(await asyncio.gather(*map(one, range(count)))) == {(200, "")}


class Installed:
    """Two workers that share a folder, and the client. `start` starts another worker, which ends with the test."""

    def __init__(self, site: Site, clients: Clients, stack: AsyncExitStack) -> None:
        self.site, self.clients, self._stack = site, clients, stack
        self.workers: list[WorkerProcess] = []
        self.signer = Signer()

    async def start(self, *, ready: bool = True) -> WorkerProcess:
        """Start another worker, which is the last of `workers`."""
        self.workers.append(await self._stack.enter_async_context(worker(self.site, ready=ready)))
        return self.workers[-1]

    async def stop(self, running: WorkerProcess) -> int:
        """Stop a worker as a rollout does. Return how many entries it has left."""
        self.workers.remove(running)
        assert await running.stop() == 0
        return sum(line["entries"] for line in running.logged("spool_left"))

    async def until_all_ended(self) -> Account:
        """Wait until each session has ended, by another `jti`. Return the account."""
        await self.clients.until(lambda: {*self.clients.notified("shop")} >= {*self.signer.sids})
        hits: Sequence[Hit] = self.clients.at("shop")
        assert max(Counter(hit.claims["jti"] for hit in hits).values()) == 1
        for running in self.workers:
            await running.until_metric(0, "spool_entries", sender="op")
        count = len(self.signer.sids)
        again = {"a confirm of the broker was lost": len(hits) - count} if len(hits) > count else {}
        return Account(
            events=count, deliveries=count, delivered=count, waiting={}, dead={}, duplicates=again, missing=(), wrong=()
        )


@pytest.fixture
async def made(tmp_path: Path, own_node: RabbitmqNode, queues: str) -> AsyncIterator[Installed]:
    """Two workers that have taken a token each."""
    server = IdentityServer()
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(Clients())
        keys = await stack.enter_async_context(LoopbackServer(server.handle))
        shop = client("shop", clients.url("shop"))
        site = installation(tmp_path, (own_node.url, queues), f"{keys.base}/keys", shop)
        site.config["spool"] = {"folder": str(tmp_path / "spool")}
        site.write()
        made = Installed(site, clients, stack)
        for _ in range(2):
            await made.start()
        await made.signer.sign_out(made.workers, 2)
        await made.until_all_ended()
        yield made


@pytest.mark.fault(GROUP, "broker killed by SIGKILL during sign-outs, and a worker meanwhile")
async def test_the_broker_is_killed_during_sign_outs(made: Installed, own_node: RabbitmqNode, record: Record) -> None:
    """The workers stay ready, and a worker that was killed meanwhile loses nothing: the other takes its file over."""
    await asyncio.gather(asyncio.to_thread(own_node.kill), made.signer.sign_out(made.workers))
    await made.signer.sign_out(made.workers)
    assert made.signer.slowest < ANSWER_SECONDS
    for running in made.workers:
        assert (await running.get("/readyz"))[0] == 200
    killed = made.workers.pop(0)
    killed.send(signal.SIGKILL)
    await killed.ended()
    await made.signer.sign_out(made.workers)
    await made.start(ready=False)
    await asyncio.to_thread(own_node.start)
    record(await made.until_all_ended())


@pytest.mark.fault(GROUP, "broker frozen by SIGSTOP during sign-outs, then continued")
async def test_the_broker_is_frozen_during_sign_outs(made: Installed, own_node: RabbitmqNode, record: Record) -> None:
    """Each is answered after the second for which the broker may confirm."""
    await asyncio.to_thread(own_node.freeze)
    try:
        await made.signer.sign_out(made.workers)
        assert 1.0 < made.signer.slowest < ANSWER_SECONDS
        await asyncio.sleep(12.0)  # until the first publishes have failed
        await made.signer.sign_out(made.workers)
    finally:
        await asyncio.to_thread(own_node.thaw)
    record(await made.until_all_ended())


@pytest.mark.fault(GROUP, "broker killed by SIGKILL during sign-outs, then all workers stopped")
async def test_all_workers_are_stopped_with_entries(made: Installed, own_node: RabbitmqNode, record: Record) -> None:
    """A stop does not wait for the broker, reports the rest, and the next worker publishes it."""
    await asyncio.to_thread(own_node.kill)
    await made.signer.sign_out(made.workers)
    assert sum([await made.stop(running) for running in made.workers.copy()]) == MANY
    await asyncio.to_thread(own_node.start)
    await made.start()
    record(await made.until_all_ended())


@pytest.mark.fault(GROUP, "three workers replaced one after another, while they publish sign-outs of an outage")
async def test_a_rollout_while_entries_are_published(made: Installed, own_node: RabbitmqNode, record: Record) -> None:
    """Each stopped worker publishes what it has, or the others take it over. Fresh sign-outs are accepted meanwhile."""
    await made.start()
    await asyncio.to_thread(own_node.freeze)
    try:
        await made.signer.sign_out(made.workers, 3 * MANY)
    finally:
        await asyncio.to_thread(own_node.thaw)
    for former in made.workers.copy():
        await made.start()
        await made.stop(former)
        await made.signer.sign_out(made.workers, 3)
    record(await made.until_all_ended())

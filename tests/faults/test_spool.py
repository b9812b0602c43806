"""Identity servers send each logout token once, while the broker or a worker is down; the workers have a spool.

Each token is answered 200, and each session ends once the broker is back, none by two tokens with one `jti`.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
pytestmark = pytest.mark.full


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
    """Two workers that share a folder, and the client."""

    def __init__(self, site: Site, clients: Clients, first: WorkerProcess, second: WorkerProcess) -> None:
        self.site, self.clients = site, clients
        self.workers = [first, second]
        self.signer = Signer()

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


@asynccontextmanager
async def installed(folder: Path, node: RabbitmqNode, prefix: str) -> AsyncIterator[Installed]:
    """Start two workers that have taken a token each."""
    server = IdentityServer()
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(Clients())
        keys = await stack.enter_async_context(LoopbackServer(server.handle))
        shop = client("shop", clients.url("shop"))
        site = installation(folder, (node.url, prefix), f"{keys.base}/keys", shop)
        site.config["spool"] = {"folder": str(folder / "spool")}
        site.write()
        first, second = [await stack.enter_async_context(worker(site)) for _ in range(2)]
        made = Installed(site, clients, first, second)
        for running in made.workers:
            await running.until_ready()
        await made.signer.sign_out(made.workers, 2)
        await made.until_all_ended()
        yield made


@pytest.mark.fault(GROUP, "broker killed by SIGKILL during sign-outs, and a worker meanwhile")
async def test_the_broker_is_killed_during_sign_outs(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, record: Record
) -> None:
    """The workers stay ready, and a worker that was killed meanwhile loses nothing: the other takes its file over."""
    async with installed(tmp_path, own_node, queues) as made:
        await asyncio.to_thread(own_node.kill)
        await made.signer.sign_out(made.workers)
        assert made.signer.slowest < ANSWER_SECONDS
        for running in made.workers:
            assert (await running.get("/readyz"))[0] == 200
        killed, left = made.workers
        killed.send(signal.SIGKILL)
        await killed.ended()
        await made.signer.sign_out([left])
        async with worker(made.site, ready=False) as third:
            made.workers = [left, third]
            await asyncio.to_thread(own_node.start)
            record(await made.until_all_ended())


@pytest.mark.fault(GROUP, "broker frozen by SIGSTOP during sign-outs, then continued")
async def test_the_broker_is_frozen_during_sign_outs(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, record: Record
) -> None:
    """Each is answered after the second for which the broker may confirm."""
    async with installed(tmp_path, own_node, queues) as made:
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
async def test_all_workers_are_stopped_with_entries(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, record: Record
) -> None:
    """A stop does not wait for the broker, reports what remains, and the next worker publishes it."""
    async with installed(tmp_path, own_node, queues) as made:
        await asyncio.to_thread(own_node.kill)
        await made.signer.sign_out(made.workers)
        for running in made.workers:
            assert await running.stop() == 0
        left = [line["entries"] for running in made.workers for line in running.logged("spool_left")]
        assert sum(left) == MANY
        await asyncio.to_thread(own_node.start)
        async with worker(made.site) as third:
            made.workers = [third]
            record(await made.until_all_ended())

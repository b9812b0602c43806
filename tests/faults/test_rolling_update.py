"""Two workers replaced one after the other under load, as Kubernetes does it: nobody notices.

A new one starts and becomes ready; then an old one loses its readiness, gets SIGTERM and has its grace; then the next.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.rig import CLIENTS, Rig, judge
from tests.system.clients import Hit
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

MOST = 20_000  # events; the flow ends with the update
RATE = 60  # a second: `flaky` keeps up with it, one attempt at a time, on a loaded machine too
ANSWER = 0.1  # seconds that `healthy` takes, so that at any moment something is in flight
AGAIN = "told again by the update"


def flow(ended: asyncio.Event) -> Iterator[int]:
    """Events, until the update is over."""
    for number in count():
        if ended.is_set() or number == MOST:
            return
        yield number


async def slowly(hit: Hit) -> int:
    """Answer as in the rig, but let `healthy` take its time."""
    if hit.path == "/healthy":
        await asyncio.sleep(ANSWER)
    return await judge(hit)


def install(made: Rig) -> None:
    """Set waits that a loaded machine does not reach: an attempt that times out may have arrived (R3)."""
    made.site.config["delivery"]["timeout"] = "30s"
    made.site.config["shutdown_grace"] = "60s"
    made.site.write()
    made.clients.judge = slowly


async def works(running: WorkerProcess) -> None:
    """Wait until it has delivered something."""
    await until(lambda: running.metric("deliveries_settled_total", fate="delivered"), lambda value: value > 0)


async def replace(old: WorkerProcess, others: list[WorkerProcess]) -> None:
    """Send SIGTERM. The others stay ready while it drains, and it ends by itself within its grace."""
    old.send(signal.SIGTERM)
    ended = asyncio.create_task(old.ended(patience=90))
    while not ended.done():
        for other in others:
            status, body = await other.get("/readyz")
            assert status == 200, body
        await asyncio.wait({ended}, timeout=0.1)
    assert await ended == 0
    assert old.logged("draining"), old.log[-4000:]


async def alarms(running: WorkerProcess) -> list[str]:
    """The metrics of a worker that would wake somebody. Only `refusing` may have dead letters."""
    found = [
        f"dead letter of {name}" for name in CLIENTS[:2] if await running.metric("dead_letters_total", client_id=name)
    ]
    found += ["blocked"] if await running.metric("publishing_blocked") else []
    found += ["disconnected"] if not await running.metric("queue_connected") else []
    found += ["reload"] if not await running.metric("config_last_reload_success") else []
    found += [
        f"deferred: {cause}"
        for cause in ("signing", "tls_files", "proxy", "unknown")
        if await running.metric("deferrals_total", cause=cause)
    ]
    found += ["healthy rests"] if await running.metric("deferrals_total", cause="circuit", client_id="healthy") else []
    return found


@pytest.mark.fault(
    "worker", "two replaced one after the other, as a rolling update does: a new one ready, an old one drained"
)
@pytest.mark.timeout(600)
async def test_rolling_update_without_loss_or_alarm(made: Rig, form: Form[int], record: Record) -> None:
    """Nothing is lost, no client is notified twice, the other workers stay ready, and no metric alerts."""
    rounds = form(1, 5)
    async with AsyncExitStack() as stack:
        install(made)
        running = [await stack.enter_async_context(worker(made.site)) for _ in range(2)]
        over = asyncio.Event()
        publishing = asyncio.create_task(made.publisher.publish(flow(over), rate=RATE))
        for _ in range(2 * rounds):
            for each in running:
                await works(each)
            new = await stack.enter_async_context(worker(made.site))
            old, *running = [*running, new]
            assert await alarms(old) == []
            await replace(old, running)
        for each in running:
            await works(each)
        over.set()
        await publishing
        await made.until_settled()
        for each in running:
            assert await alarms(each) == []
            assert await each.stop() == 0
        account = await made.account(cause=AGAIN)
        record(account, times=2 * rounds)
        assert AGAIN not in account.duplicates, str(account)

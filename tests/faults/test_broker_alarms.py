"""A broker out of memory or disk: it takes no messages, and deliveries that publish nothing go on."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Tell
from tests.faults.rig import Rig, rig
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.command import notifier_at
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

EVENTS = 120  # so few that those that must wait do not fill the worker's prefetch
Command = tuple[str, str]
MEMORY = ("set_vm_memory_high_watermark", "0.0000001"), ("set_vm_memory_high_watermark", "0.4")
DISK = ("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "100MB")


async def readiness(running: WorkerProcess) -> tuple[int, bool, str]:
    """What `/readyz` says: its status, whether publishing is blocked, and the problem."""
    status, body = await running.get("/readyz")
    told = json.loads(body)
    return status, told["blocked"], told["problem"] or ""


async def until_those_who_are_well_are_told(made: Rig) -> None:
    """`flaky` is left out: while it fails, its deliveries come one by one, and the rest goes to the delay queues."""
    for name in ("healthy", "refusing"):
        await made.clients.until_told(name, list(made.publisher.confirmed), 60)


@pytest.mark.parametrize(
    ("raised", "cleared"),
    [
        pytest.param(*MEMORY, id="memory", marks=pytest.mark.fault("broker", "memory alarm: publishing is blocked")),
        pytest.param(*DISK, id="disk", marks=pytest.mark.fault("broker", "disk alarm: publishing is blocked")),
    ],
)
@pytest.mark.timeout(600)
async def test_an_alarm(
    tmp_path: Path, own_node: RabbitmqNode, queues: str, raised: Command, cleared: Command, tell: Tell
) -> None:
    """Retries and dead letters wait in the worker's memory, their messages unacked. Healthy clients hear of all."""
    async with rig(tmp_path, own_node.url, queues) as made:
        await made.publisher.publish(range(EVENTS), rate=1000)
        await asyncio.to_thread(own_node.ctl, *raised)
        try:
            publishing = asyncio.create_task(made.publisher.publish(range(EVENTS, EVENTS + 30), rate=100))
            async with worker(made.site) as running:
                await until_those_who_are_well_are_told(made)
                blocked = await until(lambda: readiness(running), lambda told: told[1])
                assert blocked[0] == 200
                assert "memory or disk alarm" in blocked[2]
                assert await running.metric("publishing_blocked") == 1
                await running.until_said("publishing_blocked")
                began = time.monotonic()
                shown = await notifier_at(made.site, "status")
                assert time.monotonic() - began < 2.5  # on a busy machine; 1 s on a quiet one
                assert (shown.returncode, "publishing blocked" in shown.stdout) == (0, True)
                assert (await running.post(made.publisher.event(9999)))[0] == 503
                assert await running.metric("dead_letters_total") == 0
                await asyncio.to_thread(own_node.ctl, *cleared)
                await publishing
                await made.until_settled()
                assert await readiness(running) == (200, False, "")
                assert await running.metric("publishing_blocked") == 0
                await running.until_said("publishing_unblocked")
                assert await running.stop() == 0
        finally:
            await asyncio.to_thread(own_node.ctl, *cleared)
        tell(await made.account(cause="held back by the alarm"))

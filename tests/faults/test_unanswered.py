"""A worker is killed when a logout is durable and its sender has no answer yet. The sender repeats it.

Nothing is lost, and for each death a client is told of a session once more at most.
"""

import asyncio
import sys

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.http_publisher import HttpPublisher
from tests.faults.rig import Rig
from tests.faults.web_rig import faced, most_told_again
from tests.system.worker_process import ROOT, worker

TOKEN = "killed by SIGKILL when an upstream's logout token is durable and not answered; the upstream repeats it"
HELD = "held by a worker that was killed"
NTH = 50  # of a worker's requests is never answered; others are under way then, and deliveries too
RATE = 100.0


async def killed(made: Rig, sender: HttpPublisher, times: int) -> None:
    """Kill so many workers, one after the other. The last one ends everything."""
    program = str(ROOT / "tests" / "faults" / "killed_before_answer.py")
    publishing = asyncio.create_task(sender.publish(range(NTH * (times + 1)), rate=RATE))
    for _ in range(times):
        async with worker(made.site, command=[sys.executable, program, str(NTH)], ready=False) as running:
            assert await running.ended() < 0
    async with worker(made.site) as running:
        await publishing
        await made.settle(running)
    assert len(sender.resent) >= times
    assert most_told_again(made.clients) <= times


@pytest.mark.parametrize(
    "installation",
    [
        pytest.param("rabbitmq", marks=pytest.mark.fault("upstream", TOKEN)),
        pytest.param("sqlite", marks=pytest.mark.fault("embedded queue", TOKEN)),
    ],
    indirect=True,
)
@pytest.mark.timeout(600)
async def test_tokens(installation: Rig, form: Form[int], tell: Tell) -> None:
    """The next worker has not seen the token; the event that it becomes has the same id."""
    times = form(1, 10)
    async with faced(installation, "login") as face:
        await killed(installation, face.upstreams["login"], times)
        tell(await installation.account(cause=HELD), times=times)

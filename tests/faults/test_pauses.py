"""A client is paused at run time, and workers die meanwhile: it gets nothing before the resume, and all of it after."""

from typing import Any

import pytest

from notifier.model.moment import parse_moment
from tests.faults.conftest import Form, Record
from tests.faults.rig import Rig, kill, load
from tests.system.command import notifier_at
from tests.system.site import ISSUER
from tests.system.worker_process import WorkerProcess, worker

WHAT = "killed by SIGKILL while a client is paused, and another one started; then the client is resumed"


async def command(made: Rig, running: WorkerProcess, applied: str, *arguments: str) -> dict[str, Any]:
    """Run a command about the client `healthy`, and return the line by which the worker logs that it has applied it.

    Under load the worker may answer too late for the command.
    """
    await notifier_at(made.site, *arguments, "--client-id", "healthy", "--iss", ISSUER)
    return await running.until_logged(applied)


@pytest.mark.parametrize(
    "installation",
    [
        pytest.param("rabbitmq", marks=[pytest.mark.fault("worker", WHAT), pytest.mark.full]),
        pytest.param("sqlite", marks=pytest.mark.fault("embedded queue", WHAT)),
    ],
    indirect=True,
)
@pytest.mark.timeout(600)
async def test_worker_killed_during_a_pause(installation: Rig, form: Form[int], record: Record) -> None:
    """Under load. No worker signs a token for the client; attempts in flight end, in seconds on a slow machine."""
    made, times = installation, form(1, 10)
    async with load(made.publisher, rate=form(50, 100)) as end:
        async with worker(made.site) as running:
            await made.more(20)
            line = await command(made, running, "client_paused", "pause", "--for", "1h", "--reason", "fault")
            await made.more(60)
            await kill(running)
        for _ in range(times):
            async with worker(made.site) as running:
                await made.more(50)
                await kill(running)
                assert running.logged("pauses_unread") == []
        async with worker(made.site) as running:
            await made.more(50)
            paused_at = parse_moment(line["time"])
            calls = made.clients.at("healthy")
            assert calls
            assert [hit for hit in calls if hit.claims["iat"] > paused_at] == []
            await command(made, running, "client_resumed", "resume")
            await end()
            await made.settle(running)
    record(await made.account(cause="held by a worker that was killed"), times=times + 1)

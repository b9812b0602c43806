"""A request by a command: it can be stopped, and reports that it waits."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from notifier.model.errors import PassStopped
from notifier.operators.terminal import queue_access
from notifier.operators.terminal.queue_access import run_request
from notifier.queues.queue_port import Queue
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from notifier.settings.queue_settings import QueueSettings


@pytest.fixture
def settings(tmp_path: Path) -> QueueSettings:
    """An empty queue in a file."""

    async def create() -> None:
        queue = SqliteQueue(SqliteOptions(path=tmp_path / "n.db"))
        await queue.open()
        await queue.wait_until_ready()
        await queue.close()

    asyncio.run(create())
    return QueueSettings.model_validate({"url": f"sqlite:{tmp_path / 'n.db'}"})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_request_that_waits(settings: QueueSettings, number: signal.Signals) -> None:
    """Such as for the register, which another process may hold for a minute. The text says what is unknown."""

    async def wait(_queue: Queue) -> None:
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    with pytest.raises(PassStopped, match="stopped; see the pauses"):
        run_request(settings, wait, "stopped; see the pauses")


def test_long_request_reports_that_it_waits(
    settings: QueueSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once; a short one prints nothing."""

    async def wait(_queue: Queue) -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        return "done"

    assert run_request(settings, wait, "") == "done"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(queue_access, "REQUEST_QUIET_SECONDS", 0.0)
    assert run_request(settings, wait, "") == "done"
    assert capsys.readouterr().err == "waiting for the queue\n"

"""`notifier waiting` at a terminal."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from notifier.model.message import Message
from notifier.operators.letters.waiting_command import _look
from notifier.operators.letters.waiting_filter import WaitingFilter, WaitingSummary
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.contract.test_waiting import delayed, delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(WaitingFilter):
    """Means nothing, and interrupts whoever looks."""

    def matches(self, message: Message, summary: WaitingSummary) -> bool:
        """See Filter."""
        os.kill(os.getpid(), signal.SIGINT)
        return False


def test_ctrl_c_ends_a_look_while_nothing_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does where something matches."""
    path = tmp_path / "q.db"

    async def fill() -> None:
        queue = SqliteQueue(SqliteOptions(path=path))
        await queue.open()
        await delayed(queue, *(delivery(f"d-{number}") for number in range(2000)))
        await queue.close()

    asyncio.run(fill())
    monkeypatch.setenv("NOTIFIER_QUEUE__URL", f"sqlite:{path}")
    with pytest.raises(KeyboardInterrupt):
        _look(None, Interrupted(), print)

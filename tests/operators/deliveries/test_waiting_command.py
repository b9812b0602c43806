"""Test `notifier waiting` at a terminal."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from notifier.model.message import Message
from notifier.operators.deliveries.message_table import CommandContext, read_messages
from notifier.operators.deliveries.waiting_command import WAITING_TABLE
from notifier.operators.deliveries.waiting_filter import WaitingFilter, WaitingSummary
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.cli.in_process import notifier
from tests.contract.test_waiting import delayed, delivery


def filled(path: Path, count: int) -> None:
    """Put deliveries into a queue without workers."""

    async def fill() -> None:
        queue = SqliteQueue(SqliteOptions(path=path))
        await queue.open()
        await delayed(queue, *(delivery(f"d-{number}") for number in range(count)))
        await queue.close()

    asyncio.run(fill())


def test_pending_deliveries_are_selected_by_reason_subject_and_time(tmp_path: Path) -> None:
    """As for dead letters. An unknown reason is refused, and an unknown ID is a failure.

    The other IDs are cancelled.
    """
    filled(tmp_path / "q.db", 2)
    settings = {"NOTIFIER_QUEUE__URL": f"sqlite:{tmp_path / 'q.db'}"}

    def run(*words: str) -> tuple[int, str]:
        done = notifier("waiting", *words, cwd=tmp_path, settings=settings)
        return done.returncode, done.stdout + done.stderr

    for words in ("--reason server_error", "--subject alice", "--until 1h", "--since 1970-01-01T00:15:00Z"):
        assert "2 deliveries wait" in run("list", *words.split())[1]
        assert "2 would be cancelled" in run("cancel", *words.split(), "--dry-run")[1]
    for words in ("--reason timeout", "--subject bob", "--since 1h", "--until 1970-01-01T00:14:59Z"):
        assert "0 deliveries wait" in run("list", *words.split())[1]
    code, text = run("cancel", "--reason", "nope", "--yes")
    assert (code, "unknown reason nope; the reasons are slot, " in text) == (2, True)
    for ids, options in (("d-0 none nope", "--dry-run"), ("d-0 none nope", "--yes --json"), ("none nope", "--yes")):
        code, text = run("cancel", *ids.split(), *options.split())
        assert (code, "of none, nope none waits" in text) == (1, True)
    assert "1 delivery waits" in run("list")[1]


def test_ctrl_c_ends_the_question_after_a_count(tmp_path: Path) -> None:
    """A pass restores the signal handlers; the closed loop of the count would ignore them during the question."""
    filled(tmp_path / "q.db", 1)
    settings = {"NOTIFIER_QUEUE__URL": f"sqlite:{tmp_path / 'q.db'}"}
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert notifier("waiting", "cancel", "--all", "--dry-run", cwd=tmp_path, settings=settings).returncode == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(WaitingFilter):
    """Match nothing and interrupt the pass."""

    def matches(self, message: Message, summary: WaitingSummary) -> bool:
        """Interrupt the process. Match nothing."""
        os.kill(os.getpid(), signal.SIGINT)
        return False


def test_ctrl_c_ends_a_pass_without_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does if something matches."""
    filled(tmp_path / "q.db", 2000)
    monkeypatch.setenv("NOTIFIER_QUEUE__URL", f"sqlite:{tmp_path / 'q.db'}")
    with pytest.raises(KeyboardInterrupt):
        read_messages(WAITING_TABLE, CommandContext(None, ()), Interrupted(), print)

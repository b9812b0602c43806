"""The embedded queue's delays, when the wall clock is set while it runs, and between two runs."""

import time
from pathlib import Path

import pytest

from notifier.queues.sqlite import SqliteQueue
from notifier.queues.sqlite.options import SqliteOptions, from_now_on
from tests.contract.queues import Inbox, names, outgoing

HOUR = 3600.0


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forwards", "backwards"])
async def test_a_wall_clock_that_is_set_changes_no_delay(tmp_path: Path, jump: float) -> None:
    """Those that wait neither end all at once nor last an hour more; a message is dated by the wall clock."""
    wall, pace = 1_000_000.0, 1_000_000.0
    queue = SqliteQueue(SqliteOptions(path=tmp_path / "queue.db", clock=lambda: wall, delay_clock=lambda: pace))
    inbox = Inbox()
    await queue.open()
    await queue.consume(inbox)
    await queue.publish_later(outgoing("before"), due=wall + 64)
    wall += jump
    await queue.publish_later(outgoing("after"), due=wall + 2)
    pace += 2
    first = await inbox.next()
    assert names([first]) == ["after"]
    assert first.timestamp == wall
    assert (await queue.depths())["delay.64s"].ready == 1
    pace += 62
    assert names([await inbox.next()]) == ["before"]
    await queue.close()


async def test_a_clock_set_back_between_two_runs_prolongs_no_delay(tmp_path: Path) -> None:
    """No delay exceeds its queue's, and their distances are kept: they do not all end at one moment.

    Set forwards while no process ran, delays end early: this equals a long time in which no process ran.
    """
    wall = pace = 1_000_000.0
    options = SqliteOptions(path=tmp_path / "queue.db", clock=lambda: wall, delay_clock=lambda: pace)
    queue = SqliteQueue(options)
    await queue.open()
    for number in range(3):
        await queue.publish_later(outgoing(str(number)), due=wall + 64)
        pace += 10
    await queue.close()
    pace -= HOUR
    inbox = Inbox()
    await queue.open()
    await queue.consume(inbox)
    for number, wait in enumerate((44, 10, 10)):
        assert (await queue.depths())["delay.64s"].ready == 3 - number
        pace += wait
        assert names([await inbox.next()]) == [str(number)]
    await queue.close()


def test_the_pace_begins_at_the_wall_clock() -> None:
    """So that a delay that one process began is gone on with by another."""
    before = time.time()
    assert before - 0.1 <= from_now_on()() <= time.time() + 0.1

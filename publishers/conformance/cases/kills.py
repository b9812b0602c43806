"""The process is killed: the next one publishes the events on disk, and each session end has exactly one id."""

import asyncio

import pytest

from publishers.conformance.harness import WAITS, Harness
from publishers.conformance.subject import Session


@pytest.mark.starts
async def test_killed_with_a_full_outbox(harness: Harness) -> None:
    """SIGKILL with everything still waiting; the next start finds no broker either. Then all come, in order."""
    await harness.run()
    sessions = await harness.sign_in(harness.many(30, 2000))
    harness.broker.go_away()
    await harness.sign_out(sessions)
    await harness.kill()
    await harness.run()
    [last] = await harness.sign_in()
    await harness.sign_out([last])
    await harness.broker.come_back()
    await harness.until_published([*sessions, last])
    assert harness.in_order(sessions)


async def test_killed_at_any_moment_of_a_sign_out(harness: Harness) -> None:
    """For each session that is gone there is one event, with all its clients; for each that lives there is none."""
    kills = harness.form(3, 30)
    sessions: list[Session] = []
    answered: list[Session] = []
    for _ in range(kills):
        await harness.run()
        some = await harness.sign_in(harness.many(20, 150))
        sessions += some
        await _killed_amid(harness, some, answered)
    await harness.run()
    alive = {session.key for session in sessions if await harness.subject.lives(session)}
    lives = [session for session in sessions if session.key in alive]
    gone = [session for session in sessions if session.key not in alive]
    harness.report(f"{kills} kills, {len(sessions)} sessions: {len(gone)} ended, {len(lives)} live on")
    assert not alive & {session.key for session in answered}
    await harness.until_published(gone, or_lane=harness.subject.traits.lane_after_kill)
    if harness.subject.traits.looks_up:
        assert not harness.published() & alive, "an event was published for a live session"
    await harness.sign_out(lives, together=4)
    await harness.until_published(lives)


@pytest.mark.starts
async def test_killed_while_the_store_deletes(harness: Harness) -> None:
    """The next start finds the session alive, and the deletion follows: its event is published."""
    await harness.run()
    [session] = await harness.sign_in()
    harness.runs_with = None
    await harness.subject.die_deleting(session)
    assert await harness.subject.lives(session)
    assert harness.files(".pending")
    await harness.run()
    await harness.until_published([session])
    assert not await harness.subject.lives(session)


async def _killed_amid(harness: Harness, sessions: list[Session], answered: list[Session]) -> None:
    done: list[Session] = []
    stream = asyncio.gather(
        *(harness.sign_out_until_killed(sessions[nth::4], done) for nth in range(4)), return_exceptions=False
    )
    most = harness.chance.randrange(1, max(2, len(sessions) - 4))
    while len(done) < most and not stream.done():  # noqa: ASYNC110  a moment that is as good as any other
        await asyncio.sleep(0.001)
    await asyncio.sleep(harness.chance.uniform(0, 0.01))
    await harness.kill()
    await stream
    answered += done


@pytest.mark.starts
async def test_a_damaged_file_is_set_aside(harness: Harness) -> None:
    """Half a file, as after a power cut: it becomes `.refused` and is logged, and the others are published."""
    await harness.run()
    sessions = await harness.sign_in(3)
    harness.broker.go_away()
    await harness.sign_out(sessions)
    await harness.stays_waiting(3)
    await harness.kill()
    damaged = harness.files(*WAITS)[1]
    damaged.write_bytes(damaged.read_bytes()[:20])
    await harness.broker.come_back()
    await harness.run()
    await harness.until(lambda: harness.files(".refused"), "the damaged file was not set aside")
    await harness.until_nothing_waits()
    assert len(harness.published() & {session.key for session in sessions}) == 2
    for refused in harness.files(".refused"):
        refused.unlink()


@pytest.mark.starts
async def test_stopped_with_events_waiting(harness: Harness) -> None:
    """SIGTERM with the broker away: the process ends all the same, and the events come after its start."""
    await harness.run()
    sessions = await harness.sign_in(5)
    harness.broker.go_away()
    await harness.sign_out(sessions)
    harness.runs_with = None
    async with asyncio.timeout(harness.patience):
        await harness.subject.stop()
    await harness.broker.come_back()
    await harness.run()
    await harness.until_published(sessions)


@pytest.mark.starts
async def test_two_processes_share_an_outbox(harness: Harness) -> None:
    """A start takes nothing from a process that lives, and takes over what one left that was killed."""
    await harness.run()
    ours, theirs = await harness.sign_in(harness.many(40, 300)), await harness.sign_in(5)
    other = await harness.subject.sibling()
    harness.others.append(other)
    harness.broker.go_away()
    stream = asyncio.create_task(harness.sign_out(ours))
    await other.start(harness.settings)
    await stream
    for session in theirs:
        await other.sign_out(session)
    await other.kill()
    if harness.whole:
        await harness.broker.come_back()
        await asyncio.sleep(70)  # a process that lives looks once a minute
    else:
        await other.start(harness.settings)
        await harness.broker.come_back()
    await harness.until_published([*ours, *theirs])
    await other.stop()

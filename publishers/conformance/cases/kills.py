"""The process is killed: what is on disk is published by the next one, and each ending is told exactly once."""

import asyncio

import pytest

from publishers.conformance.subject import Session
from publishers.conformance.world import WAITS, World


@pytest.mark.starts
async def test_killed_with_a_full_outbox(world: World) -> None:
    """SIGKILL with everything still waiting; the next start finds no broker either. Then all come, in order."""
    await world.run()
    sessions = await world.sign_in(world.many(30, 2000))
    world.broker.go_away()
    await world.sign_out(sessions)
    await world.kill()
    await world.run()
    [last] = await world.sign_in()
    await world.sign_out([last])
    await world.broker.come_back()
    await world.until_told([*sessions, last])
    assert world.in_order(sessions)


async def test_killed_at_any_moment_of_a_sign_out(world: World) -> None:
    """For each session that is gone there is one event, with all its clients; for each that lives there is none."""
    kills = world.form(3, 30)
    sessions: list[Session] = []
    answered: list[Session] = []
    for _ in range(kills):
        await world.run()
        some = await world.sign_in(world.many(20, 150))
        sessions += some
        await _killed_amid(world, some, answered)
    await world.run()
    alive = {session.key for session in sessions if await world.subject.lives(session)}
    lives = [session for session in sessions if session.key in alive]
    gone = [session for session in sessions if session.key not in alive]
    world.say(f"{kills} kills, {len(sessions)} sessions: {len(gone)} ended, {len(lives)} live on")
    assert not alive & {session.key for session in answered}
    await world.until_told(gone)
    if world.subject.traits.looks_up:
        assert not world.told() & alive, "a session was told that lives"
    await world.sign_out(lives, together=4)
    await world.until_told(lives)


@pytest.mark.starts
async def test_killed_while_the_store_deletes(world: World) -> None:
    """The next start finds the session alive, and the deletion comes after that: it is told."""
    await world.run()
    [session] = await world.sign_in()
    world.runs_with = None
    await world.subject.die_deleting(session)
    assert await world.subject.lives(session)
    assert world.files(".pending")
    await world.run()
    await world.until_told([session])
    assert not await world.subject.lives(session)


async def _killed_amid(world: World, sessions: list[Session], answered: list[Session]) -> None:
    done: list[Session] = []
    stream = asyncio.gather(
        *(world.sign_out_until_killed(sessions[nth::4], done) for nth in range(4)), return_exceptions=False
    )
    most = world.chance.randrange(1, max(2, len(sessions) - 4))
    while len(done) < most and not stream.done():  # noqa: ASYNC110  a moment that is as good as any other
        await asyncio.sleep(0.001)
    await asyncio.sleep(world.chance.uniform(0, 0.01))
    await world.kill()
    await stream
    answered += done


@pytest.mark.starts
async def test_a_damaged_file_is_set_aside(world: World) -> None:
    """Half a file, as after a power cut: it is kept as `.refused`, told in the log, and the others are published."""
    await world.run()
    sessions = await world.sign_in(3)
    world.broker.go_away()
    await world.sign_out(sessions)
    await world.stays_waiting(3)
    await world.kill()
    damaged = world.files(*WAITS)[1]
    damaged.write_bytes(damaged.read_bytes()[:20])
    await world.broker.come_back()
    await world.run()
    await world.until(lambda: world.files(".refused"), "the damaged file was not set aside")
    await world.until_nothing_waits()
    assert len(world.told() & {session.key for session in sessions}) == 2
    for refused in world.files(".refused"):
        refused.unlink()


@pytest.mark.starts
async def test_stopped_with_events_waiting(world: World) -> None:
    """SIGTERM with the broker away: the process ends all the same, and the events come after its start."""
    await world.run()
    sessions = await world.sign_in(5)
    world.broker.go_away()
    await world.sign_out(sessions)
    world.runs_with = None
    async with asyncio.timeout(world.patience):
        await world.subject.stop()
    await world.broker.come_back()
    await world.run()
    await world.until_told(sessions)


@pytest.mark.starts
async def test_two_processes_share_an_outbox(world: World) -> None:
    """A start takes nothing from a process that lives, and takes over what one left that was killed."""
    await world.run()
    ours, theirs = await world.sign_in(world.many(40, 300)), await world.sign_in(5)
    other = await world.subject.sibling()
    world.others.append(other)
    world.broker.go_away()
    stream = asyncio.create_task(world.sign_out(ours))
    await other.start(world.settings)
    await stream
    for session in theirs:
        await other.sign_out(session)
    await other.kill()
    if world.whole:
        await world.broker.come_back()
        await asyncio.sleep(70)  # a process that lives looks once a minute
    else:
        await other.start(world.settings)
        await world.broker.come_back()
    await world.until_told([*ours, *theirs])
    await other.stop()

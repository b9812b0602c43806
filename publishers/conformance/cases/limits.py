"""The outbox has limits, and a disk may be full: sign-outs go on all the same, and the log says so."""

import pytest

from publishers.conformance.world import World
from tests.support.small_disk import filled


@pytest.mark.starts
async def test_the_disk_is_full(world: World) -> None:
    """Events are kept in memory and the log says so; all of them come."""
    if not world.small_disk:
        pytest.skip("only root may mount a file system of its own")
    await world.run()
    first, *sessions = await world.sign_in(6)
    world.broker.go_away()
    await world.sign_out([first])
    before = len(world.log())
    with filled(world.settings.outbox.parent):
        await world.sign_out(sessions)
        await world.until(lambda: "outbox" in world.log()[before:].lower(), "the log does not say so")
        await world.broker.come_back()
        wanted = {session.key for session in sessions}
        await world.until(lambda: wanted <= world.told(), "events are lost")
    await world.until_told([first, *sessions])


@pytest.mark.starts
async def test_the_outbox_is_full(world: World) -> None:
    """More events than it may hold: they are kept in memory, the log says so, and all of them come."""
    world.broker.go_away()
    await world.run(max_events=5)
    sessions = await world.sign_in(9)
    before = len(world.log())
    await world.sign_out(sessions)
    await world.until(lambda: "outbox" in world.log()[before:].lower(), "the log does not say so")
    assert world.waiting() <= 5
    await world.broker.come_back()
    await world.until_told(sessions)


@pytest.mark.starts
async def test_an_event_that_is_too_old_is_set_aside(world: World) -> None:
    """A file `.expired`, which an operator may look at; it is no longer published."""
    await world.run(max_age=1.0)
    sessions = await world.sign_in(2)
    world.broker.go_away()
    await world.sign_out(sessions)
    await world.until(lambda: len(world.files(".expired")) == 2, "nothing was set aside")
    await world.broker.come_back()
    await world.until_nothing_waits()
    assert not world.told() & {session.key for session in sessions}
    for expired in world.files(".expired"):
        expired.unlink()

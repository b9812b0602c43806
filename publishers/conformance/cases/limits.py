"""The outbox has limits, and a disk may be full: sign-outs continue, and it is logged."""

import pytest

from publishers.conformance.harness import Harness
from tests.support.small_disk import filled


@pytest.mark.starts
async def test_the_disk_is_full(harness: Harness) -> None:
    """Events are kept in memory, which is logged; all of them are published."""
    if not harness.small_disk:
        pytest.skip("only root may mount a file system")
    await harness.run()
    first, *sessions = await harness.sign_in(6)
    harness.broker.go_away()
    await harness.sign_out([first])
    before = len(harness.log())
    with filled(harness.settings.outbox.parent):
        await harness.sign_out(sessions)
        await harness.until(lambda: "outbox" in harness.log()[before:].lower(), "the log does not name the outbox")
        await harness.broker.come_back()
        wanted = {session.key for session in sessions}
        await harness.until(lambda: wanted <= harness.published(), "events are lost")
    await harness.until_published([first, *sessions])


@pytest.mark.starts
async def test_the_outbox_is_full(harness: Harness) -> None:
    """More events than it may hold: they are kept in memory, which is logged, and all are published."""
    harness.broker.go_away()
    await harness.run(max_events=5)
    sessions = await harness.sign_in(9)
    before = len(harness.log())
    await harness.sign_out(sessions)
    await harness.until(lambda: "outbox" in harness.log()[before:].lower(), "the log does not name the outbox")
    assert harness.waiting() <= 5
    await harness.broker.come_back()
    await harness.until_published(sessions)


@pytest.mark.starts
async def test_an_event_that_is_too_old_is_set_aside(harness: Harness) -> None:
    """A file `.expired`, which an operator may look at; it is no longer published."""
    await harness.run(max_age=1.0)
    sessions = await harness.sign_in(2)
    harness.broker.go_away()
    await harness.sign_out(sessions)
    await harness.until(lambda: len(harness.files(".expired")) == 2, "nothing was set aside")
    await harness.broker.come_back()
    await harness.until_nothing_waits()
    assert not harness.published() & {session.key for session in sessions}
    for expired in harness.files(".expired"):
        expired.unlink()

"""Mass logouts have a separate lane: neither lane waits for the other."""

import pytest

from publishers.conformance.harness import Harness


async def test_mass_logouts_go_to_the_bulk_lane(harness: Harness) -> None:
    """Each event has the expected content."""
    await harness.run()
    sessions = await harness.sign_in(harness.many(10, 500))
    await harness.subject.end_in_bulk(sessions)
    await harness.until_published(sessions, lane="bulk")


async def test_an_unavailable_bulk_lane_delays_no_sign_out(harness: Harness) -> None:
    """Events of users who sign out are published while the mass logout waits."""
    await harness.run()
    mass, users = await harness.sign_in(5), await harness.sign_in(3)
    async with harness.broker.unbound("bulk"):
        await harness.subject.end_in_bulk(mass)
        await harness.sign_out(users)
        wanted = {session.key for session in users}
        await harness.until(lambda: wanted <= harness.published(), "users wait for a mass logout")
        assert not harness.published() & {session.key for session in mass}
        await harness.stays_waiting(len(mass))
    await harness.until_published(mass, lane="bulk")


@pytest.mark.full
async def test_an_unavailable_event_lane_delays_no_mass_logout(harness: Harness) -> None:
    """The other way round."""
    await harness.run()
    mass, users = await harness.sign_in(3), await harness.sign_in(3)
    async with harness.broker.unbound("events"):
        await harness.sign_out(users)
        await harness.subject.end_in_bulk(mass)
        wanted = {session.key for session in mass}
        await harness.until(lambda: wanted <= harness.published(), "a mass logout waits for users")
        await harness.stays_waiting(len(users))
    await harness.until_published(users)

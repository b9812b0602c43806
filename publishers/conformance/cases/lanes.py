"""Mass logouts have a lane of their own: neither lane waits for the other."""

import pytest

from publishers.conformance.world import World


async def test_mass_logouts_go_to_the_bulk_lane(world: World) -> None:
    """And they say what they must."""
    await world.run()
    sessions = await world.sign_in(world.many(10, 500))
    await world.subject.end_in_bulk(sessions)
    await world.until_told(sessions, lane="bulk")


async def test_a_bulk_lane_that_cannot_be_published_holds_up_nobody(world: World) -> None:
    """Users who sign out are told while the mass logout waits."""
    await world.run()
    mass, users = await world.sign_in(5), await world.sign_in(3)
    async with world.broker.unbound("bulk"):
        await world.subject.end_in_bulk(mass)
        await world.sign_out(users)
        wanted = {session.key for session in users}
        await world.until(lambda: wanted <= world.told(), "users wait for a mass logout")
        assert not world.told() & {session.key for session in mass}
        await world.stays_waiting(len(mass))
    await world.until_told(mass, lane="bulk")


@pytest.mark.full
async def test_users_that_cannot_be_told_hold_up_no_mass_logout(world: World) -> None:
    """The other way round."""
    await world.run()
    mass, users = await world.sign_in(3), await world.sign_in(3)
    async with world.broker.unbound("events"):
        await world.sign_out(users)
        await world.subject.end_in_bulk(mass)
        wanted = {session.key for session in mass}
        await world.until(lambda: wanted <= world.told(), "a mass logout waits for users")
        await world.stays_waiting(len(users))
    await world.until_told(users)

"""Nothing is taken for published that the broker has not taken: confirms, `mandatory`, ids, order."""

import pytest

from publishers.conformance.broker import USER
from publishers.conformance.world import World
from publishers.tests.tap import properties


async def test_the_message_is_what_is_promised(world: World) -> None:
    """Persistent, typed, with the user that the broker checks and the id of the event; it tells each client."""
    await world.run()
    [session] = await world.sign_in()
    await world.sign_out([session])
    await world.until_told([session])
    received = world.of(session)[0]
    assert received.properties == properties(received.id, USER)
    assert received.id
    assert len(received.event["clients"]) >= 2


async def test_only_a_confirm_takes_the_file_away(world: World) -> None:
    """A confirm that nobody heard is none: the event stays, and is sent again with the id that it had."""
    await world.run()
    first, second = await world.sign_in(2)
    await world.sign_out([first])
    await world.until_told([first])
    world.broker.go_mute()
    await world.sign_out([second])
    await world.until(lambda: world.of(second), "nothing was published")
    await world.stays_waiting()
    await world.broker.come_back()
    await world.until(lambda: len(world.of(second)) > 1, "an unconfirmed event was not sent again")
    await world.until_told([second])


async def test_an_exchange_without_a_queue_takes_nothing(world: World) -> None:
    """`mandatory`: what the broker returns is kept, and comes once the queue is bound."""
    await world.run()
    sessions = await world.sign_in(2)
    async with world.broker.unbound("events"):
        await world.sign_out(sessions)
        await world.stays_waiting(2)
    await world.until_told(sessions)


@pytest.mark.full
async def test_an_exchange_that_does_not_exist_takes_nothing(world: World) -> None:
    """The broker closes the channel. The events come once the exchange is declared."""
    await world.run()
    sessions = await world.sign_in(2)
    async with world.broker.without_exchange("events"):
        await world.sign_out(sessions)
        await world.stays_waiting(2)
    await world.until_told(sessions)


async def test_each_ending_has_an_id_of_its_own(world: World) -> None:
    """Sessions that end side by side, each once."""
    await world.run()
    sessions = await world.sign_in(world.many(12, 200))
    await world.sign_out(sessions, together=6)
    await world.until_told(sessions)
    said = world.by_key()
    assert len({received.id for session in sessions for received in said[session.key]}) == len(sessions)


async def test_a_password_is_read_again_at_each_connection(world: World) -> None:
    """A rotated one: events wait while the file has the old one, and come once it has the new one."""
    await world.run()
    [session] = await world.sign_in()
    await world.broker.change_password()
    world.broker.go_away()
    await world.broker.come_back()
    await world.sign_out([session])
    await world.stays_waiting()
    world.broker.write_password()
    await world.until_told([session])

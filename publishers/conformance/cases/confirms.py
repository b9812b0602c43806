"""Nothing is taken for published that the broker has not taken: confirms, `mandatory`, ids, order."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from publishers.conformance.broker import USER, Broker
from publishers.conformance.harness import Harness
from publishers.tests.tap import properties

Fault = Callable[[Broker, str], AbstractAsyncContextManager[None]]


async def test_the_message_has_the_documented_properties(harness: Harness) -> None:
    """Persistent, typed, with the user that the broker checks and the id of the event; it names each client."""
    await harness.run()
    [session] = await harness.sign_in()
    await harness.sign_out([session])
    await harness.until_published([session])
    received = harness.of(session)[0]
    assert received.properties == properties(received.id, USER)
    assert received.id
    assert len(received.event["clients"]) >= 2


async def test_only_a_confirm_removes_the_file(harness: Harness) -> None:
    """Without a received confirm the event stays, and is sent again with the same id."""
    await harness.run()
    first, second = await harness.sign_in(2)
    await harness.sign_out([first])
    await harness.until_published([first])
    harness.broker.go_mute()
    await harness.sign_out([second])
    await harness.until(lambda: harness.of(second), "nothing was published")
    await harness.stays_waiting()
    await harness.broker.come_back()
    await harness.until(lambda: len(harness.of(second)) > 1, "an unconfirmed event was not sent again")
    await harness.until_published([second])


@pytest.mark.parametrize("fault", [Broker.unbound, pytest.param(Broker.without_exchange, marks=pytest.mark.full)])
async def test_an_exchange_without_queue_or_missing_takes_nothing(harness: Harness, fault: Fault) -> None:
    """The broker returns `mandatory` events or closes the channel; the events come once the topology is whole."""
    await harness.run()
    sessions = await harness.sign_in(2)
    async with fault(harness.broker, "events"):
        await harness.sign_out(sessions)
        await harness.stays_waiting(2)
    await harness.until_published(sessions)


async def test_each_session_end_has_its_own_id(harness: Harness) -> None:
    """Sessions that end side by side, each once."""
    await harness.run()
    sessions = await harness.sign_in(harness.many(12, 200))
    await harness.sign_out(sessions, together=6)
    await harness.until_published(sessions)
    events = harness.by_key()
    assert len({received.id for session in sessions for received in events[session.key]}) == len(sessions)


async def test_a_password_is_read_again_at_each_connection(harness: Harness) -> None:
    """A rotated one: events wait while the file has the old one, and come once it has the new one."""
    await harness.run()
    [session] = await harness.sign_in()
    await harness.broker.change_password()
    harness.broker.go_away()
    await harness.broker.come_back()
    await harness.sign_out([session])
    await harness.stays_waiting()
    harness.broker.write_password()
    await harness.until_published([session])

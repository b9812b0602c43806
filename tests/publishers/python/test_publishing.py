"""What is told arrives at a real RabbitMQ, as the service wants it, and in order."""

import asyncio
from pathlib import Path

import pytest

from notifier.publisher import Client, EventMistake, Publisher, SessionEnded
from tests.publishers.python.rig import ISSUER, Queue, ended, files, settings, until


async def test_an_event_arrives_as_the_service_wants_it(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """Persistent, with its id as `message_id` and the connection's user; nothing is left of it on disk."""
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)) as publisher:
        clients = ["shop", Client("mail", no_address=True)]
        event_id = await publisher.publish(ended(clients=clients, reason="terminated"))
        await queue.until(1)
        await until(lambda: not files(tmp_path), lambda: files(tmp_path))
        assert publisher.state.published == 1
    (message,), (event,) = queue.messages, queue.events
    properties = message.properties
    assert (properties.delivery_mode, properties.message_id, properties.user_id) == (2, event_id, "guest")
    assert (properties.content_type, message.routing_key) == ("application/json", "session.ended")
    assert event.pop("ended_at").endswith("Z")
    assert event == {
        "id": event_id, "iss": ISSUER, "sub": "secret-user", "sid": "s1", "reason": "terminated",
        "clients": ["shop", {"client_id": "mail", "backchannel_logout_uri": None}],
    }  # fmt: skip


async def test_events_keep_their_order_in_each_lane(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """Also those that an earlier process left."""
    own = settings(amqp_url, tmp_path, queue.prefix)
    away = settings("amqp://guest:guest@127.0.0.1:1", tmp_path, queue.prefix, drain_limit=0.01)
    async with Publisher(away) as publisher:
        first = [await publisher.publish(ended(f"a{n}"), bulk=n % 3 == 0) for n in range(60)]
    async with Publisher(own) as publisher:
        second = [await publisher.publish(ended(f"b{n}"), bulk=n % 3 == 0) for n in range(60)]
        await queue.until(120)
    sent = first + second
    for bulk in (True, False):
        lane = f"{queue.prefix}.{'bulk' if bulk else 'events'}"
        came = [m.properties.message_id for m in queue.messages if m.exchange == lane]
        assert came == [event_id for n, event_id in enumerate(sent) if (n % 60 % 3 == 0) is bulk]


async def test_an_ending_is_on_disk_before_the_session_goes_and_published_after_it(
    amqp_url: str, queue: Queue, tmp_path: Path
) -> None:
    """Inside the block the file is `.pending`, whole and the owner's alone."""
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)) as publisher:
        async with publisher.ending(ended(), session="key") as ending:
            (pending,) = files(tmp_path)
            assert pending.suffix == ".pending"
            assert (pending.stat().st_mode & 0o777, pending.parent.stat().st_mode & 0o777) == (0o600, 0o700)
            await asyncio.sleep(0)
            assert queue.messages == []
        await queue.until(1)
        assert queue.ids == [ending.id]


async def test_an_ending_that_raises_is_withdrawn(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """What the store raised goes on to the caller, unchanged."""
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)) as publisher:
        with pytest.raises(ConnectionError, match="the store"):
            async with publisher.ending(ended(), session="key"):
                raise ConnectionError("the store is away")
        await until(lambda: not files(tmp_path))
        last = await publisher.publish(ended("s2"))
        await queue.until(1)
    assert queue.ids == [last]


async def test_what_is_no_event_is_refused_at_once_and_ends_no_sign_out(amqp_url: str, tmp_path: Path) -> None:
    """`publish` lists all mistakes; around a deletion nothing is raised."""
    wrong = SessionEnded(iss="", clients=[])
    done = False
    async with Publisher(settings(amqp_url, tmp_path)) as publisher:
        with pytest.raises(EventMistake) as caught:
            await publisher.publish(wrong)
        async with publisher.ending(wrong):
            done = True
        assert publisher.state.lost == 1
    assert isinstance(caught.value, ValueError)
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == ["iss", "clients", "sub"]
    assert done

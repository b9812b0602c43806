"""What is told arrives at a real RabbitMQ, as the service wants it, and in order."""

from pathlib import Path

import pytest
from logout_notifier_publisher import Client, EventMistake, Publisher, SessionEnded

from publishers.tests.python.rig import ISSUER, Queue, ended, files, settings, until
from publishers.tests.tap import properties


async def test_an_event_arrives_as_the_service_wants_it(amqp_url: str, queue: Queue, tmp_path: Path) -> None:
    """Persistent, with its id as `message_id` and the connection's user; nothing is left of it on disk."""
    async with Publisher(settings(amqp_url, tmp_path, queue.prefix)) as publisher:
        clients = ["shop", Client("mail", no_address=True)]
        event_id = await publisher.publish(ended(clients=clients, reason="terminated"))
        await queue.until(1)
        await until(lambda: not files(tmp_path), lambda: files(tmp_path))
        assert publisher.state.published == 1
    (message,), (event,) = queue.came.seen, queue.events
    assert message.properties == properties(event_id, "guest")
    assert event.pop("ended_at").endswith("Z")
    assert event == {
        "id": event_id, "iss": ISSUER, "sub": "secret-user", "sid": "s1", "reason": "terminated",
        "clients": ["shop", {"client_id": "mail", "backchannel_logout_uri": None}],
    }  # fmt: skip


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

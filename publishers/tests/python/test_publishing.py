"""What is told arrives at a real RabbitMQ, as the service wants it, and in order."""

from pathlib import Path

import pytest
from logout_notifier_publisher import EventMistake, Publisher, SessionEnded

from publishers.tests.python.rig import settings


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

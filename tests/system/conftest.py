"""The two kinds of queue that system tests run on."""

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", pytest.param("rabbitmq", marks=pytest.mark.full)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URL and the prefix of a queue, of each kind in turn. Most tests run on RabbitMQ in `make test-all` only."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'q.db'}", "notifier"
    return request.getfixturevalue("amqp_url"), request.getfixturevalue("prefix")

"""Which broker the packages publish to."""

import os

import pytest

from tests.support.rabbitmq_node import RabbitmqNode


@pytest.fixture(scope="session")
def amqp_url(rabbitmq: RabbitmqNode | None) -> str:
    """Return the broker's URL with the default virtual host: proxies and servers here take host and port only."""
    return os.environ["NOTIFIER_TEST_AMQP_URL"] if rabbitmq is None else rabbitmq.url

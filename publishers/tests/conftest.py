"""Which broker the packages publish to."""

import os

import pytest

from tests.support.rabbitmq_node import RabbitmqNode


@pytest.fixture(scope="session")
def amqp_url(rabbitmq: RabbitmqNode | None) -> str:
    """The broker with its default virtual host: proxies and servers here are told host and port alone."""
    return os.environ["NOTIFIER_TEST_AMQP_URL"] if rabbitmq is None else rabbitmq.url

"""A queue of each test's own."""

from collections.abc import AsyncIterator

import pytest

from publishers.tests.python.harness import Queue, queue_at


@pytest.fixture
async def queue(amqp_url: str, bare_prefix: str) -> AsyncIterator[Queue]:
    """Where the events go."""
    async with queue_at(amqp_url, bare_prefix) as queue:
        yield queue

"""What every test may ask for: a broker of our own (or the one that NOTIFIER_TEST_AMQP_URL names), and a queue prefix.

The node is shared by the whole run; a test's queues go with the test, so that it stays light.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.rabbitmq_node import RabbitmqMissing, RabbitmqNode, rabbitmq_node


@contextlib.contextmanager
def _node_or_exit() -> Iterator[RabbitmqNode]:
    with contextlib.ExitStack() as stack:
        try:
            node = stack.enter_context(rabbitmq_node())
        except RabbitmqMissing as missing:
            pytest.exit(str(missing), returncode=4)
        yield node


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitmqNode | None]:
    """The node of this run, None where NOTIFIER_TEST_AMQP_URL names a broker that is not ours to control."""
    if os.environ.get("NOTIFIER_TEST_AMQP_URL"):
        yield None
        return
    with _node_or_exit() as node:
        yield node


@pytest.fixture(scope="session")
def amqp_url(rabbitmq: RabbitmqNode | None) -> str:
    """The broker to test against."""
    return os.environ["NOTIFIER_TEST_AMQP_URL"] if rabbitmq is None else rabbitmq.url


@pytest.fixture
def own_node() -> Iterator[RabbitmqNode]:
    """A node for one test alone, to kill and to throttle. Boots in about 5 s."""
    with _node_or_exit() as node:
        yield node


@pytest.fixture(scope="module")
def module_node() -> Iterator[RabbitmqNode]:
    """A node for the tests of one file, each of which hurts it and leaves it well."""
    with _node_or_exit() as node:
        yield node


@pytest.fixture
def prefix(amqp_url: str) -> Iterator[str]:
    """A queue prefix that is this test's alone. What was declared under it is deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    # In a thread of its own: the fixture is synchronous so that synchronous tests may ask for it too.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _delete_topology(amqp_url, name)).result()


async def _delete_topology(url: str, prefix: str) -> None:
    """Imported here, since most tests need no broker and should not pay for its library."""
    from notifier.adapters.rabbitmq.administration import delete_topology  # noqa: PLC0415
    from notifier.adapters.rabbitmq.options import RabbitOptions  # noqa: PLC0415

    await delete_topology(RabbitOptions(urls=(url,), prefix=prefix))

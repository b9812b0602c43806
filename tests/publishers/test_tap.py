"""The tap of these tests: what it has not seen is lost only if it says nothing of itself."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aio_pika
import pytest
import pytest_asyncio

from notifier.adapters.queues.rabbitmq.administration import delete_topology
from tests.conftest import declare_at_once
from tests.publishers.tap import Tap, TapBroken, tap
from tests.rabbit_options import rabbit_options
from tests.system.tcp_proxy import Ending, TcpProxy, Way

pytestmark = [pytest.mark.full, pytest.mark.asyncio]


@pytest_asyncio.fixture
async def prefix(amqp_url: str) -> AsyncIterator[str]:
    """Of exchanges that are there."""
    made = f"test-{secrets.token_hex(4)}"
    await declare_at_once(amqp_url, made)
    yield made
    await delete_topology(rabbit_options(amqp_url, made))


async def _publish(amqp_url: str, prefix: str, count: int) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(f"{prefix}.events", ensure=False)
        for number in range(count):
            event = {"id": secrets.token_hex(8), "sid": str(number), "clients": ["web"]}
            await exchange.publish(aio_pika.Message(json.dumps(event).encode()), "session.ended")


async def _vain(made: Tap) -> None:
    await made.until(lambda seen: len(seen) > 3, 60)


async def test_what_was_given_to_its_queue_has_come(amqp_url: str, prefix: str) -> None:
    """All of it, once it has caught up; what never comes is then a loss."""
    async with tap(amqp_url, prefix) as made:
        await _publish(amqp_url, prefix, 3)
        await made.catch_up()
        assert [each.sid for each in made.seen] == ["0", "1", "2"]
        with pytest.raises(AssertionError, match="in vain; the last of 3 events"):
            await made.until(lambda seen: len(seen) > 3, 0.1)


async def test_a_tap_that_is_cut_off_or_frozen_says_so(amqp_url: str, prefix: str) -> None:
    """It does not wait in vain for what it cannot hear, and calls nothing lost."""
    broker = urlsplit(amqp_url)
    async with (
        TcpProxy(broker.hostname or "", broker.port or 5672) as proxy,
        tap(amqp_url.replace(f":{broker.port}", f":{proxy.port}"), prefix) as made,
    ):
        proxy.stall(*Way)
        with pytest.raises(TapBroken, match="does not come back"):
            await made.catch_up(0.2)
        waiting = asyncio.create_task(_vain(made))
        await asyncio.sleep(0)
        proxy.end(Ending.RESET)
        with pytest.raises(TapBroken, match="its connection ended"):
            await waiting
        with pytest.raises(TapBroken, match="its connection ended"):
            await made.catch_up()

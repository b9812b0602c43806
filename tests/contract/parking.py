"""Parks, and counts what is parked, for the tests of both queues."""

import asyncio
import time
from collections.abc import Mapping

from notifier.domain.message import LONGEST_PARKED
from notifier.operations.queue_port import Queue
from tests.contract.queues import PATIENCE, outgoing


async def park(queue: Queue, client: tuple[str, str], *messages: str) -> str:
    """Park messages for a client, one after the other. Returns the name of its bucket."""
    bucket = queue.bucket(client)
    for name in messages:
        await queue.park(bucket, outgoing(name), until=time.time() + LONGEST_PARKED)
    return bucket


async def parked(queue: Queue, expected: Mapping[str, int]) -> None:
    """Wait until so many wait in each bucket, and in no other. A broker counts a moment after it confirms."""
    async with asyncio.timeout(PATIENCE):
        while await queue.parked() != expected:  # noqa: ASYNC110  no event tells it
            await asyncio.sleep(0.02)

"""Parks, and counts what is parked, for the tests of both queues."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from notifier.model.errors import QueueUnavailable
from notifier.model.message import MAX_PARKED_SECONDS, Message
from notifier.queues.queue_port import Queue
from tests.contract.queues import PATIENCE, outgoing
from tests.system.waiting import until


async def park(queue: Queue, client: tuple[str, str], *messages: str) -> str:
    """Park messages for a client, one after the other. Returns the name of its bucket."""
    bucket = queue.bucket(client)
    for name in messages:
        await queue.park(bucket, outgoing(name), until=time.time() + MAX_PARKED_SECONDS)
    return bucket


async def parked(queue: Queue, expected: Mapping[str, int]) -> None:
    """Wait until so many wait in each bucket, and in no other. A broker counts a moment after it confirms."""
    await until(queue.count_parked, lambda found: found == expected)


async def fetched_again(queue: Queue, bucket: str, count: int) -> Sequence[Message]:
    """Return so many messages of a bucket once a lost channel has returned them, ordered by id."""
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            with suppress(QueueUnavailable):
                found += await queue.fetch(bucket, count)
            await asyncio.sleep(0.02)
    return sorted(found, key=lambda each: each.message_id or "")

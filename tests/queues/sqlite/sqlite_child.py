"""Another process at an embedded queue, for tests that kill it or let it work beside a worker.

`python -m tests.queues.sqlite.sqlite_child hold|park|churn FILE`.
It writes one line for each fact, each in one write.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from notifier.model.message import Lane, Message
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.contract.queues import Inbox, outgoing


def tell(fact: str) -> None:
    """In one write, so that a kill leaves whole lines."""
    os.write(1, fact.encode() + b"\n")


async def churn(path: Path) -> None:
    """Publish, take and ack until the process is killed."""
    queue = SqliteQueue(SqliteOptions(path=path))
    await queue.open()
    taken = itertools.count()

    def ack_every_second(message: Message) -> None:
        if next(taken) % 2 == 0:
            tell(f"acking {message.message_id}")
            queue.ack(message)

    await queue.consume(Inbox(ack_every_second))

    async def publish(publisher: int) -> None:
        number = 0
        while True:
            number += 1
            await queue.publish(Lane.EVENTS, outgoing(f"{publisher}-{number}"))
            tell(f"confirmed {publisher}-{number}")

    await asyncio.gather(*(publish(publisher) for publisher in range(8)))


async def hold(path: Path) -> None:
    """Publish four, take two of them, and stay."""
    queue = SqliteQueue(SqliteOptions(path=path, prefetch={Lane.EVENTS: 2}))
    await queue.open()
    await queue.consume(Inbox(lambda message: tell(f"taken {message.message_id}")))
    for number in range(4):
        await queue.publish(Lane.EVENTS, outgoing(str(number)))
    tell("published")
    await asyncio.Event().wait()


async def park(path: Path) -> None:
    """Park five, fetch two of them, ack the second, and stay."""
    queue = SqliteQueue(SqliteOptions(path=path))
    await queue.open()
    await queue.consume(Inbox())
    bucket = queue.bucket(("https://id.example.com", "shop"))
    for number in range(5):
        await queue.park(bucket, outgoing(str(number)), until=9e9)
    fetched = await queue.fetch(bucket, 2)
    for message in fetched:
        tell(f"fetched {message.message_id}")
    queue.ack(fetched[1])
    await queue.publish(Lane.BULK, outgoing("behind"))  # so that the ack is durable
    tell(f"acked {fetched[1].message_id}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    job, file = sys.argv[1:]
    match job:
        case "park":
            asyncio.run(park(Path(file)))
        case "churn":
            asyncio.run(churn(Path(file)))
        case "hold":
            asyncio.run(hold(Path(file)))

"""Holds all dead letters until it is killed: `python -m tests.contract.pass_holder URL PREFIX`."""

import asyncio
import sys

from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.queues.rabbitmq.queue import RabbitQueue
from tests.support.rabbit_options import rabbit_options


async def _hold(url: str, prefix: str) -> None:
    dead_letters = RabbitQueue(rabbit_options(url, prefix)).dead_letters()
    async with DeadLetterFilter().open_pass(dead_letters, whole=False) as queue_pass:
        while await queue_pass.next_page():
            pass
        sys.stdout.write("held\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_hold(*sys.argv[1:]))

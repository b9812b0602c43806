"""Measures `notifier dead-letters list` beside a slow replay, and after another, on a private RabbitMQ.

    python -m benchmarks.beside_replay [--dead-letters 100000] [--rate 5] [--seconds 240]

Prints the seconds of each list, and what it printed. A list beside the replay should take at most twice as long as one
alone, and 10 s. The result is a ratio, since both depend on the machine's load.
"""

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Mapping
from statistics import median

from notifier.model.documents.dead_letter import dump_dead_letter
from notifier.model.message import DEAD
from notifier.queues.rabbitmq.administration import delete_topology
from notifier.queues.rabbitmq.queue import RabbitQueue
from tests.contract.dead_letter_samples import dead_letter
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import rabbitmq_node

PUBLISHED_TOGETHER = 1000
ROUNDS = 3


async def fill(url: str, prefix: str, count: int) -> None:
    """Store so many dead letters, a tenth of them of the client `shop`."""
    queue = RabbitQueue(rabbit_options(url, prefix))
    await queue.open()
    await queue.wait_until_ready()
    for start in range(0, count, PUBLISHED_TOGETHER):
        numbers = range(start, min(count, start + PUBLISHED_TOGETHER))
        clients = {number: f"c{number % 100}" if number % 10 else "shop" for number in numbers}
        letters = (dead_letter(f"d-{number}", client_id=client) for number, client in clients.items())
        await asyncio.gather(*(queue.publish(DEAD, dump_dead_letter(letter)) for letter in letters))
    await queue.close()


class Commands:
    """Runs commands on dead letters."""

    def __init__(self, url: str, prefix: str) -> None:
        self._environ: Mapping[str, str] = {
            **os.environ, "NOTIFIER_QUEUE__URL": url, "NOTIFIER_QUEUE__PREFIX": prefix, "NOTIFIER_LOG__LEVEL": "error",
        }  # fmt: skip

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command."""
        command = (sys.executable, "-m", "notifier", "dead-letters", *arguments)
        return await asyncio.create_subprocess_exec(
            *command, env=self._environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )

    async def run(self, text: str, *arguments: str) -> float:
        """Run a command, and print its last line. Return the seconds, or infinity if it failed."""
        began_at = time.perf_counter()
        process = await self.start(*arguments)
        output, _ = await process.communicate()
        seconds = time.perf_counter() - began_at
        last = output.decode().strip().splitlines()[-1:]
        sys.stdout.write(f"{text}: {seconds:.1f} s, exit status {process.returncode}: {' '.join(last)[:110]}\n")
        sys.stdout.flush()
        return seconds if process.returncode == 0 else float("inf")


async def measure(url: str, count: int, rate: float, seconds: float) -> bool:
    """Measure lists alone, after a short replay, and beside a slow one. Return True if all succeed in time."""
    prefix = f"bench-{secrets.token_hex(4)}"
    await fill(url, prefix, count)
    commands = Commands(url, prefix)
    alone = [await commands.run("list alone", "list") for _ in range(ROUNDS)]
    for _ in range(ROUNDS):
        await commands.run("replay of 5", "replay", "--all", "--limit", "5", "--wait", "0")
        alone.append(await commands.run("list right after", "list"))
    until = time.perf_counter() + seconds
    replay = await commands.start("replay", "--client-id", "shop", "--rate", f"{rate}", "--wait", "0")
    beside = []
    while time.perf_counter() < until and replay.returncode is None:
        beside.append(await commands.run("list beside a replay", "list"))
    replay.terminate()
    await replay.communicate()
    await delete_topology(rabbit_options(url, prefix))
    ratios = [(taken - 10) / median(alone) for taken in beside]
    sys.stdout.write(f"(list beside - 10 s) / list alone: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; at most 2\n")
    return max(ratios) <= 2


def main() -> None:
    """Measure. The exit status is 1 if a list failed or took too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dead-letters", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=240.0)
    given = parser.parse_args()
    with rabbitmq_node() as node:
        ok = asyncio.run(measure(node.url, given.dead_letters, given.rate, given.seconds))
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()

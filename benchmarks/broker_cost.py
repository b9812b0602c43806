"""Measures the processor time that RabbitMQ spends on an event: to confirm it, and to hand it out.

    python -m benchmarks.broker_cost --json FILE

Events of one client, persistent, to the queue that notifier declares, with its prefetch; acked one by one. With the
private node only, since the time of another broker cannot be read.
"""

import argparse
import asyncio
import contextlib
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import uvloop

from benchmarks import figures
from benchmarks.processes import TICKS
from benchmarks.record import merge
from benchmarks.rig import IN_MEMORY, answer
from benchmarks.throughput_run import Case
from notifier.queues.rabbitmq.administration import declare_topology, delete_topology
from notifier.queues.rabbitmq.options import RabbitOptions
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node
from tests.system.broker import broker

CASE = Case(queue="rabbitmq", alg="ES256", fan_out=1)
PREFETCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """µs of processor time an event, over the rounds: published, consumed and acked, and both."""

    version: str
    events: int
    published: figures.Spread
    consumed: figures.Spread
    both: figures.Spread


async def once(node: RabbitmqNode, events: int) -> tuple[float, float]:
    """Return the µs that an event costs when it is published, and when it is taken."""
    assert node._server is not None
    pid, prefix = node._server.pid, f"bench-{secrets.token_hex(4)}"
    options = RabbitOptions(urls=(node.url,), prefix=prefix)
    await declare_topology(options)
    try:
        async with broker(node.url, prefix) as publisher:
            begun = cpu_of_session(pid)
            await publisher.publish_all(CASE.events(events))
            published = cpu_of_session(pid)
        await _take(node.url, prefix, events)
        taken = cpu_of_session(pid)
    finally:
        await delete_topology(options)
    return 1e6 * (published - begun) / events, 1e6 * (taken - published) / events


def cpu_of_session(leader: int) -> float:
    """Processor seconds of all processes of this session, with those of their dead children."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = file.read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15])) if int(fields[3]) == leader else 0
    return ticks / TICKS


async def _take(url: str, prefix: str, events: int) -> None:
    done, left = asyncio.Event(), events

    async def ack(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal left
        await message.ack()
        left -= 1
        if not left:
            done.set()

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(PREFETCH)
        queue = await channel.get_queue(f"{prefix}.events", ensure=False)
        await queue.consume(ack)
        async with asyncio.timeout(300):
            await done.wait()


async def measure(node: RabbitmqNode, events: int, rounds: int) -> Report:
    """Measure so many rounds."""
    found = [await once(node, events) for _ in range(rounds)]
    return Report(
        version=node.version,
        events=events,
        published=figures.spread([published for published, _ in found]),
        consumed=figures.spread([taken for _, taken in found]),
        both=figures.spread([sum(each) for each in found]),
    )


def main() -> int:
    """Return 0 when every event was taken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.broker_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000, help="of each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="put all figures there")
    given = parser.parse_args()
    with rabbitmq_node(under=IN_MEMORY if IN_MEMORY.is_dir() else None) as node:
        found = uvloop.run(measure(node, given.events, given.rounds))
    told = f"{found.published:.0f} published and confirmed, {found.consumed:.0f} taken and acked, {found.both:.0f} both"
    answer().print(f"RabbitMQ {found.version}, µs of processor time an event: {told}")
    merge(given.json, {f"broker-{found.version}": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Parts of all benchmarks: cores, an installation, a publisher on a schedule, and output.

Only loopback. All moments are of the monotonic clock, which all processes of a machine share.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import aio_pika
from rich.console import Console
from rich.table import Table

from notifier.queues.rabbitmq.administration import declare_topology, delete_topology
from notifier.queues.rabbitmq.options import RabbitOptions
from tests.support.rabbitmq_node import rabbitmq_node
from tests.system.broker import Broker, broker
from tests.system.site import ISSUER, Site, client

IN_MEMORY = Path("/dev/shm")

# ── cores ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of the workers (one each, if there are enough) and those of everything else."""

    workers: tuple[int, ...]
    rest: frozenset[int]

    def of_worker(self, number: int) -> set[int]:
        """The cores of one worker."""
        return {self.workers[number % len(self.workers)]}


def share_cores(workers: int) -> Cores:
    """Share out the cores. At least one core is for everything else; a single core is for all."""
    cores = sorted(os.sched_getaffinity(0))
    taken = cores[: max(1, min(workers, len(cores) - 1))]
    return Cores(tuple(taken), frozenset(cores[len(taken) :] or cores))


# ── the installation ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The service's settings: `delivery`, and the level of its log."""

    delivery: Mapping[str, object]
    log_level: str = "info"


@contextlib.asynccontextmanager
async def installation(url: str, ports: Sequence[int], setup: Setup) -> AsyncIterator[tuple[Site, Broker]]:
    """Create queues, configuration and clients, `client-0` at the first port and so on; all are deleted at the end."""
    prefix = f"bench-{secrets.token_hex(4)}"
    options = RabbitOptions(urls=(url,), prefix=prefix)
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as folder:
        site = Site(Path(folder), url, prefix)
        site.config["delivery"] = dict(setup.delivery)
        site.config["log"] = {"level": setup.log_level, "format": "json"}
        site.config["metrics"] = {"max_clients": len(ports)}
        del site.config["api"]
        site.write()
        site.write_clients([client(name(number), f"http://127.0.0.1:{port}/") for number, port in enumerate(ports)])
        await declare_topology(options)
        try:
            async with broker(url, prefix) as rabbit:
                yield site, rabbit
        finally:
            await delete_topology(options)


def name(number: int) -> str:
    """The `client_id` of a client."""
    return f"client-{number}"


# ── publishing ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its number, and the numbers of its clients."""

    number: int
    clients: tuple[int, ...]

    @property
    def body(self) -> dict[str, object]:
        """Encode an event."""
        return {
            "id": f"event-{self.number}",
            "iss": ISSUER,
            "sub": "alice",
            "sid": f"session-{self.number}",
            "clients": [name(number) for number in self.clients],
        }


async def publish_all(rabbit: Broker, events: Iterable[Event]) -> None:
    """Publish as fast as the broker confirms."""
    await rabbit.publish_all(event.body for event in events)


async def publish_on_schedule(rabbit: Broker, events: Sequence[Event], rate: float, start: float) -> list[float]:
    """Publish event i at `start` + i ÷ `rate`, whatever became of those before. Returns how many seconds late each was.

    Latencies are to be taken from the schedule, so that a publisher or a broker held up shows in them.
    """
    late = []
    async with asyncio.TaskGroup() as group:
        for number, event in enumerate(events):
            at = start + number / rate
            if (wait := at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            late.append(time.monotonic() - at)
            group.create_task(rabbit.publish(event.body))
    return late


def encoded(event: Mapping[str, object]) -> bytes:
    """Encode an event."""
    return json.dumps(event).encode()


async def publish_unconfirmed(
    url: str, prefix: str, events: Iterable[Mapping[str, object]], arrived: Callable[[], Awaitable[object]]
) -> None:
    """As fast as can be; `arrived` returns once all have come.

    The connection stays until then: when it closed at once, RabbitMQ 3.10.8 lost the last few in one run of a hundred.
    """
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.get_exchange(f"{prefix}.events", ensure=False)
        for event in events:
            message = aio_pika.Message(encoded(event), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await exchange.publish(message, "session.ended", mandatory=False)
        await arrived()


# ── running one by hand ─────────────────────────────────────────────────────────────────────────────────────────


def command_line(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The arguments that benchmarks share; `doc` is the module's docstring."""
    assert doc is not None
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0])
    parser.add_argument("--url", help="a RabbitMQ that may be used (default: a private node)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="put all figures there; - for stdout")
    return parser


@contextlib.contextmanager
def machine(url: str | None, workers: int = 1) -> Iterator[tuple[str, Cores]]:
    """The broker that was given, or a private node; and the cores, of which this process keeps those left by workers.

    The node and the receivers inherit that. The node's data is in memory: a slow moment of a disk would be felt in
    one turn and not in the next.
    """
    cores = share_cores(workers)
    os.sched_setaffinity(0, cores.rest)
    if url is not None:
        yield url, cores
        return
    with rabbitmq_node(under=IN_MEMORY if IN_MEMORY.is_dir() else None) as node:
        yield node.url, cores


def described() -> dict[str, object]:
    """Describe the machine."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "cores": os.cpu_count(),
        "processor": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def plain(record: object) -> object:
    """Of dataclasses, for JSON, where NaN and infinity do not exist."""
    if hasattr(record, "__dataclass_fields__"):
        return plain(asdict(record))  # type: ignore[call-overload]
    if isinstance(record, Mapping):
        return {str(key): plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple, frozenset)):
        return [plain(value) for value in record]
    if isinstance(record, float):
        return round(record, 6) if math.isfinite(record) else None
    return record


def write_json(file: Path | None, record: object) -> None:
    """Write to the file. `-` is stdout."""
    text = json.dumps(plain(record), indent=2) + "\n"
    if file is None:
        return
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        file.write_text(text)


def console() -> Console:
    """The console for progress: stderr, so that stdout holds only the answer."""
    return Console(stderr=True, highlight=False)


def answer(json_file: Path | None = None) -> Console:
    """Return the console for tables: stdout, unless the JSON goes there. Without a terminal it is wide."""
    to_stderr = str(json_file) == "-"
    made = Console(stderr=to_stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=to_stderr, highlight=False, width=180)


def table_of(title: str, headings: Sequence[str], *, left: int = 1) -> Table:
    """An empty table. The columns after the first few hold figures, which stand on the right."""
    made = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="left" if number < left else "right")
    return made

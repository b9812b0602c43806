"""Measures what others feel of an attack on the API's listener: the same load without and with the attack, by turns.

    python -m benchmarks.attacks --case "wrong token" --queue rabbitmq --json FILE

A publisher with a token sends 20 events a second. A stranger, which has no token, reads the API's description over a
new connection each time; it comes from the attacker's address. A probe asks `/livez`. Latencies count from the second
second on. The attacker is another process. Not measured here: memory (`tests/faults/test_connection_floods.py`).
"""

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.attackers import ATTACKS, OVER_TLS, TOKEN, attack
from benchmarks.processes import BenchWorker, bench_worker, receivers
from benchmarks.record import merge
from benchmarks.rig import IN_MEMORY, answer, command_line, console, table_of
from notifier.queues.rabbitmq.administration import declare_topology
from notifier.queues.rabbitmq.options import RabbitOptions
from tests.support.certificates import authority
from tests.support.rabbitmq_node import free_ports, rabbitmq_node
from tests.system.site import API_TOKEN, ISSUER, Site, client

RATE = 20.0  # events a second; requests of the stranger and the probe a second
TIMEOUT = 30.0  # seconds for an answer
REQUIRED_RATIO = 2.0  # of the 99th percentile of publishing, to that without the attack
REQUIRED_WORST = 1.0  # seconds of any answer
READERS = ("publisher", "stranger", "probe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Of one reader in one turn, in seconds."""

    p50: float
    p99: float
    worst: float
    answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One attack: the readers' latencies without and with it, and what the attacker got, by status."""

    queue: str
    seconds: float
    calm: dict[str, Latencies]
    attacked: dict[str, Latencies]
    attacker: dict[str, int]
    worker_cpu: float  # of a core, during the attack

    @property
    def met(self) -> bool:
        """True if publishing takes at most twice as long as without the attack, and no answer more than a second."""
        ratio = self.attacked["publisher"].p99 / self.calm["publisher"].p99
        return ratio <= REQUIRED_RATIO and max(each.worst for each in self.attacked.values()) <= REQUIRED_WORST


class Readers:
    """The publisher, the stranger and the probe. `ssl`: of the API, if it has TLS."""

    def __init__(self, api: str, ops: str, tls: ssl.SSLContext | None) -> None:
        self._api = api
        self._ops = ops
        self._tls = tls or True
        self._number = 0

    async def measure(self, seconds: float) -> dict[str, Latencies]:
        """Send requests for so many seconds on a schedule, without waiting for the answers to earlier ones."""
        bearer = {"Authorization": f"Bearer {API_TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=bearer) as publisher,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as stranger,
            aiohttp.ClientSession() as probe,
        ):
            asked = await asyncio.gather(
                self._on_schedule(0.0, seconds, partial(self._publish, publisher)),
                self._on_schedule(0.3, seconds, partial(self._get, stranger, f"{self._api}/v1/openapi.json")),
                self._on_schedule(0.6, seconds, partial(self._get, probe, f"{self._ops}/livez")),
            )
        return dict(zip(READERS, asked, strict=True))

    async def _on_schedule(self, offset: float, seconds: float, ask: Callable[[], Awaitable[None]]) -> Latencies:
        start, tasks = time.monotonic() + offset / RATE, []
        for number in range(round(seconds * RATE)):
            await asyncio.sleep(max(0.0, start + number / RATE - time.monotonic()))
            tasks.append(asyncio.create_task(self._latency(ask, start + number / RATE)))
        taken = sorted((await asyncio.gather(*tasks))[round(RATE) :])  # from the second second on
        return Latencies(
            p50=taken[len(taken) // 2], p99=taken[int(len(taken) * 0.99)], worst=taken[-1], answers=len(taken)
        )

    @staticmethod
    async def _latency(ask: Callable[[], Awaitable[None]], since: float) -> float:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await ask()
        return time.monotonic() - since

    async def _publish(self, session: aiohttp.ClientSession) -> None:
        self._number += 1
        event = {"id": f"event-{self._number}", "iss": ISSUER, "sid": "s", "clients": ["client-0", "client-1"]}
        async with session.post(f"{self._api}/v1/events", json=event, ssl=self._tls) as response:
            assert response.status == 202, await response.text()

    async def _get(self, session: aiohttp.ClientSession, url: str) -> None:
        while True:  # a connection that is closed in favour of a newer one is tried again
            with contextlib.suppress(aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                async with session.get(url, ssl=self._tls) as response:
                    assert response.status == 200, await response.text()
                    await response.read()
                    return


@contextlib.contextmanager
def queue_of(kind: str, folder: Path) -> Iterator[str]:
    """An embedded queue, or that of a private RabbitMQ with its data in memory."""
    if kind == "sqlite":
        yield f"sqlite:{folder / 'queue.db'}"
        return
    with rabbitmq_node(under=IN_MEMORY if IN_MEMORY.is_dir() else None) as node:
        yield node.url


@contextlib.asynccontextmanager
async def attacked_worker(kind: str, *, tls: bool) -> AsyncIterator[tuple[Readers, int, BenchWorker]]:
    """Start a worker with two healthy clients. Yields its readers, the port of its API, and the worker."""
    async with receivers() as played:
        await played.open(2)
        with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name, queue_of(kind, Path(name)) as url:
            folder = Path(name)
            site = Site(folder, url)
            context = None
            if tls:
                issued = authority(folder)
                site.config["api"]["tls"] = {"cert_file": str(issued.issue("localhost")), "key_file": None}
                site.config["api"]["tls"]["key_file"] = site.config["api"]["tls"]["cert_file"]
                context = ssl.create_default_context(cafile=issued.ca_file)
            [port] = free_ports(1)
            site.config["api"]["listen"] = f"127.0.0.1:{port}"
            site.config["log"] = {"level": "info", "format": "json"}
            tokens = [{"name": name, "token": token, "scopes": ["publish"]} for name, token in
                      (("idp", API_TOKEN), ("attacker", TOKEN))]  # fmt: skip
            (folder / "tokens.yaml").write_text(json.dumps(tokens))
            site.write_clients([client(f"client-{n}", f"http://127.0.0.1:{port}/") for n, port in
                                enumerate(played.ports)])  # fmt: skip
            site.write()
            if kind != "sqlite":
                await declare_topology(RabbitOptions(urls=(url,), prefix=site.prefix))
            async with bench_worker(site) as worker:
                scheme = "https" if tls else "http"
                yield Readers(f"{scheme}://localhost:{port}", worker.ops, context), port, worker


async def measure(name: str, kind: str, seconds: float) -> Report:
    """Measure one attack."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as attackers:
        await loop.run_in_executor(attackers, abs, 0)  # the process starts before anything is measured
        async with attacked_worker(kind, tls=name in OVER_TLS) as (readers, port, worker):
            await readers.measure(2)  # warm up
            calm = await readers.measure(seconds)
            before = worker.cpu()
            attacking = loop.run_in_executor(attackers, attack, name, port, seconds)
            attacked = await readers.measure(seconds)
            cpu = (worker.cpu() - before) / seconds
            return Report(
                queue=kind, seconds=seconds, calm=calm, attacked=attacked, attacker=await attacking, worker_cpu=cpu
            )


def main() -> int:
    """Return 0 if all requirements are met, else 1."""
    parser: argparse.ArgumentParser = command_line("attacks", __doc__)
    parser.add_argument("--case", action="append", choices=list(ATTACKS), help="may be repeated; default: all")
    parser.add_argument("--queue", choices=("sqlite", "rabbitmq"), default="sqlite", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of each turn (%(default)s)")
    given = parser.parse_args()
    made = table_of(
        f"Latencies with an attack (without it) in ms; {given.queue}",
        (
            "attack",
            *(f"{reader}, {figure}" for reader in READERS for figure in ("p99", "worst")),
            "attacker",
            "worker",
            "",
        ),
    )
    met = True
    for name in given.case or ATTACKS:
        console().print(f"[bold]{name}[/bold]")
        report = uvloop.run(measure(name, given.queue, given.seconds))
        met &= report.met
        merge(given.json, {f"{given.queue}, {name}": report})
        figures = [
            f"{1000 * getattr(report.attacked[reader], figure):.0f} ({1000 * getattr(report.calm[reader], figure):.0f})"
            for reader in READERS
            for figure in ("p99", "worst")
        ]
        told = ", ".join(f"{count} {what}" for what, count in sorted(report.attacker.items()))
        made.add_row(name, *figures, told, f"{report.worker_cpu:.0%}", "met" if report.met else "missed")
    answer(given.json).print(made)
    return int(not met)


if __name__ == "__main__":
    gc.disable()  # a search for cycles holds the readers for some 10 ms
    sys.exit(main())

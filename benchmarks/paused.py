"""Measures a worker's memory when all of its clients are paused, or down: one delivery for each of 100,000 waits.

    python -m benchmarks.paused [--clients 100000] [--down]

Each client answers its delivery by 503 and `Retry-After: 3600`; with `--down` by 503 alone. The queue is an embedded
one, so no memory of the worker serves a broker. Prints a line of JSON, and ends by itself.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass

import uvloop
from aiohttp import web

from benchmarks.processes import bench_worker
from benchmarks.rig import Cores
from benchmarks.stand_in import StandIn
from benchmarks.throughput_run import PATIENCE, Bench, Case
from tests.system.loopback import LoopbackServer
from tests.system.waiting import until

ASKED = {"Retry-After": "3600"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """MiB when the worker was ready, when each client had answered, and at most."""

    clients: int
    ready: float
    waiting: float
    peak: float


async def measure(clients: int, *, down: bool) -> Paused:
    """Let a worker meet each client."""
    met, receiver = set[str](), StandIn(keep=0)

    async def take(request: web.BaseRequest) -> web.Response:
        met.add(request.path)
        return web.Response(status=503, headers={} if down else ASKED)

    async def count() -> int:
        return len(met)

    case = Case(queue="sqlite", alg="ES256", fan_out=1, clients=clients)
    async with LoopbackServer(take) as server:
        receiver.port = server.port
        bench = Bench("", receiver, case, Cores((), frozenset()), deliveries=clients)
        async with bench.installed() as site, bench_worker(site, patience=PATIENCE) as worker:
            ready = worker.memory()
            await until(count, lambda seen: seen == clients, PATIENCE)
            return Paused(clients=clients, ready=ready, waiting=worker.memory(), peak=worker.peak())


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--down", action="store_true", help="the clients ask for no pause")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(asdict(uvloop.run(measure(given.clients, down=given.down)))) + "\n")


if __name__ == "__main__":
    main()

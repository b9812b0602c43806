"""Measures a worker that reads 100,000 clients from a database: its start, its refreshes, its memory, its event loop.

    python -m benchmarks.registry_refresh [--clients 100000] [--rounds 3]

Beside each other: a clients file (JSON and YAML), PostgreSQL and MariaDB. After the start, rounds of refreshes in which
nothing, one client, a hundredth and all clients changed. Prints a line of JSON for each database, and ends by itself.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.lag import Lag, Questions, questions
from benchmarks.processes import BenchWorker, bench_worker
from benchmarks.starting import PATIENCE, write_registry
from tests.support.databases import DatabaseServer, mariadb, postgresql
from tests.support.rabbitmq_node import free_ports
from tests.system.site import ISSUER, Site

TABLE = (
    "CREATE TABLE rp (client_id varchar(200) PRIMARY KEY, backchannel_logout_uri varchar(400),"
    " backchannel_logout_session_required boolean, id_token_signed_response_alg varchar(10))"
)
ADDRESS = "https://client-{}.example.com/backchannel-logout?tenant=0"
IDLE = 2.0  # seconds of an idle worker, to tell what the machine itself costs


@contextlib.contextmanager
def filled(database: contextlib.AbstractContextManager[DatabaseServer], clients: int) -> Iterator[DatabaseServer]:
    """The database with the clients."""
    with database as server:
        server.run(TABLE)
        for first in range(0, clients, 5000):
            rows = (
                f"('client-{n}', '{ADDRESS.format(n)}', true, 'ES256')"
                for n in range(first, min(clients, first + 5000))
            )
            server.run(f"INSERT INTO rp VALUES {', '.join(rows)}")
        server.run("GRANT SELECT ON rp TO reader" + ("" if server.scheme == "postgresql" else "@'127.0.0.1'"))
        yield server


def change(server: DatabaseServer, most: int, clients: int) -> None:
    """Give so many clients another address."""
    if most:
        names = ", ".join(f"'client-{number}'" for number in range(most))
        chosen = f"WHERE client_id IN ({names})" if most < clients else ""
        server.run(f"UPDATE rp SET backchannel_logout_uri = concat(backchannel_logout_uri, 'x') {chosen}")


def site(folder: Path, **registry: Any) -> tuple[Site, int]:
    """An installation on the embedded queue, and the port of its API."""
    made = Site(folder, "sqlite:queue.db")
    [port] = free_ports(1)
    made.config["api"] = {"listen": f"127.0.0.1:{port}"}
    made.config["registry"] = registry
    made.config["log"] = {"level": "warning", "format": "json"}
    made.write()
    return made, port


async def start_from_file(clients: int, kind: str) -> dict[str, float]:
    """Seconds until a worker with a clients file is ready, and its memory in MiB."""
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name:
        made, _ = site(Path(name), file=f"clients.{kind}")
        write_registry(Path(name) / f"clients.{kind}", clients, kind)
        began = time.monotonic()
        async with bench_worker(made, patience=PATIENCE) as worker:
            return {"ready": time.monotonic() - began, "memory": worker.memory()}


async def refreshes(server: DatabaseServer, clients: int, rounds: int) -> dict[str, Any]:
    """What a worker costs that reads its clients there."""
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name:
        source = {
            "name": "db",
            "issuer": ISSUER,
            "every": "10m",
            "sql": {"url": server.url, "query": "SELECT * FROM rp"},
        }
        made, port = site(Path(name), cache="cache", sources=[source])
        began = time.monotonic()
        async with bench_worker(made, patience=PATIENCE) as worker:
            found: dict[str, Any] = {"ready": time.monotonic() - began, "memory": worker.memory()}
            with questions(worker.ops) as asked:
                await asyncio.sleep(IDLE)
                found["idle"] = asdict(asked.lag())
                for _ in range(rounds):
                    for what, most in {"nothing": 0, "one": 1, "a hundredth": clients // 100, "all": clients}.items():
                        await asyncio.to_thread(change, server, most, clients)
                        found.setdefault(what, []).append(await _refresh(asked, worker, port))
            return found


async def _refresh(asked: Questions, worker: BenchWorker, port: int) -> dict[str, Any]:
    began = time.monotonic()
    url = f"http://127.0.0.1:{port}/v1/reload"
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url) as answer:
        reloads = await answer.json()
    assert reloads["taken"], reloads
    await asyncio.sleep(0.2)  # what frees the old follows
    lag: Lag = asked.lag(since=began)
    return {"seconds": time.monotonic() - began - 0.2, "peak": worker.peak(), **asdict(lag)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for kind in ("json", "yaml"):
        print(json.dumps({"file": kind, **asyncio.run(start_from_file(asked.clients, kind))}), flush=True)  # noqa: T201
    for database in (postgresql, mariadb):
        with filled(database(), asked.clients) as server:
            found = asyncio.run(refreshes(server, asked.clients, asked.rounds))
            print(json.dumps({"database": server.scheme, **found}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

"""Outcomes of a worker that runs as its own process, on both queues."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aio_pika

from tests.system.clients import Clients, Hit
from tests.system.site import ISSUER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

PATIENCE = 60.0
EVENTS = 3


def judge(hit: Hit) -> int:
    """One client takes all; another refuses all; a third is broken when it is first asked for a session."""
    return {"/takes": 200, "/refuses": 403, "/breaks": 503 if hit.nth == 1 else 200}[hit.path]


def site_of(folder: Path, queue_url: str, clients: Clients, prefix: str = "notifier") -> Site:
    site = Site(folder, queue_url, prefix)
    site.config["outcomes"] = "all"
    site.config["delivery"] |= {"timeout": "60s"}
    site.write()
    site.write_clients([client(name, clients.url(name)) for name in ("takes", "refuses", "breaks")])
    return site


async def play(running: WorkerProcess, clients: Clients) -> list[tuple[str, str, str]]:
    """Publish, and wait until all is settled; what must be told: each client's fate and `jti`, in any order."""
    for number in range(EVENTS):
        event = {"iss": ISSUER, "sid": f"s{number}", "sub": "alice", "clients": "*", "id": f"e{number}"}
        status, _ = await running.post(event)
        assert status == 202
    await running.until_metric(2 * EVENTS, "deliveries_settled_total", fate="delivered")
    await running.until_metric(EVENTS, "deliveries_settled_total", fate="dead")
    fates = {"/takes": ("delivered",), "/refuses": ("dead",), "/breaks": ("retrying", "delivered")}
    return sorted((hit.path[1:], fates[hit.path][hit.nth - 1], hit.claims["jti"]) for hit in clients.hits)


async def until_told(seen: Callable[[], list[tuple[str, str, str]]], wanted: list[tuple[str, str, str]]) -> None:
    async def ask() -> list[tuple[str, str, str]]:
        return sorted(seen())

    await until(ask, lambda told: told == wanted, PATIENCE)


async def test_on_rabbitmq(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """Whoever binds a queue hears of every attempt that settled something, by the `jti` that the client was sent."""
    told: list[dict[str, Any]] = []

    async def keep(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        data = json.loads(message.body)["data"]
        if "fate" in data:  # not a notice about a client
            told.append(data)

    async with Clients(judge) as clients:
        site = site_of(tmp_path, amqp_url, clients, prefix)
        async with worker(site) as running, await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(await channel.get_exchange(f"{prefix}.outcomes"), "#")
            await queue.consume(keep, no_ack=True)
            wanted = await play(running, clients)
            await until_told(lambda: [(one["client_id"], one["fate"], one["jti"]) for one in told], wanted)
            assert await running.metric("outcomes_dropped_total") == 0
            assert await running.stop() == 0


async def test_on_the_embedded_queue(tmp_path: Path) -> None:
    """They are in the queue's own file at the latest when the worker has stopped."""
    async with Clients(judge) as clients:
        async with worker(site_of(tmp_path, "sqlite:q.db", clients)) as running:
            wanted = await play(running, clients)
            assert await running.metric("outcomes_dropped_total") == 0
            assert await running.stop() == 0
        with closing(sqlite3.connect(tmp_path / "q.db")) as database:
            told = database.execute("SELECT client_id, fate, jti FROM outcomes WHERE delivery_id != ''").fetchall()
        assert sorted(told) == wanted
        with closing(sqlite3.connect(tmp_path / "q.db")) as database:
            whole = str(database.execute("SELECT * FROM outcomes").fetchall())
        assert "alice" not in whole

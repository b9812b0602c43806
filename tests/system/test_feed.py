"""Outcomes of a worker that runs as its own process."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.system.clients import Clients, Hit
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import WorkerProcess, worker

EVENTS = 3


def judge(hit: Hit) -> int:
    """One client takes all; another refuses all; a third is broken when it is first asked for a session."""
    return {"/takes": 200, "/refuses": 403, "/breaks": 503 if hit.nth == 1 else 200}[hit.path]


def site_of(folder: Path, clients: Clients) -> Site:
    site = Site(folder, "sqlite:q.db")
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


async def test_on_the_embedded_queue(tmp_path: Path) -> None:
    """They are in the queue's own file at the latest when the worker has stopped."""
    async with Clients(judge) as clients:
        async with worker(site_of(tmp_path, clients)) as running:
            wanted = await play(running, clients)
            assert await running.metric("outcomes_dropped_total") == 0
            assert await running.stop() == 0
        with closing(sqlite3.connect(tmp_path / "q.db")) as database:
            told = database.execute("SELECT client_id, fate, jti FROM outcomes WHERE delivery_id != ''").fetchall()
        assert sorted(told) == wanted
        with closing(sqlite3.connect(tmp_path / "q.db")) as database:
            whole = str(database.execute("SELECT * FROM outcomes").fetchall())
        assert "alice" not in whole

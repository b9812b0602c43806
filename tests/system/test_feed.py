"""Outcomes of a worker that runs as its own process."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.system.clients import Clients, Hit
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

EVENTS = 3
FATES = {"/takes": ("delivered",), "/refuses": ("dead",), "/breaks": ("retrying", "delivered")}


def judge(hit: Hit) -> int:
    """One client accepts all, another refuses all, and a third fails at the first request for a session."""
    return {"delivered": 200, "dead": 403, "retrying": 503}[FATES[hit.path][hit.nth - 1]]


async def test_on_the_embedded_queue(tmp_path: Path) -> None:
    """They are in the queue's own file at the latest when the worker has stopped, and name no user."""
    async with Clients(judge) as clients:
        site = Site(tmp_path, "sqlite:q.db")
        site.config["outcomes"] = "all"
        site.config["delivery"] |= {"timeout": "60s"}
        site.write()
        site.write_clients([client(path[1:], clients.url(path[1:])) for path in FATES])
        async with worker(site) as running:
            for number in range(EVENTS):
                event = {"iss": ISSUER, "sid": f"s{number}", "sub": "alice", "clients": "*", "id": f"e{number}"}
                assert (await running.post(event))[0] == 202
            await running.until_metric(2 * EVENTS, "deliveries_settled_total", fate="delivered")
            await running.until_metric(EVENTS, "deliveries_settled_total", fate="dead")
            assert await running.metric("outcomes_dropped_total") == 0
            assert await running.stop() == 0
        with closing(sqlite3.connect(tmp_path / "q.db")) as database:
            reported = database.execute("SELECT client_id, fate, jti FROM outcomes WHERE delivery_id != ''").fetchall()
            whole = str(database.execute("SELECT * FROM outcomes").fetchall())
        wanted = [(hit.path[1:], FATES[hit.path][hit.nth - 1], hit.claims["jti"]) for hit in clients.hits]
        assert sorted(reported) == sorted(wanted)
        assert "alice" not in whole

"""A client's address vanishes from the registry for a while: its deliveries end by an answer or as dead letters."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.system.broker import Broker, broker
from tests.system.clients import Clients
from tests.system.command import notifier
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import WorkerProcess, worker

COUNT = 30
SESSIONS = [f"s{number}" for number in range(COUNT)]


def event(sid: str) -> dict[str, object]:
    """One session at one client."""
    return {"id": f"e-{sid}", "iss": ISSUER, "sub": "alice", "sid": sid, "clients": ["shop"]}


def entries(clients: Clients, change: str) -> list[dict[str, object]]:
    """The clients file after this change; another client stays."""
    shop, mail = client("shop", clients.url("shop")), client("mail", clients.url("mail"))
    if change == "entry":
        return [mail]
    return [shop | {"backchannel_logout_uri": None} if change == "address" else shop, mail]


@asynccontextmanager
async def pending(
    folder: Path, clients: Clients, amqp_url: str, prefix: str, grace: str
) -> AsyncIterator[tuple[Site, WorkerProcess, Broker]]:
    """A worker with 30 deliveries for a client that answers 503."""
    clients.judge = lambda _hit: 503
    site = Site(folder, amqp_url, prefix)
    site.config["registry"]["grace"] = grace
    site.write()
    site.write_clients(entries(clients, ""))
    async with broker(amqp_url, prefix) as rabbit, worker(site) as running:
        await rabbit.publish_all(map(event, SESSIONS))
        await running.until_metric(COUNT, "events_total", result="accepted")
        await clients.until(lambda: len(clients.at("shop")) > 3)
        yield site, running, rabbit


@pytest.mark.parametrize("change", ["address", "entry"])
async def test_all_are_delivered_once_it_is_back(tmp_path: Path, amqp_url: str, prefix: str, change: str) -> None:
    """Those that waited, and those that came meanwhile, by name and for all clients. Nobody is called meanwhile."""
    async with (
        Clients() as clients,
        pending(tmp_path, clients, amqp_url, prefix, "5m") as (site, running, rabbit),
    ):
        site.write_clients(entries(clients, change))
        lost = await running.until_said("client_address_lost")
        assert (lost["level"], lost["iss"], lost["client_id"]) == ("warning", ISSUER, "shop")
        await running.until_said("deferral")
        calls = len(clients.at("shop"))
        await rabbit.publish(event("later"))
        await rabbit.publish({"id": "e-all", "iss": ISSUER, "sub": "alice", "sid": "all", "clients": "*"})
        await clients.until_told("mail", ["all"])
        await running.until_metric(COUNT + 2, "events_total", result="accepted")
        assert len(clients.at("shop")) == calls
        clients.judge = lambda _hit: 200
        site.write_clients(entries(clients, ""))
        await clients.until(
            lambda: {who for path, who in clients.accepted if path == "/shop"} >= {*SESSIONS, "later", "all"}
        )
        assert await rabbit.dead_letters() == []
        assert await running.metric("deliveries_settled_total", client_id="shop", fate="skipped") == 0


async def test_all_are_dead_letters_if_it_stays_away(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Each says that the address is gone, and a replay delivers it once it is back. New logouts are skipped then."""
    async with (
        Clients() as clients,
        pending(tmp_path, clients, amqp_url, prefix, "3s") as (site, running, rabbit),
    ):
        site.write_clients(entries(clients, "address"))
        await running.until_said("client_address_lost")
        letters = await rabbit.until_dead(COUNT)
        assert {letter.headers["reason"] for letter in letters} == {"unknown_client"}
        texts = {json.loads(letter.body)["text"] for letter in letters}
        assert all(text.startswith("the address of the client 'shop' is gone") for text in texts)
        await rabbit.publish(event("later"))
        await running.until_metric(1, "deliveries_settled_total", client_id="shop", fate="skipped")
        assert (len(letters), len(await rabbit.dead_letters())) == (COUNT, COUNT)
        clients.judge = lambda _hit: 200
        site.write_clients(entries(clients, ""))
        await running.until_said("reloaded", lambda _: len(running.said("reloaded")) > 1)
        words = ("dead-letters", "replay", "--reason", "unknown_client", "-c", str(site.file))
        assert (await asyncio.to_thread(notifier, *words, cwd=tmp_path)).returncode == 0
        await clients.until(lambda: {who for path, who in clients.accepted if path == "/shop"} == {*SESSIONS})

"""A client's address vanishes from the registry for a while: its deliveries end by an answer or as dead letters."""

import asyncio
import json
from pathlib import Path

from tests.system.broker import broker
from tests.system.clients import Clients
from tests.system.command import notifier
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker

COUNT = 30
SESSIONS = [f"s{number}" for number in range(COUNT)]


def event(sid: str) -> dict[str, object]:
    """One session at one client."""
    return {"id": f"e-{sid}", "iss": ISSUER, "sub": "alice", "sid": sid, "clients": ["shop"]}


async def test_all_are_dead_letters_if_it_stays_away(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """Each says that the address is gone, and a replay delivers it once it is back. New logouts are skipped then."""
    async with Clients(lambda _hit: 503) as clients:
        site = Site(tmp_path, amqp_url, prefix)
        site.config["registry"]["grace"] = "3s"
        site.write()
        shop, mail = (client(name, clients.url(name)) for name in ("shop", "mail"))
        site.write_clients([shop, mail])
        async with broker(amqp_url, prefix) as rabbit, worker(site) as running:
            await rabbit.publish_all(map(event, SESSIONS))
            await running.until_metric(COUNT, "events_total", result="accepted")
            await clients.until(lambda: len(clients.at("shop")) > 3)
            site.write_clients([shop | {"backchannel_logout_uri": None}, mail])
            await running.until_said("client_address_lost")
            letters = await rabbit.until_dead(COUNT)
            assert {letter.headers["reason"] for letter in letters} == {"unknown_client"}
            texts = {json.loads(letter.body)["text"] for letter in letters}
            assert all(text.startswith("the address of the client 'shop' is gone") for text in texts)
            await rabbit.publish(event("later"))
            await running.until_metric(1, "deliveries_settled_total", client_id="shop", fate="skipped")
            assert (len(letters), len(await rabbit.dead_letters())) == (COUNT, COUNT)
            clients.judge = lambda _hit: 200
            site.write_clients([shop, mail])
            await running.until_said("reloaded", lambda _: len(running.said("reloaded")) > 1)
            words = ("dead-letters", "replay", "--reason", "unknown_client", "-c", str(site.file))
            assert (await asyncio.to_thread(notifier, *words, cwd=tmp_path)).returncode == 0
            await clients.until(lambda: {who for path, who in clients.accepted if path == "/shop"} == {*SESSIONS})

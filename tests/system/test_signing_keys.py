"""A worker watches what the issuer publishes, and holds back what every client must refuse until it is put right."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.system.clients import Clients, always
from tests.system.command import notifier_at
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker


async def _seen_keys(site: Site) -> list[dict[str, Any]]:
    """Return the workers' reports on keys, by `notifier status`."""
    done = await notifier_at(site, "status", "--json")
    reported: list[dict[str, Any]] = json.loads(done.stdout)["keys"]
    return reported


async def test_deliveries_wait_until_their_key_is_published(tmp_path: Path) -> None:
    """The gauge is 0, the 400 is a deferral and no dead letter; a key that is published makes it 1 and frees it."""
    published: list[object] = []

    async def jwks(_request: web.BaseRequest) -> web.Response:
        return web.json_response({"keys": published})

    async with Clients(lambda _: 400) as clients, LoopbackServer(jwks) as issuer:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.config["issuers"][ISSUER]["jwks_uri"] = f"{issuer.base}/jwks"
        site.config["issuers"][ISSUER]["keys"][0]["kid"] = "ours"
        site.write()
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as running:
            missing = await running.until_logged("signing_key_missing")
            assert (missing["iss"], missing["kid"]) == (ISSUER, "ours")
            assert await running.metric("signing_key_published", iss=ISSUER, kid="ours") == 0
            status, _ = await running.post({"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]})
            assert status == 202
            await running.until_logged("attempt", lambda line: line["status"] == 400)
            assert await _seen_keys(site) == []
            clients.judge = always
            published.append({**site.jwks(ISSUER)["keys"][0], "kid": "ours"})
            site.config["issuers"][ISSUER]["keys"][0]["kid"] = "ours-2"  # what is new is looked at at once
            published.append({**site.jwks(ISSUER)["keys"][0], "kid": "ours-2"})
            site.write()
            await running.until_metric(1, "signing_key_published", iss=ISSUER, kid="ours-2")
            await running.until_metric(1, "deliveries_settled_total", fate="delivered")
            assert await running.metric("deferrals_total", cause="signing") >= 1
            assert await running.metric("dead_letters_total") == 0
            [seen] = await _seen_keys(site)
            assert (seen["iss"], seen["kid"]) == (ISSUER, "ours-2")
            assert await running.stop() == 0


@pytest.mark.full
async def test_400_on_the_first_day_of_a_key_is_a_deferral(tmp_path: Path) -> None:
    """A client whose preset keeps the issuer's keys for hours may not have it yet. It is a deferral, no rejection."""
    async with Clients(lambda _: 400) as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.write_clients([client("shop", clients.url("shop"), preset="duende_bff")])
        async with worker(site) as running:
            event = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]}
            assert (await running.post(event))[0] == 202
            deferral = await running.until_logged("deferral")
            assert (deferral["client_id"], deferral["cause"]) == ("shop", "signing")
            clients.judge = always
            await running.until_metric(1, "deliveries_settled_total", fate="delivered")
            assert await running.stop() == 0

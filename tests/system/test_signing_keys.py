"""A worker watches what the issuer publishes, and holds back what every client must refuse until it is put right."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.system.clients import Clients
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker


class Issuer:
    """Publishes `keys`, or is away where that is None."""

    def __init__(self) -> None:
        self.keys: list[object] | None = []
        self.asked = 0
        self.port = 0

    async def jwks(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=503) if self.keys is None else web.json_response({"keys": self.keys})


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    """On loopback."""
    serving = Issuer()
    app = web.Application()
    app.add_routes([web.get("/jwks", serving.jwks)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    serving.port = runner.addresses[0][1]
    yield serving
    await runner.cleanup()


async def test_what_an_unpublished_key_signed_waits_and_is_delivered(tmp_path: Path) -> None:
    """The gauge is 0, the 400 is a deferral and no dead letter; a key that is published makes it 1 and frees it."""
    refusing = asyncio.Event()
    async with Clients(lambda _: 200 if refusing.is_set() else 400) as clients, issuer() as published:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.config["issuers"][ISSUER]["jwks_uri"] = f"http://127.0.0.1:{published.port}/jwks"
        site.config["issuers"][ISSUER]["keys"][0]["kid"] = "ours"
        site.write()
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as running:
            missing = await running.until_said("signing_key_missing")
            assert (missing["iss"], missing["kid"]) == (ISSUER, "ours")
            assert await running.metric("signing_key_published", iss=ISSUER, kid="ours") == 0
            status, _ = await running.post({"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]})
            assert status == 202
            await running.until_said("attempt", lambda line: line["status"] == 400)
            refusing.set()
            published.keys = [{**site.jwks(ISSUER)["keys"][0], "kid": "ours"}]
            site.config["issuers"][ISSUER]["keys"][0]["kid"] = "ours-2"  # what is new is looked at at once
            published.keys.append({**site.jwks(ISSUER)["keys"][0], "kid": "ours-2"})
            site.write()
            await running.until_metric(1, "signing_key_published", iss=ISSUER, kid="ours-2")
            await running.until_metric(1, "deliveries_settled_total", fate="delivered")
            assert await running.metric("deferrals_total", cause="signing") >= 1
            assert await running.metric("dead_letters_total") == 0
            assert await running.stop() == 0

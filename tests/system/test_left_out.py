"""A list has a client that its source may not have: the reason and the setting that permits it are shown."""

from pathlib import Path

import pytest
from aiohttp import web

from tests.features.registries.list_server import page, serving
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker


@pytest.mark.full
async def test_excluded_client_is_reported_with_its_setting(tmp_path: Path) -> None:
    """In the log, `status`, `check` and `clients show`. Once the setting permits it, its pending deliveries follow."""
    async with Clients() as clients:

        async def listed(_request: web.Request) -> web.Response:
            return page([client(name, clients.url(name)) for name in ("shop", "bank")])

        async with serving(listed) as url:
            site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
            source = {"name": "theirs", "issuer": ISSUER, "clients": ["shop"], "http": {"url": f"{url}/clients"}}
            site.config["registry"] = {"grace": "5m", "sources": [source]}
            site.write()

            async def run(*words: str) -> str:
                done = await notifier_at(site, *words)
                return done.stdout + done.stderr

            async with worker(site) as running:
                reported = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["bank"]}
                assert (await running.post(reported))[0] == 202
                why = "add the name to clients of theirs in registry.sources"
                deferral = await running.until_logged("deferral")
                assert deferral["hint"].startswith("its row is left out: is beyond theirs")
                for words in (["status", "--json"], ["check", "--json"], ["clients", "show", "bank"]):
                    assert why in await run(*words), words
                assert "1 client (1 left out: is beyond theirs" in await run("check")
                assert "1 client (1 left out), read now" in await run("doctor")
                source["clients"] = ["shop", "bank"]
                site.write()
                await running.until_logged("reloaded")
                await clients.until_notified("bank", ["s1"])

"""A remote list moves a client whose file lends it a gateway's secret: its deliveries are deferred, visibly."""

import json
import signal
from pathlib import Path

import pytest
from aiohttp import web

from tests.features.registries.list_server import page, serving
from tests.system.command import notifier_at
from tests.system.loopback import LoopbackServer
from tests.system.site import API_TOKEN, ISSUER, Site, client
from tests.system.worker_process import worker

SECRET = "a-gateway-s-secret-7f"


class Gateway(LoopbackServer):
    """A client behind a gateway: without its secret the answer is final."""

    def __init__(self) -> None:
        super().__init__(self._handle)
        self.secrets: list[str | None] = []

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        self.secrets.append(request.headers.get("X-Gateway"))
        self.changed.set()
        return web.Response(status=200 if request.headers.get("X-Gateway") == SECRET else 401)


@pytest.mark.full
async def test_logouts_wait_until_a_file_lists_the_new_origin(tmp_path: Path) -> None:
    """`check`, `status`, `doctor` and the log name it. No canary is sent either. Then the client is notified there.

    A worker that is killed meanwhile changes nothing.
    """
    async with Gateway() as old, Gateway() as new:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        (tmp_path / "tokens.yaml").write_text(
            json.dumps([{"name": "idp", "token": API_TOKEN, "scopes": ["publish", "read"]}])
        )
        at = [old.base]

        async def listed(_request: web.Request) -> web.Response:
            return page([client("shop", f"{at[0]}/logout")])

        def lend(*origins: str) -> None:
            ours = {"headers": {"X-Gateway": SECRET}, "origins": origins}
            site.write_clients([{"client_id": "shop", "notifier": ours}])

        async def run(*words: str) -> str:
            done = await notifier_at(site, *words)
            return done.stdout + done.stderr

        async with serving(listed) as url:
            source = {"name": "theirs", "issuer": ISSUER, "every": "300ms", "http": {"url": f"{url}/clients"}}
            site.config["registry"] = {"grace": "5m", "sources": [source, {"file": "clients.yaml"}]}
            site.write()
            lend(old.base)
            async with worker(site) as running:
                event = {"iss": ISSUER, "sub": "alice", "clients": ["shop"]}
                assert (await running.post(event | {"sid": "s1"}))[0] == 202
                await old.until(lambda: len(old.secrets) == 1)
                at[0] = new.base
                await running.until_logged("registry_source_beyond")
                assert (await running.post(event | {"sid": "s2"}))[0] == 202
                deferral = await running.until_logged("deferral")
                way_out = (
                    f"leads to {new.base}, which no file names; if it is right, add it to the client's notifier.origins"
                )
                assert (deferral["cause"], way_out in deferral["error"]) == ("origin", True)
                _, status = await running.ask("GET", "/v1/status")
                [trouble] = [each for each in status["troubles"] if each["kind"] == "origin"]
                assert (trouble["client_id"], way_out in trouble["text"]) == ("shop", True)
                for words in (["status", "--json"], ["check", "--json"], ["doctor", "--canary", "shop", "--json"]):
                    assert way_out in await run(*words), words
                assert new.secrets == []
                running.send(signal.SIGKILL)
                await running.ended()
            async with worker(site) as running:
                await running.until_logged("deferral", lambda line: line["cause"] == "origin")
                lend(old.base, new.base)
                await new.until(lambda: len(new.secrets) == 1)
                await running.until_metric(1, "deliveries_settled_total", fate="delivered")
                assert (old.secrets, new.secrets) == ([SECRET], [SECRET])
                assert SECRET not in running.log
                lend()
                assert "notifier.origins" in await run("check")
                assert await running.stop() == 0

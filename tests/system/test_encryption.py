"""A client whose tokens are encrypted, seen by the operator while its key cannot be had, and delivered once it can."""

import asyncio
import json
from pathlib import Path

from aiohttp import web

from tests.adapters.signers.encryption_keys import made, opened, public
from tests.system.clients import Clients
from tests.system.command import notifier
from tests.system.loopback import LoopbackServer
from tests.system.site import API_TOKEN, ISSUER, Site, client
from tests.system.worker_process import worker

KEY = public(made("RSA"), kid="e1", use="enc")


async def test_its_key_is_missed_by_status_and_doctor_and_then_found(tmp_path: Path) -> None:
    """The reason stands in all three places. Nothing is sent until its registration names the right set."""

    async def jwks(request: web.BaseRequest) -> web.Response:
        return web.json_response({"keys": [KEY if request.path == "/right" else KEY | {"use": "sig"}]})

    async with Clients() as clients, LoopbackServer(jwks) as keys:
        clients.opens = lambda _path, token: opened(token, made("RSA"))[1]
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        (tmp_path / "tokens.yaml").write_text(
            json.dumps([{"name": "idp", "token": API_TOKEN, "scopes": ["publish", "read"]}])
        )
        asked = {"id_token_encrypted_response_alg": "RSA-OAEP", "jwks_uri": f"{keys.base}/jwks"}
        shop = client("shop", clients.url("shop")) | asked
        site.write_clients([shop])
        async with worker(site) as running:
            event = {"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]}
            assert (await running.post(event))[0] == 202
            deferral = await running.until_said("deferral")
            why = f'its jwks_uri {keys.base}/jwks has no key for RSA-OAEP: key \'e1\' has "use": "sig"'
            assert deferral["cause"] == "encryption"
            assert why in deferral["error"]
            for command in ("status", "doctor"):
                said = await asyncio.to_thread(notifier, command, "-c", site.file, "--json", cwd=tmp_path)
                assert json.dumps(why)[1:-1] in said.stdout, command
            _, status = await running.ask("GET", "/v1/status")
            [trouble] = [each for each in status["troubles"] if each["kind"] == "encryption"]
            assert (trouble["client_id"], why in trouble["text"]) == ("shop", True)
            assert clients.hits == []
            site.write_clients([shop | {"jwks_uri": f"{keys.base}/right"}])
            await clients.until_told("shop", ["s1"])
            await running.until_metric(1, "deliveries_settled_total", fate="delivered")
            canary = await asyncio.to_thread(
                notifier, "doctor", "-c", site.file, "--canary", "shop", "--json", cwd=tmp_path
            )
            assert "its tokens are encrypted to its key 'e1' by RSA-OAEP and A128CBC-HS256" in canary.stdout
            assert "it takes our tokens" in canary.stdout
            assert await running.stop() == 0

"""docs/examples/relays.yaml runs: a token of each of its identity servers reaches the client."""

import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import yaml
from aiohttp import web

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from tests.features.upstreams.upstream_provider import logout_token
from tests.system.clients import Clients
from tests.system.loopback import LoopbackServer
from tests.system.site import Site, client
from tests.system.worker_process import ROOT, worker
from tests.tokens.transmitter import key, public

DEX, APP = "https://id.example.com/dex", "https://app.example.com/api/auth"
ALGORITHMS: Mapping[str, Algorithm] = {"dex.pem": Algorithm.ES256, "app.pem": Algorithm.EDDSA}


async def answer_keys(_request: web.BaseRequest) -> web.StreamResponse:
    """Answer as either server does at its own address."""
    return web.json_response({"keys": [public(key("P-256", "op"), "op-1")]})


async def test_tokens_of_both_servers_reach_their_clients(tmp_path: Path) -> None:
    """Only the addresses of the servers' keys and of the listener are replaced."""
    site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
    for name, algorithm in ALGORITHMS.items():
        (tmp_path / name).write_bytes(generate_key(algorithm))
    async with Clients() as clients, LoopbackServer(answer_keys) as server:
        document = yaml.safe_load((ROOT / "docs/examples/relays.yaml").read_text())
        for relay in document["relays"].values():
            relay["jwks_uri"] = f"{server.base}{urlsplit(relay['jwks_uri']).path}"
        document["web"]["listen"] = "127.0.0.1:0"
        site.config |= document
        shop, desk = client("shop", clients.url("shop"), DEX), client("desk", clients.url("desk"), APP)
        site.write_clients([shop, {**desk, "id_token_signed_response_alg": "EdDSA"}])
        site.write()
        async with worker(site) as running, aiohttp.ClientSession() as session:
            for name, iss, aud in (("dex", DEX, "shop"), ("app", APP, "desk")):
                now = int(time.time())
                claims = {"iss": iss, "aud": aud, "iat": now, "exp": now + 120, "sid": f"at-{name}"}
                token = logout_token(key("P-256", "op"), {"kid": "op-1"}, **claims).decode()
                url = f"{await running.at('web')}/relays/{name}/backchannel-logout"
                async with session.post(url, data={"logout_token": token}) as answer:
                    assert answer.status == 200, await answer.text()
                await clients.until_notified(aud, [f"at-{name}"])
            assert await running.stop() == 0
    assert {hit.claims["iss"] for hit in clients.hits} == {DEX, APP}

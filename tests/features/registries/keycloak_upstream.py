"""A Keycloak's realm whose users sign in here through it: its client is our identity server, at notifier's URL."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.features.registries.keycloak_realm import shop_user
from tests.support.keycloak_server import Keycloak
from tests.support.rabbitmq_node import free_ports
from tests.system.clients import Clients
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, Site, client

REALM = "company"


def company_realm(logout_url: str) -> dict[str, Any]:
    """Return a realm of two clients. Only `login` requires `sid`; tokens for `by-user` have another algorithm."""
    asked = {"backchannel.logout.url": logout_url, "backchannel.logout.session.required": "true"}
    every = {
        **asked, "backchannel.logout.session.required": "false", "id.token.signed.response.alg": "ES256",
        "backchannel.logout.revoke.offline.tokens": "true",
    }  # fmt: skip
    clients = [
        {"clientId": name, "publicClient": True, "redirectUris": ["http://127.0.0.1/*"], "attributes": attributes}
        for name, attributes in (("login", asked), ("by-user", every))
    ]
    return {"realm": REALM, "enabled": True, "sslRequired": "none", "clients": clients}


@asynccontextmanager
async def company_site(
    folder: Path, keycloak: Keycloak, clients: Clients, password: str
) -> AsyncIterator[tuple[Site, list[dict[str, Any]]]]:
    """Start an installation whose upstream is a new realm with alice; yield the requests for local sessions too."""
    [port] = free_ports(1)
    asked: list[dict[str, Any]] = []

    async def sessions(request: web.BaseRequest) -> web.Response:
        """Each session there is one here; `s1` and `s2` are those of a user."""
        question = json.loads(await request.read())
        asked.append(question)
        ended = ["s1", "s2"] if question["sid"] is None else [f"here-{question['sid']}"]
        return web.json_response([{"sub": f"up|{question['sub']}", "sid": sid, "clients": ["shop"]} for sid in ended])

    logout_url = f"http://127.0.0.1:{port}/upstreams/company/backchannel-logout"
    await asyncio.to_thread(keycloak.admin, "POST", "", company_realm(logout_url))
    await asyncio.to_thread(keycloak.admin, "POST", f"/{REALM}/users", shop_user("alice", password))
    async with LoopbackServer(sessions) as server:
        site = Site(folder, f"sqlite:{folder}/q.db")
        site.serve_web(port)
        company = {"issuer": f"{keycloak.url}/realms/{REALM}", "client_id": ["login", "by-user"], "iss": ISSUER}
        site.config["upstreams"] = {"company": {**company, "resolve": {"http": {"url": f"{server.base}/sessions"}}}}
        site.write_clients([client("shop", clients.url("shop"))])
        site.write()
        yield site, asked


def change_key(keycloak: Keycloak, priority: int) -> None:
    """Add a key to the realm, which signs with it from now on."""
    config = {"priority": [str(priority)], "algorithm": ["RS256"], "active": ["true"], "enabled": ["true"]}
    component = {
        "name": f"key-{priority}", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
        "parentId": keycloak.admin("GET", f"/{REALM}")["id"], "config": config,
    }  # fmt: skip
    keycloak.admin("POST", f"/{REALM}/components", component)

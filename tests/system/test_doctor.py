"""`notifier doctor` as an operator runs it, against an issuer and a client on loopback."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from notifier.model.client import Algorithm
from notifier.tokens.key_files import generate_key
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, Site, client
from tests.tokens.transmitter import key, public


@asynccontextmanager
async def issuer(documents: dict[str, Any]) -> AsyncIterator[str]:
    """Publishes `documents` by path, and is called by the URL that is given."""

    async def serve(request: web.BaseRequest) -> web.Response:
        return web.json_response(documents[request.path]) if request.path in documents else web.Response(status=404)

    async with LoopbackServer(serve) as server:
        yield server.base


async def test_doctor_passes_until_the_key_is_gone(tmp_path: Path) -> None:
    """Exit 0 and a canary that is taken; then the issuer no longer publishes our key: exit 1, and what to do."""
    documents: dict[str, Any] = {}
    async with issuer(documents) as iss, Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        (tmp_path / "k.pem").write_bytes(generate_key(Algorithm.ES256))
        site.config["issuers"] = {iss: {"keys": [{"file": "k.pem"}], "jwks_uri": f"{iss}/jwks"}}
        site.write()
        site.write_clients([client("shop", clients.url("shop"), iss)])
        jwks = await notifier_at(site, "keys", "jwks")
        documents |= {
            "/jwks": json.loads(jwks.stdout),
            "/.well-known/openid-configuration": {
                "issuer": iss,
                "jwks_uri": f"{iss}/jwks",
                "backchannel_logout_supported": True,
                "backchannel_logout_session_supported": True,
            },
        }
        well = await notifier_at(site, "doctor")
        assert (well.returncode, well.stderr) == (0, "")
        assert well.stdout.splitlines()[-1].startswith("0 failed, 0 warnings")
        assert clients.hits == []

        taken = await notifier_at(site, "doctor", "--canary", "shop", "--json")
        assert taken.returncode == 0
        [reported] = [row for row in json.loads(taken.stdout) if row["area"] == "canary"]
        assert (reported["subject"], reported["level"]) == ("shop", "ok")
        assert len(clients.hits) == 1

        documents["/jwks"] = {"keys": []}
        failed = await notifier_at(site, "doctor")
        assert failed.returncode == 1
        assert "notifier keys jwks" in failed.stdout
        assert failed.stdout.splitlines()[-1] == f"failed: keys {iss}"
        offline = await notifier_at(site, "doctor", "--offline")
        assert offline.returncode == 0
        assert "keys" not in offline.stdout.splitlines()


async def test_a_key_set_inside_our_network_that_an_upstream_names_is_not_read(tmp_path: Path) -> None:
    """Nor by a worker. The finding names the address, the upstream, and the setting that permits it."""
    own: dict[str, Any] = {}
    inside = {"/jwks": {"keys": [public(key("P-256"))]}}
    async with issuer(own) as iss, issuer(inside) as other:
        own["/.well-known/openid-configuration"] = {"issuer": iss, "jwks_uri": f"{other}/jwks"}
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.serve_web()
        site.config["egress"] = {"allow_http": True}
        login = {"issuer": iss, "client_id": "notifier", "iss": ISSUER, "resolve": {"same_sub": {"prefix": "op|"}}}
        site.config["upstreams"] = {"login": login}
        site.write_clients([])
        site.write()

        async def logged() -> dict[str, Any]:
            findings = json.loads((await notifier_at(site, "doctor", "--json")).stdout)
            return next(each for each in findings if each["subject"] == "upstreams.login")

        refused = await logged()
        assert refused["level"] == "failed"
        by = f"the jwks_uri of its metadata at {iss}/.well-known/openid-configuration, '{other}/jwks'"
        assert refused["text"].startswith(f"the JWK Set could not be read: {by}: address 127.0.0.1 is loopback")
        assert refused["text"].endswith("; if you mean that address, write it as jwks_uri")
        login["jwks_uri"] = f"{other}/jwks"
        site.write()
        assert (await logged())["text"] == "1 key for its tokens can be read"

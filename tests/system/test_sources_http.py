"""Webhooks and Security Event Tokens, from the socket to the client's logout token, on a worker process."""

import asyncio
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.system.clients import Clients, verify_all
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import WorkerProcess, worker
from tests.tokens.transmitter import AUDIENCE, REVOKED, key, public, signed

OKTA_SECRET = "okta-secret-5c1d"
HOOK_SECRET = "hook-secret-77aa"


async def ask(
    running: WorkerProcess, source: str, body: bytes, method: str = "POST", **headers: str
) -> tuple[int, Any]:
    """Status and document of a request to a source; `_` in the name of a header means `-`."""
    api = await running.at("api")
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{api}/v1/events/{source}", data=body, headers=sent) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


def ended(sub: str, sid: str) -> bytes:
    """An event hook of Okta, with another event before the session end."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    session = {
        "uuid": f"u-{sid}", "published": moment, "eventType": "user.session.end", "actor": {"id": sub, "type": "User"},
        "outcome": {"result": "SUCCESS"}, "authenticationContext": {"externalSessionId": sid},
    }  # fmt: skip
    events = [{**session, "uuid": f"v-{sid}", "eventType": "user.session.start"}, session]
    return json.dumps({"eventType": "com.okta.event_hook", "eventTime": moment, "data": {"events": events}}).encode()


async def test_posts_of_sources_end_sessions_at_clients(tmp_path: Path, place: tuple[str, str]) -> None:
    """By each proof. A reload closes a source; its secrets are nowhere in what the worker writes."""

    async def jwks(_request: web.BaseRequest) -> web.Response:
        return web.json_response({"keys": [public(key("P-256"))]})

    async with Clients() as clients, LoopbackServer(jwks) as transmitter:
        site = Site(tmp_path, *place)
        (tmp_path / "okta").write_text(OKTA_SECRET + "\n")
        (tmp_path / "hook").write_text(HOOK_SECRET)
        token = {"issuer": ISSUER, "jwks_uri": f"{transmitter.base}/certs", "audience": AUDIENCE}
        site.config["sources"] = {
            "okta": {
                "preset": "okta_hook", "issuer": ISSUER, "http": {"header": "Authorization", "value_file": "okta"},
            },
            "shop": {
                "issuer": ISSUER,
                "event": {"sub": "user", "sid": '"$headers"."x-session"', "clients": "['shop']"},
                "http": {"hmac": {"header": "X-Signature", "secret_file": "hook", "prefix": "sha256="}},
            },
            "kc": {"preset": "keycloak_ssf", "http": {"set": token}},
        }  # fmt: skip
        site.write()
        site.write_clients([client("shop", clients.url("shop"))])
        async with worker(site) as running:
            challenge = {"Authorization": OKTA_SECRET, "X_Okta_Verification_Challenge": "c1"}
            assert await ask(running, "okta", b"", "GET", **challenge) == (200, {"verification": "c1"})
            status, document = await ask(running, "okta", ended("alice", "s1"), Authorization=OKTA_SECRET)
            assert (status, set(document)) == (202, {"id"})
            await clients.until_notified("shop", ["s1"])

            body = b'{"user": "bob"}'
            signature = "sha256=" + hmac.new(HOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
            assert (await ask(running, "shop", body, X_Signature=signature, X_Session="s2"))[0] == 202
            assert (await ask(running, "shop", body + b" ", X_Signature=signature, X_Session="s9"))[0] == 401
            await clients.until_notified("shop", ["s2"])

            now = int(time.time())
            claims: dict[str, Any] = {
                "iss": ISSUER, "aud": AUDIENCE, "iat": now, "jti": "j3",
                "sub_id": {
                    "format": "complex",
                    "user": {"format": "iss_sub", "iss": ISSUER, "sub": "carol"},
                    "session": {"format": "opaque", "id": "s3"},
                },
                "events": {REVOKED: {"event_timestamp": now}},
            }  # fmt: skip
            kind = {"Content_Type": "application/secevent+jwt"}
            assert await ask(running, "kc", signed(claims), **kind) == (202, None)
            await clients.until_notified("shop", ["s3"])
            verification = {"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": "x"}}
            checked = signed({**claims, "jti": "j4", "events": verification})
            assert await ask(running, "kc", checked, **kind) == (202, None)
            assert (await ask(running, "kc", signed({**claims, "aud": "else"}), **kind))[0] == 400

            assert (await ask(running, "okta", b"[1]", Authorization=OKTA_SECRET))[0] == 202
            await running.until_metric(1, "dead_letters_total")
            await running.until_metric(5, "source_requests_total", status="202")
            del site.config["sources"]["okta"]
            site.write()
            await running.until_logged("reloaded")
            assert (await ask(running, "okta", ended("alice", "s5"), Authorization=OKTA_SECRET))[0] == 404
            assert await running.stop() == 0
        verify_all(clients.hits, site.jwks)
        assert sorted(hit.who for hit in clients.hits) == ["s1", "s2", "s3"]
        written = running.log.encode() + b"".join(
            await asyncio.to_thread(lambda: [path.read_bytes() for path in tmp_path.glob("q.db*")])
        )
        for secret in (OKTA_SECRET, HOOK_SECRET, signature, signed(claims).decode().rpartition(".")[2]):
            assert secret.encode() not in written

"""A worker with one client of each channel: what it sends, and that no secret and no user leaves it otherwise."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.features.channels.receivers.fake_token_endpoint import UNUSABLE, FakeTokenEndpoint
from tests.system.loopback import LoopbackServer
from tests.system.site import API_TOKEN, ISSUER, Site
from tests.system.waiting import until
from tests.system.worker_process import worker

SECRET, SUB, EMAIL = "token-endpoint-secret-4711", "al", "al.ice+x@example.com"
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}")


class Receiver(LoopbackServer):
    """Refuse each request with everything that it contained. `paths`: the requested ones."""

    def __init__(self) -> None:
        super().__init__(self._handle)
        self.paths: list[str] = []

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        text = (await request.read()).decode()
        self.paths.append(request.path)
        self.changed.set()
        content = {"error": "no", "got": text, "proof": request.headers.get("Authorization"), "sub": SUB, "user": EMAIL}
        return web.json_response(content, status=403)


def entry(client_id: str, channel: dict[str, Any]) -> dict[str, Any]:
    """Return a client with a channel."""
    own = {"client_id": client_id, "issuer": ISSUER, "id_token_signed_response_alg": "ES256"}
    return own | {"notifier": {"channel": channel}}


def clients(receiver: Receiver, good: FakeTokenEndpoint, hostile: FakeTokenEndpoint) -> list[dict[str, Any]]:
    """Return a client of each channel; the token endpoint of the last one returns no token."""

    def revocation(name: str, endpoint: FakeTokenEndpoint) -> dict[str, Any]:
        proof = {"endpoint": endpoint.url, "client_id": "notifier", "client_secret": {"file": "token-secret"}}
        uri = f"{receiver.base}/{name}"
        return entry(name, {"global_token_revocation": {"uri": uri, "subject": "email", "proof": proof}})

    plain = entry("portal-us", {}) | {"notifier": {"follows": "portal"}}
    return [
        entry("vpn", {"security_event": {"uri": f"{receiver.base}/vpn", "subject": "email"}}),
        entry("portal", {"command": {"uri": f"{receiver.base}/portal", "tenant": "acme"}}),
        {**plain, "backchannel_logout_uri": f"{receiver.base}/portal-us"},
        revocation("shop", good),
        revocation("starved", hostile),
    ]


async def test_nothing_secret_leaves_the_worker(tmp_path: Path) -> None:
    """Log, metrics, status, feed and dead letters name no user and no token, whatever receivers answer."""
    async with (
        Receiver() as receiver,
        FakeTokenEndpoint("notifier", SECRET) as good,
        FakeTokenEndpoint("notifier", SECRET, UNUSABLE["invalid_client"]) as hostile,
    ):
        site = Site(tmp_path, "sqlite:q.db")
        site.config["outcomes"] = "all"
        site.config["issuers"][ISSUER]["publishers"] = ["idp"]
        site.write()
        tokens = [{"name": "idp", "token": API_TOKEN, "scopes": ["publish", "read"]}]
        (tmp_path / "tokens.yaml").write_text(json.dumps(tokens))
        (tmp_path / "token-secret").write_text(SECRET)
        site.write_clients(clients(receiver, good, hostile))
        event = {"iss": ISSUER, "sub": SUB, "email": EMAIL, "clients": "*", "id": "e1"}
        async with worker(site) as running:
            assert (await running.post(event))[0] == 202
            await running.until_metric(4, "deliveries_settled_total", fate="dead")
            deferral = await running.until_logged("deferral", lambda line: line["client_id"] == "starved")
            answered = "it answered 401 invalid_client: correct proof.client_id or its secret"
            assert deferral["cause"] == "access_token"
            assert deferral["error"] == f"no access token for client starved (proof.endpoint): {answered}"
            assert (await running.post(event | {"sid": "s1", "id": "e2"}))[0] == 202
            await running.until_metric(3, "deliveries_settled_total", fate="session_only")
            await until(lambda: running.ask("GET", "/v1/status"), lambda answer: answer[1]["troubles"])
            _, status = await running.ask("GET", "/v1/status")
            assert [each["kind"] for each in status["troubles"]] == ["access_token"]
            rows = (await running.ask("GET", "/v1/dead-letters?rows=50"))[1]["letters"]
            letters = [await running.ask("GET", f"/v1/dead-letters/{row['id']}?subject=false") for row in rows]
            _, metrics = await running.get("/metrics")
            assert await running.stop() == 0
        with closing(sqlite3.connect(tmp_path / "q.db")) as database:
            feed = str(database.execute("SELECT * FROM outcomes").fetchall())
        assert sorted(receiver.paths) == ["/portal", "/portal-us", "/portal-us", "/shop", "/vpn", "/vpn"]
        assert "session_only" in feed
        for name, text in {
            "log": running.log, "metrics": metrics, "status": json.dumps(status), "feed": feed,
            "dead letters": json.dumps(letters),
        }.items():  # fmt: skip
            assert not TOKEN.search(text), name
            for secret in (SECRET, EMAIL, "al.ice", "access-token", f'"{SUB}"', f"sub={SUB}"):
                assert secret not in text, (name, secret)

"""Logout tokens of upstream providers, from the socket to the client's own token, on a worker process."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.features.upstreams.upstream_provider import logout_token
from tests.system.clients import Clients, verify_all
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import WorkerProcess, worker
from tests.tokens.transmitter import key, public

SECRETS = ("raw-sub-77", "raw-sid-88")


def token(upstream: str, **claims: Any) -> bytes:
    """A token of this moment."""
    now = int(time.time())
    return logout_token(**{"iss": upstream, "iat": now, "exp": now + 120, **claims})


async def send(running: WorkerProcess, name: str, form: dict[str, Any]) -> tuple[int, Any]:
    """Status and document of a logout token's answer. No connection is kept that the next token could be lost in."""
    base = await running.at("web")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base}/upstreams/{name}/backchannel-logout", data=form) as answer,
    ):
        assert (answer.headers["Cache-Control"], answer.headers["Connection"]) == ("no-store", "close")
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


def installation(folder: Path, place: tuple[str, str], clients: Clients, **upstreams: object) -> Site:
    """A site with a web listener and these upstreams."""
    site = Site(folder, *place)
    site.serve_web()
    site.config["upstreams"] = upstreams
    site.write_clients([client("shop", clients.url("shop")), client("mail", clients.url("mail"))])
    site.write()
    return site


async def published(request: web.BaseRequest) -> web.Response:
    """An upstream's metadata and keys."""
    base = str(request.url.origin())
    if request.path == "/.well-known/openid-configuration":
        return web.json_response({"issuer": base, "jwks_uri": f"{base}/keys"})
    return web.json_response({"keys": [public(key("P-256"))]})


async def test_upstream_logout_token_ends_local_sessions(tmp_path: Path, place: tuple[str, str]) -> None:
    """Its clients are notified, each by a token of the notifier. A repeated or wrong token notifies none.

    Another token is not a copy, though the upstream gives it the same `jti`: its logout is not lost.
    """
    async with Clients() as clients, LoopbackServer(published) as upstream:
        login = {
            "issuer": upstream.base, "client_id": "notifier", "iss": ISSUER, "resolve": {"same_sub": {"prefix": "op|"}},
        }  # fmt: skip
        site = installation(tmp_path, place, clients, login=login)
        async with worker(site) as running:
            await running.until_ready()
            good = token(upstream.base, sid="s1")
            assert await send(running, "login", {"logout_token": good.decode(), "other": "ignored"}) == (200, None)
            await clients.until(lambda: (clients.notified("shop"), clients.notified("mail")) == (["s1"], ["s1"]))
            assert await send(running, "login", {"logout_token": good.decode()}) == (200, None)
            again = token(upstream.base, sid="s2").decode()  # the upstream's `jti` is the same for each token
            assert await send(running, "login", {"logout_token": again}) == (200, None)
            await clients.until(
                lambda: (clients.notified("shop"), clients.notified("mail")) == (["s1", "s2"], ["s1", "s2"])
            )
            forged = token(upstream.base, sid="s9")[:-4] + b"AAAA"
            status, document = await send(running, "login", {"logout_token": forged.decode()})
            assert (status, document["error"]) == (400, "invalid_request")
            assert (await send(running, "login", {"logout_token": token("https://other").decode()}))[0] == 400
            assert (await send(running, "login", {}))[0] == 400
            assert (await send(running, "nobody", {"logout_token": good.decode()}))[0] == 404
            await running.until_metric(2, "upstream_requests_total", upstream="login", result="accepted")
            await running.until_metric(1, "upstream_requests_total", upstream="login", result="replayed")
            await running.until_metric(1, "upstream_requests_total", upstream="login", result="signature")
            del site.config["upstreams"]["login"]
            site.write()
            await running.until_logged("reloaded")
            late = token(upstream.base, sid="s3", jti="j3").decode()
            assert (await send(running, "login", {"logout_token": late}))[0] == 404
            assert await running.stop() == 0
        verify_all(clients.hits, site.jwks)
        assert {hit.claims["sub"] for hit in clients.hits} == {"op|raw-sub-77"}
        assert sorted(hit.who for hit in clients.hits) == ["s1", "s1", "s2", "s2"]
        refused = running.logged("upstream_refused")
        assert {line["result"] for line in refused} == {"signature", "issuer", "malformed"}
        assert not [secret for secret in (*SECRETS, good.decode()) if secret in running.log]


def sign_in(database: Path, *rows: tuple[str, str, str, str | None]) -> None:
    """Record sessions: the upstream's `sid`, and the local sessions."""
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE sessions (upstream_sid, sub, sid, clients)")
        connection.executemany("INSERT INTO sessions VALUES (?, ?, ?, ?)", rows)
    connection.close()


@pytest.mark.full
async def test_upstream_front_channel_page_ends_local_sessions(tmp_path: Path) -> None:
    """A known `sid` publishes the event and answers with the page of clients, in frames of the upstream's own pages.

    An unknown one publishes nothing. Where the operator has not switched it on, nobody ends anything.
    """
    database = tmp_path / "sessions.db"
    await asyncio.to_thread(sign_in, database, ("raw-sid-88", "alice", "local-1", '["shop"]'))
    sql = {"url": f"sqlite:///{database}", "query": "SELECT sub, sid, clients FROM sessions WHERE upstream_sid = :sid"}
    async with Clients() as clients:
        op = {
            "issuer": "https://op.example.com/t1", "client_id": "notifier", "iss": ISSUER, "resolve": {"sql": sql},
            "parents": ["https://portal.example.com"], "front_channel": True,
        }  # fmt: skip
        entra = {**op, "without_iss": "allow"}
        off = {**op, "front_channel": False}
        place = (f"sqlite:{tmp_path}/q.db", "notifier")
        site = installation(tmp_path, place, clients, op=op, entra=entra, off=off)
        site.config["web"]["issuers"] = {ISSUER: {"url": f"{ISSUER}/connect/notify"}}
        shop = client("shop", clients.url("shop"))
        site.write_clients([{**shop, "frontchannel_logout_uri": "https://shop.example.com/front"}])
        site.write()
        async with worker(site) as running, aiohttp.ClientSession() as session:
            base = await running.at("web")
            await running.until_ready()

            async def call(name: str, **query: str) -> tuple[int, str, str]:
                async with session.get(f"{base}/upstreams/{name}/frontchannel-logout", params=query) as answer:
                    return answer.status, answer.headers["Content-Security-Policy"], await answer.text()

            iss = str(op["issuer"])
            for name, query, expected in (
                ("op", {"sid": "raw-sid-88"}, 400), ("op", {"iss": iss}, 400), ("op", {"iss": ISSUER, "sid": "x"}, 400),
                ("entra", {"iss": ISSUER, "sid": "x"}, 400), ("off", {"iss": iss, "sid": "raw-sid-88"}, 404),
                ("off", {"sid": "x"}, 404),
                ("nobody", {"iss": iss, "sid": "x"}, 404), ("op", {"iss": iss, "sid": "made-up"}, 200),
                ("entra", {"sid": "made-up"}, 200),
            ):  # fmt: skip
                status, policy, text = await call(name, **query)
                assert (status, "shop.example.com" in text) == (expected, False)
                if status == 200:
                    above = policy.partition("frame-ancestors ")[2]
                    assert above == f"https://op.example.com https://portal.example.com {ISSUER}"
            assert clients.hits == []
            status, policy, text = await call("op", iss=iss, sid="raw-sid-88")
            assert (status, "https://shop.example.com/front?iss=" in text) == (200, True)
            assert {"https://op.example.com", "https://portal.example.com", ISSUER} <= set(policy.split())
            await clients.until_notified("shop", ["local-1"])
            await running.until_metric(2, "upstream_requests_total", result="no_session")
            await running.until_metric(2, "upstream_requests_total", upstream="off", result="off")
            output = [(line["upstream"], line["setting"]) for line in running.logged("upstream_front_channel_off")]
            assert output == [("off", "upstreams.off.front_channel")]
            database.unlink()
            assert (await call("op", iss=iss, sid="raw-sid-88"))[0] == 503
            assert await running.stop() == 0
        assert not [secret for secret in SECRETS if secret in running.log]

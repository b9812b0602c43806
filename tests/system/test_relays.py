"""Logout tokens of an identity server, relayed to its clients; and the JWK Set that the clients read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from joserfc.jwk import OctKey
from yarl import URL

from tests.features.upstreams.upstream_provider import logout_token
from tests.system.clients import Clients, Hit, verify_all
from tests.system.command import notifier
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, OTHER, Site, client
from tests.system.tcp_proxy import Ending, TcpProxy, Way
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker
from tests.tokens.transmitter import key, public, segments, signed


class IdentityServer:
    """Publishes keys. Its proxy passes the clients' path on to notifier, with or without CDN-Loop."""

    def __init__(self, *keys: Mapping[str, Any]) -> None:
        self.keys = list(keys or [public(key("P-256", "op"), "op-1")])
        self.web = ""
        self.is_misled = False  # its own address leads to notifier, too
        self.drops: tuple[str, ...] = ()
        self.silent = 0  # readings without an answer yet
        self.answering = asyncio.Event()
        self.answering.set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with the server's own keys, or by notifier."""
        if request.path == "/keys" and not self.is_misled:
            self.silent += not self.answering.is_set()
            await self.answering.wait()
            return web.json_response({"keys": self.keys})
        headers = {name: value for name, value in request.headers.items() if name not in self.drops}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.web}/relays/op/jwks", headers=headers) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")


def token(aud: object, kid: str = "op-1", of: str = "op", **claims: Any) -> str:
    """A token of this moment, by the server's key."""
    now = int(time.time())
    members = {"iss": ISSUER, "iat": now, "exp": now + 120, "aud": aud, **claims}
    return logout_token(key("P-256", of), {"kid": kid}, **members).decode()


async def send(running: WorkerProcess, logout: str, **headers: str) -> tuple[int, str]:
    """Status and error of a token's answer."""
    url = f"{await running.at('web')}/relays/op/backchannel-logout"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data={"logout_token": logout}, headers=headers) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text)["error_description"] if text else ""


async def jwks(running: WorkerProcess) -> tuple[int, Mapping[str, str], Sequence[Mapping[str, Any]]]:
    """Status, headers and keys of the joined set."""
    async with aiohttp.ClientSession() as session, session.get(f"{await running.at('web')}/relays/op/jwks") as answer:
        document = await answer.json(content_type=None)
        return answer.status, answer.headers, document.get("keys", ())


def installation(folder: Path, place: tuple[str, str], jwks_uri: str, *rows: Mapping[str, Any]) -> Site:
    """A site with a relay."""
    site = Site(folder, *place)
    site.serve_web()
    site.config["relays"] = {"op": {"issuer": ISSUER, "jwks_uri": jwks_uri}}
    site.write_clients(rows)
    site.write()
    return site


def embedded(folder: Path) -> tuple[str, str]:
    """The place of an embedded queue."""
    return f"sqlite:{folder}/q.db", "notifier"


async def test_a_token_reaches_the_client_in_its_aud(tmp_path: Path, place: tuple[str, str]) -> None:
    """As a token of notifier, with the `sub` and `sid` of the server's, which may be pairwise. No other client does."""
    server = IdentityServer()
    async with Clients() as clients, LoopbackServer(server.handle) as upstream:
        shop, mail = (client(name, clients.url(name)) for name in ("shop", "mail"))
        site = installation(tmp_path, place, f"{upstream.base}/keys", {**shop, "subject_type": "pairwise"}, mail)
        async with worker(site) as running:
            await running.until_ready()
            logout = token("shop", sub="pairwise-1", sid="s1")
            assert await send(running, logout) == (200, "")
            await clients.until_notified("shop", ["s1"])
            assert await send(running, logout) == (
                200,
                "",
            )  # a server that sends a token again, perhaps with another signature
            assert await send(running, token("shop", sub="pairwise-1", sid="s1", iat=int(time.time()) - 3)) == (200, "")
            assert (await send(running, token(["shop", "mail"], sid="s2", jti="j2")))[0] == 200
            await clients.until_notified("shop", ["s1", "s2"])
            await clients.until_notified("mail", ["s2"])
            assert (await send(running, token("museum", sid="s3", jti="j3")))[0] == 200
            await running.until_logged("dead_letter", lambda line: line["reason"] == "unknown_client")
            assert (await send(running, token(["shop", 5])))[0] == 400
            assert (await send(running, token([f"c{nth}" for nth in range(101)])))[0] == 400
            await running.until_metric(3, "upstream_requests_total", upstream="op", result="accepted")
            shown = (await asyncio.to_thread(notifier, "status", "-c", str(site.file), cwd=site.folder)).stdout
            assert "relay op  keys fresh, last token: " in shown
            assert "last token: none" not in shown
            await running.until_metric(2, "upstream_requests_total", upstream="op", result="replayed")
            await running.until_metric(2, "upstream_requests_total", upstream="op", result="audience")
            assert await running.stop() == 0
        verify_all(clients.hits, site.jwks)
        assert [hit.claims["sub"] for hit in clients.at("shop")][:1] == ["pairwise-1"]
        assert (len(clients.at("shop")), len(clients.at("mail"))) == (2, 1)
        assert all(hit.claims["jti"].startswith("nfr-") for hit in clients.hits)


async def test_a_copy_at_another_worker_is_one_delivery(tmp_path: Path, amqp_url: str, prefix: str) -> None:
    """While its event is pending, and after it. The embedded queue has one worker."""
    server = IdentityServer()
    async with Clients() as clients, LoopbackServer(server.handle) as upstream:
        shop = client("shop", clients.url("shop"))
        site = installation(tmp_path, (amqp_url, prefix), f"{upstream.base}/keys", shop)
        async with worker(site) as first, worker(site) as second:
            for each in (first, second):
                await each.until_ready()
            clients.judge = lambda _hit: 503
            copy, later = token("shop", sid="s1"), token("shop", sid="s2")
            for sent in (copy, later):
                assert await send(first, sent) == (200, "")

            async def replayed() -> float:
                assert await send(second, later) == (200, "")
                return await second.metric("upstream_requests_total", upstream="op", result="replayed")

            known = await until(replayed, bool)  # and the copy's id, which was shared before
            assert await send(second, copy) == (200, "")
            ended: list[str] = []

            def end(hit: Hit) -> int:
                ended.append(hit.who)
                return 200

            clients.judge = end
            await clients.until(lambda: "s1" in ended)
            assert await send(second, copy) == (200, "")
            assert await second.metric("upstream_requests_total", upstream="op", result="replayed") == known + 2
            assert ended.count("s1") == 1
            for each in (first, second):
                assert await each.stop() == 0


async def test_clients_verify_both_by_one_set(tmp_path: Path) -> None:
    """It has the server's public keys unchanged, then notifier's, also before a key is due."""
    server = IdentityServer(
        public(key("P-256", "op"), "op-1", x5t="odd"), public(key("P-256", "former"), "op-0", d="s3cret")
    )
    async with LoopbackServer(server.handle) as upstream:
        site = installation(tmp_path, embedded(tmp_path), f"{upstream.base}/keys")
        later = site.add_key(ISSUER, "later.pem", not_before="2099-01-01T00:00:00Z")
        site.write()
        async with worker(site) as running:
            await running.until_ready()
            status, headers, keys = await jwks(running)
            assert (status, headers["Access-Control-Allow-Origin"], headers["Cache-Control"]) == (200, "*", "no-cache")
            assert [jwk["kid"] for jwk in keys][:2] == ["op-1", "op-0"]
            assert (keys[0]["x5t"], "d" in keys[1], len(keys)) == ("odd", False, 4)
            assert keys[-1]["kid"] == later
            await running.until_logged("relay_keys_fault", lambda line: "private keys" in line["reason"])
            assert await running.stop() == 0
        assert "s3cret" not in running.log


async def test_jwks_uri_leads_to_the_joined_set_through_a_proxy_that_drops_cdn_loop_with_a_held_set(
    tmp_path: Path,
) -> None:
    """notifier does not take its own answer for the server's, with or without the header: nothing is served."""
    server = IdentityServer()
    async with LoopbackServer(server.handle) as upstream:
        site = installation(tmp_path, embedded(tmp_path), f"{upstream.base}/keys")
        async with worker(site) as running:
            await running.until_ready()
            server.web = await running.at("web")
            assert (await jwks(running))[0] == 200
            site.config["relays"]["op"]["jwks_uri"] = f"{upstream.base}/jwks"  # first with the header
            site.write()
            await running.until_logged("reloaded")
            await until(lambda: jwks(running), lambda answer: answer[0] == 508)
            await running.until_logged("relay_keys_fault", lambda line: "508" in line["reason"])
            assert await running.metric("relay_jwks_requests_total", upstream="op", result="loop") >= 1
            site.config["relays"]["op"]["jwks_uri"] = f"{upstream.base}/keys"
            site.write()
            await running.until_logged("reloaded", lambda _: running.log.count('"reloaded"') == 2)
            assert (await jwks(running))[0] == 200
            server.drops, server.is_misled = ("CDN-Loop",), True  # then without: it finds the set that is held
            await until(lambda: jwks(running), lambda answer: answer[0] == 508)  # also to the reading of another worker
            await running.until_logged("relay_keys_fault", lambda line: "JWK Set leads to notifier" in line["reason"])
            server.is_misled = False
            await until(lambda: jwks(running), lambda answer: answer[0] == 200)
            assert await running.stop() == 0


class _Balancer(IdentityServer):
    """Its proxy leads to several workers in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.webs: list[str] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer by the next worker."""
        if self.webs:
            self.webs.append(self.webs.pop(0))
            self.web = self.webs[0]
        return await super().handle(request)


async def test_no_worker_holds_a_set_while_another_one_leads_to_itself(tmp_path: Path) -> None:
    """Behind a proxy that drops CDN-Loop, a worker may read the answer of another one: that is no outage."""
    server = _Balancer()
    async with LoopbackServer(server.handle) as upstream, AsyncExitStack() as stack:
        sites = list[Site]()
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            sites.append(installation(tmp_path / name, embedded(tmp_path / name), f"{upstream.base}/keys"))
        workers = [await stack.enter_async_context(worker(site)) for site in sites]
        for running in workers:
            assert (await jwks(running))[0] == 200
        server.drops, server.is_misled = ("CDN-Loop",), True
        server.webs = [await running.at("web") for running in workers]

        async def statuses() -> list[int]:
            return [(await jwks(running))[0] for running in workers]

        await until(statuses, lambda answers: answers == [508, 508])
        server.is_misled = False
        await until(statuses, lambda answers: answers == [200, 200])


async def test_at_most_100_dead_letters_an_hour_per_relay_beyond_503_with_retry_after(tmp_path: Path) -> None:
    """Nothing is answered 200 without a durable result. One line is logged.

    Tokens for known clients are accepted: also by an alias, or without an address, which causes no dead letter.
    """
    server = IdentityServer()
    async with Clients() as clients, LoopbackServer(server.handle) as upstream:
        shop = {**client("shop", clients.url("shop")), "aliases": ["https://shop.example.com"]}
        silent = {"client_id": "silent", "issuer": ISSUER}
        site = installation(tmp_path, embedded(tmp_path), f"{upstream.base}/keys", shop, silent)
        async with worker(site) as running:
            await running.until_ready()
            unknown = [f"c{nth}" for nth in range(100)]
            assert (await send(running, token(unknown, jti="j0")))[0] == 200
            await running.until_metric(100, "dead_letters_total")
            for nth in range(1, 20):
                status, text = await send(running, token(unknown, jti=f"j{nth}"))
                assert (status, "too many clients are unknown" in text) == (503, True)
            assert (await send(running, token(["shop", "c7"], jti="mixed")))[0] == 503
            for nth, known in enumerate(("shop", "https://shop.example.com", "silent")):
                assert (await send(running, token(known, sid=f"s{nth}", jti=f"known-{nth}")))[0] == 200
            await clients.until_notified("shop", ["s0", "s1"])
            assert len(running.logged("upstream_refused")) == 1
            assert await running.metric("dead_letters_total") == 100
            assert await running.stop() == 0


async def test_jwks_and_tokens_have_own_slots(tmp_path: Path) -> None:
    """JWKS is served beside 256 unfinished posts at notifier's port, and 900 requests while the server hangs."""
    server = IdentityServer()
    async with Clients() as clients, LoopbackServer(server.handle) as upstream:
        shop = client("shop", clients.url("shop"))
        site = installation(tmp_path, embedded(tmp_path), f"{upstream.base}/keys", shop)
        login = {
            "issuer": "https://other.op",
            "client_id": "us",
            "iss": OTHER,
            "resolve": {"same_sub": {"prefix": "o|"}},
        }
        site.config["upstreams"] = {"login": login}
        site.write()
        async with worker(site) as running:
            await running.until_ready()
            assert (await jwks(running))[0] == 200
            web = URL(await running.at("web"))
            async with unfinished_posts(web, "/upstreams/login/backchannel-logout"):
                await until(lambda: post_to(web / "upstreams/login/backchannel-logout"), lambda status: status == 429)
                assert (await jwks(running))[0] == 200
                assert (await send(running, token("shop", sid="s1")))[0] == 200
            async with unfinished_posts(web, "/relays/op/backchannel-logout", 300) as readers:
                assert (await send(running, token("shop", sid="s2", jti="j2")))[0] == 200  # strangers take no slot
                assert (await jwks(running))[0] == 200
                assert await asyncio.wait_for(readers[0].read(), 5) == b""  # of too many, the oldest is closed
            server.answering.clear()
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                await until(lambda: status_of(session, web / "relays/op/jwks"), lambda _: server.silent > 0)
                answers = await asyncio.gather(*(status_of(session, web / "relays/op/jwks") for _ in range(900)))
            assert set(answers) == {200}
            server.answering.set()
            assert await running.stop() == 0


async def post_to(url: URL) -> int:
    """The status of a POST without a token."""
    async with aiohttp.ClientSession() as session, session.post(url) as answer:
        return answer.status


async def status_of(session: aiohttp.ClientSession, url: URL) -> int:
    """The status of a GET."""
    async with session.get(url) as answer:
        return answer.status


@asynccontextmanager
async def unfinished_posts(web: URL, path: str, count: int = 256) -> AsyncIterator[Sequence[asyncio.StreamReader]]:
    """Connections whose bodies do not come."""
    head = f"POST {path} HTTP/1.1\r\nHost: {web.authority}\r\nContent-Length: 9\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(web.host, web.port)
        writer.write(head.encode() + b"log")
        await writer.drain()
        writers.append((reader, writer))
    try:
        yield [reader for reader, _ in writers]
    finally:
        for _, writer in writers:
            writer.close()


async def test_with_a_shared_key_and_another_user_agent_notifiers_token_does_not_return_endlessly(
    tmp_path: Path,
) -> None:
    """The relay refuses it by its `jti`, which the signature covers. So it does with a key that only notifier has."""
    server = IdentityServer()
    async with LoopbackServer(server.handle) as upstream, Clients() as clients:
        site = installation(tmp_path, embedded(tmp_path), f"{upstream.base}/keys")
        async with worker(site) as running:
            await running.until_ready()
            relay = f"{await running.at('web')}/relays/op/backchannel-logout"

            async def forward(hit: Hit) -> int:
                """Be a proxy that rewrites the User-Agent."""
                status, text = await send(running, hit.token, **{"User-Agent": "proxy/1"})
                assert "notifier sent this token" in text
                return status

            clients.judge = forward
            site.write_clients([client("shop", clients.url("shop")), client("mail", relay)])
            await running.until_logged("reloaded", lambda line: line["clients"] == 2)
            assert (await send(running, token(["shop", "mail"], sid="s1")))[0] == 200
            await running.until_metric(2, "dead_letters_total")
            server.keys += site.jwks(ISSUER)["keys"]  # now the server has notifier's key, too
            await until(lambda: jwks(running), lambda answer: len(answer[2]) == 2 and answer[2][1] == server.keys[1])
            assert (await send(running, token(["shop", "mail"], sid="s2", jti="j2")))[0] == 200
            await running.until_metric(4, "dead_letters_total")
            assert await running.metric("upstream_requests_total", result="accepted") == 2
            assert {line["result"] for line in running.logged("upstream_refused")} == {"loop"}
            assert await running.stop() == 0


async def test_a_strangers_cdn_loop_user_agent_kid_or_jti_causes_no_false_loop_log(tmp_path: Path) -> None:
    """A token is a loop only if notifier's key or the server's verifies it, and only the reading side logs."""
    server = IdentityServer()
    async with LoopbackServer(server.handle) as upstream:
        site = installation(tmp_path, embedded(tmp_path), f"{upstream.base}/keys")
        kid = site.jwks(ISSUER)["keys"][0]["kid"]
        async with worker(site) as running:
            await running.until_ready()
            url = f"{await running.at('web')}/relays/op/jwks"
            async with aiohttp.ClientSession(headers={"CDN-Loop": "notifier"}) as session:
                assert await status_of(session, URL(url)) == 508
            for named in (kid, "op-1"):
                forged = token("shop", named, "stranger", jti="nfr-1")
                assert (await send(running, forged, **{"User-Agent": "notifier/9"}))[0] == 400
            refused = await running.until_logged("upstream_refused")
            assert refused["result"] == "signature"
            assert await running.metric("relay_jwks_requests_total", result="loop") == 0
            assert await running.metric("upstream_requests_total", result="loop") == 0
            assert running.logged("relay_keys_fault") == []
            assert await running.stop() == 0


async def test_nothing_forged_is_accepted(tmp_path: Path) -> None:
    """No variant of a token without the server's signature, nor a token of another issuer, age or kind."""
    server = IdentityServer()
    async with LoopbackServer(server.handle) as upstream:
        site = installation(tmp_path, embedded(tmp_path), f"{upstream.base}/keys")
        async with worker(site) as running:
            await running.until_ready()
            now, good = int(time.time()), token("shop")
            head, _, rest = good.partition(".")
            none = segments(b'{"alg":"none","typ":"logout+jwt"}').decode()
            hs256 = signed(
                {"iss": ISSUER, "aud": "shop"}, OctKey.import_key(json.dumps(server.keys[0])), "HS256", "op-1"
            )
            variants = [
                f"{none}.{rest}", f"{none}.{rest.partition('.')[0]}.", hs256.decode(), f"{good}.a.b", good[:-8], "",
                token("shop", of="stranger"), token("shop", "op-9"), "x" * 40_000,
                token("shop", iss="https://evil.example"), token("shop", nonce="n"), token("shop", events={}),
                token("shop", iat=now - 3600, exp=now - 3000), token("shop", iat=now + 3600, exp=now + 7200),
                token({"a": "b"}), token([]), token(""), f"{head}.{rest[:-4]}AAAA",
            ]  # fmt: skip
            for variant in variants:
                assert (await send(running, variant))[0] == 400, variant
            assert await running.metric("upstream_requests_total", result="accepted") == 0
            assert await running.stop() == 0


@pytest.mark.full
async def test_jwks_is_served_while_tokens_and_copies_of_one_wait_for_a_frozen_broker(
    tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """Copies of a token share one publication: 503 in 4.5 s, and one delivery after the thaw."""
    server, broker = IdentityServer(), urlsplit(amqp_url)
    assert broker.hostname
    async with (
        Clients() as clients,
        LoopbackServer(server.handle) as upstream,
        TcpProxy(broker.hostname, broker.port or 5672) as network,
    ):
        through = amqp_url.replace(f"{broker.hostname}:{broker.port}", f"127.0.0.1:{network.port}")
        shop = client("shop", clients.url("shop"))
        site = installation(tmp_path, (through, prefix), f"{upstream.base}/keys", shop)
        async with worker(site) as running:
            await running.until_ready()
            network.stall(Way.UP)
            began_at = time.monotonic()
            copy = token("shop", sid="s1")
            sent = [asyncio.create_task(send(running, copy)) for _ in range(680)]
            sent += [asyncio.create_task(send(running, token("shop", jti=f"j{nth}"))) for nth in range(20)]
            await running.until_metric(100, "upstream_requests_total", result="busy")
            assert (await jwks(running))[0] == 200
            assert {status for status, _ in await asyncio.gather(*sent)} == {503}
            assert time.monotonic() - began_at < 15
            network.flow()
            await until(lambda: send(running, copy), lambda answer: answer[0] == 200)
            await clients.until(lambda: "s1" in clients.notified("shop"))
            assert await running.stop() == 0
        assert clients.notified("shop").count("s1") == 1


@pytest.mark.full
async def test_a_worker_that_serves_jwk_sets_stays_ready_while_only_the_broker_is_unreachable(
    tmp_path: Path, amqp_url: str, prefix: str
) -> None:
    """Sign-ins go on through a proxy without a fallback. A worker that never reached its broker is not ready."""
    server, broker = IdentityServer(), urlsplit(amqp_url)
    assert broker.hostname
    async with LoopbackServer(server.handle) as upstream, TcpProxy(broker.hostname, broker.port or 5672) as network:
        through = amqp_url.replace(f"{broker.hostname}:{broker.port}", f"127.0.0.1:{network.port}")
        site = installation(tmp_path, (through, prefix), f"{upstream.base}/keys")
        async with worker(site) as running:
            await running.until_ready()
            answers = list[tuple[int, bool, str | None]]()

            async def probe() -> tuple[int, bool, str | None]:
                status, text = await running.get("/readyz")
                assert (await jwks(running))[0] == 200
                document = json.loads(text)
                answers.append((status, document["consuming"], document["problem"]))
                return answers[-1]

            network.refuse()
            network.end(Ending.RESET)
            await until(probe, lambda answer: not answer[1] and answer[2] is not None)
            async with worker(site, ready=False) as late:
                await late.at("web")
                await until(lambda: jwks(late), lambda answer: answer[0] == 200)
                assert (await late.get("/readyz"))[0] == 503
                await network.accept()
                await late.until_ready()
                assert await late.stop() == 0
            await until(probe, lambda answer: answer[1])
            assert {status for status, *_ in answers} == {200}
            assert await running.stop() == 0

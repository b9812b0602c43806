"""A rig's installation with a web listener. Logouts come from upstream providers.

Each upstream publishes its keys at an address of its own.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from cryptography.fernet import Fernet

from tests.faults.embedded_rig import EmbeddedRig
from tests.faults.http_publisher import HttpPublisher, UpstreamSender
from tests.faults.rig import CLIENTS, PATIENCE, Rig
from tests.support.rabbitmq_node import free_ports
from tests.system.clients import Clients
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER, client
from tests.tokens.transmitter import key, public

S = TypeVar("S", bound=HttpPublisher)
SAME_SUB: Mapping[str, Any] = {"same_sub": {}}
APART = 1_000_000  # the numbers of two senders' sessions are so far from each other


Answer = Callable[[], Awaitable[web.StreamResponse]]


async def hangs() -> web.StreamResponse:
    """Answer nothing."""
    await asyncio.Event().wait()
    raise AssertionError


async def fails() -> web.StreamResponse:
    """Answer 500."""
    return web.Response(status=500)


async def rubbish() -> web.StreamResponse:
    """Answer what nobody can read."""
    return web.Response(body=b'\xff{"keys": [{"kty": 7', content_type="application/json")


class TroubledServer(LoopbackServer):
    """Answers by `_answer`. `trouble`: how it answers instead."""

    def __init__(self) -> None:
        super().__init__(self._handle)
        self.trouble: Answer | None = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await (self._answer(request) if self.trouble is None else self.trouble())

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raise NotImplementedError


class UpstreamServer(TroubledServer):
    """Publishes an upstream's metadata and keys."""

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        base = str(request.url.origin())
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": base, "jwks_uri": f"{base}/keys"})
        return web.json_response({"keys": [public(key("P-256"))]})


class SessionServer(TroubledServer):
    """Knows the sessions: each has the same `sid` here."""

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        sid = (await request.json())["sid"]
        return web.json_response({"sessions": [{"sub": "alice", "sid": sid, "clients": CLIENTS}]})

    @property
    def resolve(self) -> Mapping[str, Any]:
        """The settings by which it is asked."""
        return {"http": {"url": f"{self.base}/sessions"}}


class WebFace:
    """What stands before the rig `made`. Made by `faced`. All senders' logouts are in the rig's account."""

    def __init__(self, made: Rig) -> None:
        self.made = made
        self.api, self.web = free_ports(2)  # the same at each start: whoever sends finds the next worker there
        if isinstance(made, EmbeddedRig):
            self.api = made.port
        self.upstreams: dict[str, UpstreamSender] = {}
        self.servers: dict[str, UpstreamServer] = {}

    def add_upstream(self, name: str, server: UpstreamServer, resolve: Mapping[str, Any]) -> None:
        """Configure an upstream, and make its sender."""
        self.servers[name], issuer = server, server.base
        self.upstreams[name] = self._counted(UpstreamSender(self.web, CLIENTS, name, issuer))
        upstream = {
            "issuer": issuer,
            "client_id": "notifier",
            "iss": ISSUER,
            "resolve": resolve,
            "front_channel": "same_sub" not in resolve,
        }
        self.made.site.config.setdefault("upstreams", {})[name] = upstream
        self.made.site.write()

    def first(self, name: str) -> int:
        """The number of an upstream's first session."""
        return APART * (1 + [*self.upstreams].index(name))

    async def until_told(self, name: str, patience: float = PATIENCE) -> None:
        """Wait until all that this upstream has had taken by now was told to the client that takes everything."""
        mine = [each for each in self.made.publisher.confirmed if self._is_of(each, name)]
        assert mine
        await self.made.clients.until_told("healthy", mine, patience)

    def told(self, name: str) -> int:
        """How many of this upstream's sessions that client was told of."""
        return sum(path == "/healthy" and self._is_of(who, name) for path, who in self.made.clients.accepted)

    def _is_of(self, event: str, name: str) -> bool:
        return int(event) // APART == self.first(name) // APART

    def _counted(self, sender: S) -> S:
        sender.confirmed, sender.resent = self.made.publisher.confirmed, self.made.publisher.resent
        return sender


@contextlib.asynccontextmanager
async def faced(made: Rig, upstreams: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[WebFace]:
    """Give the rig a web listener and these upstreams, by how whose sessions end is found. All have the same keys."""
    site = made.site
    (site.folder / "web.keys").write_bytes(Fernet.generate_key())
    (site.folder / "web.keys").chmod(0o600)
    face = WebFace(made)
    pages = {ISSUER: {"url": f"{ISSUER}/connect/notify"}}
    site.config["web"] = {"listen": f"127.0.0.1:{face.web}", "keys_file": "web.keys", "issuers": pages}
    site.config["api"]["listen"] = f"127.0.0.1:{face.api}"
    site.write()
    healthy, *others = (client(name, made.clients.url(name)) for name in CLIENTS)
    site.write_clients([{**healthy, "frontchannel_logout_uri": "https://healthy.example.com/out"}, *others])
    async with contextlib.AsyncExitStack() as stack:
        for name, resolve in upstreams.items():
            face.add_upstream(name, await stack.enter_async_context(UpstreamServer()), resolve)
        for sender in face.upstreams.values():
            stack.push_async_callback(sender.close)
        yield face


def most_told_again(clients: Clients) -> int:
    """How often a client was told of one session beyond the request that settled it, at most."""
    came = Counter((hit.path, hit.who) for hit in clients.hits)
    return max(came[pair] - nth for pair, nth in clients.accepted.items())

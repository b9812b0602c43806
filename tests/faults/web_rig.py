"""A rig's installation with a web listener. Logouts come from upstream providers.

Each upstream publishes its keys at an address of its own.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from tests.faults.http_publisher import UpstreamSender
from tests.faults.rig import CLIENTS, PATIENCE, Rig
from tests.support.rabbitmq_node import free_ports
from tests.system.clients import Clients
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER
from tests.tokens.transmitter import key, public

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


class UpstreamServer(LoopbackServer):
    """Publishes an upstream's metadata and keys. `trouble`: how it answers instead."""

    def __init__(self) -> None:
        super().__init__(self._handle)
        self.trouble: Answer | None = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.trouble is not None:
            return await self.trouble()
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.base, "jwks_uri": f"{self.base}/keys"})
        return web.json_response({"keys": [public(key("P-256"))]})


class WebFace:
    """The web listener and upstreams of the rig `made`. Made by `faced`. The rig accounts for all senders' logouts."""

    def __init__(self, made: Rig) -> None:
        self.made = made
        [self.web] = free_ports(1)  # the same at each start: whoever sends finds the next worker there
        self.upstreams: dict[str, UpstreamSender] = {}
        self.servers: dict[str, UpstreamServer] = {}

    def add_upstream(self, name: str, server: UpstreamServer) -> None:
        """Configure an upstream, and make its sender."""
        sender = UpstreamSender(self.web, CLIENTS, name, server.base)
        sender.confirmed, sender.resent = self.made.publisher.confirmed, self.made.publisher.resent
        self.servers[name], self.upstreams[name] = server, sender
        upstream = {"issuer": server.base, "client_id": "notifier", "iss": ISSUER, "resolve": {"same_sub": {}}}
        self.made.site.config.setdefault("upstreams", {})[name] = upstream

    def first(self, name: str) -> int:
        """Return the number of an upstream's first session."""
        return APART * (1 + [*self.upstreams].index(name))

    async def until_told(self, name: str) -> None:
        """Wait until the client `healthy` was notified of every session taken from this upstream so far."""
        mine = [each for each in self.made.publisher.confirmed if int(each) // APART == self.first(name) // APART]
        assert mine
        await self.made.clients.until_told("healthy", mine, PATIENCE)


@contextlib.asynccontextmanager
async def faced(made: Rig, *upstreams: str) -> AsyncIterator[WebFace]:
    """Give the rig a web listener and these upstreams. All have the same keys."""
    face = WebFace(made)
    made.site.serve_web(face.web)
    async with contextlib.AsyncExitStack() as stack:
        for name in upstreams:
            face.add_upstream(name, await stack.enter_async_context(UpstreamServer()))
            stack.push_async_callback(face.upstreams[name].close)
        made.site.write()
        yield face


def most_told_again(clients: Clients) -> int:
    """How often a client was told of one session beyond the request that settled it, at most."""
    came = Counter((hit.path, hit.who) for hit in clients.hits)
    return max(came[pair] - nth for pair, nth in clients.accepted.items())

"""Upstream providers send logouts while the queue or their own keys are unavailable.

Each logout taken is delivered once, and an upstream whose keys are unavailable delays no other.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from tests.faults.conftest import Form, Record
from tests.faults.embedded_rig import embedded
from tests.faults.http_publisher import UpstreamSender
from tests.faults.rig import CLIENTS, PATIENCE, Rig, load, rig
from tests.support.rabbitmq_node import free_ports
from tests.system.loopback import LoopbackServer
from tests.system.site import ISSUER
from tests.system.tcp_proxy import Ending, TcpProxy
from tests.system.worker_process import worker
from tests.tokens.transmitter import key, public

MANY, FEW = 300, 15  # logouts: the listener serves 256 requests at a time
OTHERS = 1_000_000  # the number of the second upstream's first session
REFUSED = 20  # requests that are answered 503 before the queue comes back
TROUBLES = ("hangs", "fails", "rubbish")


class UpstreamServer(LoopbackServer):
    """Publishes an upstream's metadata and keys, unless it is in one of the TROUBLES. `sender` sends its logouts."""

    def __init__(self, port: int) -> None:
        super().__init__(self._handle)
        self.trouble = ""
        self.sender: UpstreamSender
        self._web = port

    def join(self, made: Rig, name: str) -> None:
        """Configure the upstream; the rig accounts for its logouts."""
        self.sender = UpstreamSender(self._web, CLIENTS, name, self.base)
        self.sender.confirmed, self.sender.resent = made.publisher.confirmed, made.publisher.resent
        upstream = {"issuer": self.base, "client_id": "notifier", "iss": ISSUER, "resolve": {"same_sub": {}}}
        made.site.config.setdefault("upstreams", {})[name] = upstream

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.trouble == "hangs":
            await asyncio.Event().wait()
        if self.trouble:
            body = b'\xff{"keys": [{"kty": 7' if self.trouble == "rubbish" else None
            return web.Response(status=200 if body else 500, body=body, content_type="application/json")
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.base, "jwks_uri": f"{self.base}/keys"})
        return web.json_response({"keys": [public(key("P-256"))]})


@contextlib.asynccontextmanager
async def upstreams(made: Rig, *names: str) -> AsyncIterator[list[UpstreamServer]]:
    """Give the rig a web listener and these upstreams. All have the same keys."""
    [port] = free_ports(1)  # the same at each start: whoever sends finds the next worker there
    made.site.serve_web(port)
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(UpstreamServer(port)) for _ in names]
        for name, server in zip(names, servers, strict=True):
            server.join(made, name)
            stack.push_async_callback(server.sender.close)
        made.site.write()
        yield servers


@pytest.mark.fault(
    "upstream", "the queue away while upstreams send: they get 503, send again, and each logout is delivered"
)
@pytest.mark.timeout(600)
async def test_broker_down_while_upstreams_send(
    tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], record: Record
) -> None:
    """Connections are reset, and no new ones are accepted."""
    times, at = form(1, 5), urlsplit(amqp_url)
    async with TcpProxy(at.hostname or "", at.port or 5672) as way:
        url = at._replace(netloc=f"{at.username}:{at.password}@127.0.0.1:{way.port}").geturl()
        async with rig(tmp_path, url, prefix) as made, upstreams(made, "login") as [login]:
            async with worker(made.site) as running:
                async with load(login.sender, 50.0):
                    for _ in range(times):
                        await made.more(60)
                        way.refuse()
                        way.end(Ending.RESET)
                        await login.sender.until_answered(503, login.sender.answers[503] + REFUSED, 60)
                        await way.accept()
                        await running.until_ready()
                await made.settle(running)
            record(await made.account(cause="held when the connection was lost"), times=times)


@pytest.mark.fault(
    "upstream", "its keys hang or cannot be read: its logouts are delivered later, those of others at once"
)
@pytest.mark.timeout(600)
async def test_keys_of_one_upstream_unavailable(tmp_path: Path, form: Form[int], record: Record) -> None:
    """A first worker has no keys yet. More of that upstream's requests come than the listener serves at a time."""
    troubles = TROUBLES[: form(1, 3)]
    async with embedded(tmp_path) as made, upstreams(made, "login", "other") as [login, other]:
        for nth, trouble in enumerate(troubles):
            login.trouble = trouble
            numbers = range(nth * MANY, (nth + 1) * MANY)
            others = [OTHERS + each for each in numbers[:FEW]]
            async with worker(made.site) as running:
                async with asyncio.TaskGroup() as group:
                    group.create_task(login.sender.publish(numbers, rate=1000))
                    await login.sender.until_answered(503, login.sender.answers[503] + REFUSED, 60)
                    await other.sender.publish(others, rate=50)
                    await made.clients.until_notified("healthy", [*map(str, others)], PATIENCE)
                    assert await running.metric("upstream_requests_total", upstream="login", result="accepted") == 0
                    login.trouble = ""
                await made.settle(running)
        assert 503 not in other.sender.answers
        assert login.sender.answers.keys() >= {200, 503}
        record(await made.account(), times=len(troubles))

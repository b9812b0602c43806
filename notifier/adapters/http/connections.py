"""Connections that know what happened on them, and that are made only to addresses the egress policy allows.

aiohttp does not tell three things that decide an outcome: whether a connection was used before, whether any byte of a
response came, and the status line of a response that it cannot parse. So this module has a private hook into aiohttp,
the connector's `_factory` of protocols; what is done where a new version changes it is said in `aiohttp_hooks`.
What a request meets is noted in its `Exchange`, which aiohttp's own tasks find by a context variable.

TLS handshakes are not limited in number. A start with 1,000 deliveries waiting for 200 clients makes 600, which take
0.5 s in all and 1.5 s where three other processes fight for the two cores: far from any deadline, since a client begins
with two attempts at a time. A limit would be held by those that never end, and keep the healthy from connecting.
"""

import asyncio
import errno
import re
import socket
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from notifier.domain.client import EgressPolicy
from notifier.domain.egress import judge

HEAD_LIMIT = 16 * 1024  # bytes of a response's status line and headers
# Bytes that are parsed for one request, whatever they are: chunk extensions never end up in a body, and answers that
# nobody asked for cost 10 µs each, and pile up in a connection that is kept for reuse (1.6 GiB within 3 s).
WIRE_LIMIT = HEAD_LIMIT + 32 * 1024
GOODBYE = 1.0  # seconds a TLS peer has to answer our close_notify; asyncio would hold its socket for 30
KEEP_ALIVE = 15.0  # seconds an idle connection is kept; that many servers close theirs after 5 s costs one more go

ADDRESSES = 8  # of each family that are tried; a name server may send thousands, which took a core to the deadline

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r\n]")
_RETRY_AFTER = re.compile(rb"\nRetry-After:[ \t]*([^\r\n]{1,100})", re.IGNORECASE)
_FINAL = re.compile(rb"HTTP/1\.[01] (101|[2-9][0-9]{2})[ \r\n]")


@dataclass(slots=True)
class Exchange:
    """What one request has met so far. `denied` is why an address was not connected to; `tried`: another one was.

    `reached` when the first connection stood (with a proxy, the one to the proxy). `connection` is what the request
    goes over: it is written as soon as there is one. `reused` when that connection had served before.
    """

    new_connection: bool = False
    denied: str | None = None
    tried: bool = False
    reached: bool = False
    connection: "WatchedConnection | Unwatched | None" = None
    reused: bool = False


current_exchange: ContextVar[Exchange] = ContextVar("current_exchange")


class OpenConnections:
    """How many connections are open that a request went over, in all connectors together.

    Beyond `keep` none is kept alive, so that a logout at 100,000 clients does not mean 100,000 idle sockets.
    Counted from the first use: the protocol that asked a proxy for a tunnel is never told that its connection is lost.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.count = 0


class WatchedConnection(ResponseHandler):
    """aiohttp's protocol, which keeps the head of the response and gives up on one that is too large."""

    def __init__(self, loop: asyncio.AbstractEventLoop, open_connections: OpenConnections, wire_limit: int) -> None:
        super().__init__(loop=loop)
        self._wire_limit = wire_limit
        self.uses = 0
        self.head = b""  # with the informational responses before the answer, of which there may be any number
        self.head_too_large = False
        self._parsed = 0  # bytes since the last request was written
        self._answer = 0  # where in it the answer begins
        self._head_complete = False
        self._lost = False
        self._open_connections = open_connections

    def begin(self) -> None:
        """A request is about to be written."""
        if self._lost:
            return  # since it was made: the request will meet it
        if not self.uses:
            self._open_connections.count += 1
        self.uses += 1
        self.head = b""
        self._parsed = 0
        self._answer = 0
        self._head_complete = False

    @property
    def status(self) -> int | None:
        """The status of a final response, as soon as its status line was read."""
        line = _STATUS_LINE.match(self.head, self._answer)
        return int(line[1]) if line is not None and int(line[1]) >= 200 else None

    @property
    def retry_after(self) -> str | None:
        """That header, as far as it was read: of a response that has something wrong with it elsewhere."""
        end = _HEAD_END.search(self.head, self._answer)
        found = _RETRY_AFTER.search(self.head, self._answer, len(self.head) if end is None else end.end())
        return None if found is None else found[1].decode("latin-1")

    def close(self) -> None:
        """Of aiohttp: in good order, as long as the other side does its part."""
        transport = self.transport
        super().close()
        if transport is not None and transport.get_extra_info("sslcontext") is not None:
            self._loop.call_later(GOODBYE, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Of asyncio."""
        self._lost = True
        if self.uses:
            self._open_connections.count -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._parsed + len(data) > self._wire_limit:
            data = data[: self._wire_limit - self._parsed]
            self.force_close()
            if self.transport is not None:
                self._loop.call_soon(self.transport.abort)  # once what came until now has been read
        self._parsed += len(data)
        if not self._head_complete and self.uses:
            self.head += data[:HEAD_LIMIT]
            self._head_complete = self._ends_head()
            if not self._head_complete and len(self.head) >= HEAD_LIMIT and self.transport is not None:
                self.head_too_large = True
                self.transport.abort()
                return
        super().data_received(data)

    def _ends_head(self) -> bool:
        if b"\r\n\r\n" in self.head and _FINAL.match(self.head):  # nearly all
            return True
        while (end := _HEAD_END.search(self.head, self._answer)) is not None:
            if _FINAL.match(self.head, self._answer):
                return True
            self._answer = end.end()
        return False


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A connection of which is known that it stood, and so that the request may have been written."""

    status: None = None
    retry_after: None = None
    head: bytes = b""
    head_too_large: bool = False


class _FewAddresses(AbstractResolver):
    """The first addresses of each family, in the order of the resolver, which is closed by whoever made it."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Of aiohttp."""
        found = await self._resolver.resolve(host, port, family)
        if len(found) <= ADDRESSES:
            return found
        families = ([each for each in found if (":" in each["host"]) is six] for six in (True, False))
        few = {id(each) for of_family in families for each in of_family[:ADDRESSES]}
        return [each for each in found if id(each) in few]

    async def close(self) -> None:
        """Nothing of its own."""


class GuardedConnector(aiohttp.TCPConnector):
    """A pool of connections made under one egress policy, which is None where a proxy connects for us."""

    def __init__(
        self,
        policy: EgressPolicy | None,
        resolver: AbstractResolver,
        open_connections: OpenConnections,
        kept_for: float = KEEP_ALIVE,
        wire_limit: int = WIRE_LIMIT,
    ) -> None:
        super().__init__(
            resolver=_FewAddresses(resolver),
            keepalive_timeout=kept_for,
            limit=0,  # admission has a cap for each client and for all; what hangs must not keep others waiting in here
            socket_factory=_sockets(policy),
        )
        self._open_connections = open_connections
        self._wire_limit = wire_limit
        self._factory = cast("Any", self._watched)  # the private hook, see the module

    def _watched(self) -> WatchedConnection:
        current_exchange.get().reached = True
        return WatchedConnection(asyncio.get_running_loop(), self._open_connections, self._wire_limit)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the signature is aiohttp's
    ) -> aiohttp.connector.Connection:
        """Of aiohttp: a connection from the pool, or a new one."""
        exchange = current_exchange.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            watched = connection.protocol
            assert isinstance(watched, WatchedConnection)
            if not watched.uses or not (exchange.new_connection or watched.should_close):
                break
            # Either the caller met a stale one, and the others kept for that host are most likely no better; or
            # something came unasked while it was idle, which aiohttp would take for the answer to this request.
            connection.close()
        exchange.reused = watched.uses > 0
        exchange.connection = watched
        watched.begin()
        if self._open_connections.count > self._open_connections.keep:
            watched.force_close()
        return connection


def plain_connector(policy: EgressPolicy | None, resolver: AbstractResolver) -> aiohttp.TCPConnector:
    """As `GuardedConnector` in where it connects to, by aiohttp's face alone. No connection is kept."""
    return aiohttp.TCPConnector(
        resolver=_FewAddresses(resolver), force_close=True, limit=0, socket_factory=_sockets(policy)
    )


def noting() -> aiohttp.TraceConfig:
    """Has a session note in the `Exchange` of each request when its connection stands."""

    async def stands(*_: object) -> None:
        exchange = current_exchange.get()
        exchange.reached = True
        exchange.connection = Unwatched()

    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(stands)
    return config


def _sockets(policy: EgressPolicy | None) -> Callable[[Any], socket.socket]:
    return _open_socket if policy is None else _guard(policy)


def _guard(policy: EgressPolicy) -> Callable[[Any], socket.socket]:
    """A maker of sockets for the addresses that the policy allows: it sees what is really connected to."""

    def make(address: Any) -> socket.socket:
        exchange = current_exchange.get()
        mistake = judge(address[4][0], policy)
        if mistake is not None:
            exchange.denied = mistake
            raise OSError(errno.EACCES, mistake)
        exchange.tried = True
        return _open_socket(address)

    return make


def _open_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)

"""Connects only to addresses that the egress policy allows, and only to the first few of each name.

It uses a private hook, the connector's `_factory` of protocols, which `aiohttp_hooks` examines.

The number of TLS handshakes is not limited. A start with 1,000 deliveries for 200 clients makes 600, which take 0.5 s,
or 1.5 s if three other processes compete for the two cores. That is far below any deadline, since a client begins with
two concurrent attempts. With a limit, handshakes that never end would prevent connections to healthy clients.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from notifier.model.client import EgressPolicy
from notifier.model.egress import check_address
from notifier.network.http.connections import MAX_WIRE_BYTES, OpenConnections, WatchedConnection, current_exchange

KEEP_ALIVE_SECONDS = 15.0  # of an idle connection; many servers close theirs after 5 s, which costs a repetition
# Bytes that the kernel holds of each connection (it doubles that), so that one read is short. Lists are megabytes: over
# 100 ms the buffer would limit them to 640 KB/s.
RECEIVE_BUFFER_BYTES = 32 * 1024
MAX_ADDRESSES = 8  # of each family; a name server may return thousands, which would keep a core busy until the deadline


class _LimitedResolver(AbstractResolver):
    """Returns the first addresses of each family, in the order of the resolver. The resolver's creator closes it."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Called by aiohttp."""
        addresses = await self._resolver.resolve(host, port, family)
        if len(addresses) <= MAX_ADDRESSES:
            return addresses
        ipv6 = [address for address in addresses if ":" in address["host"]]
        ipv4 = [address for address in addresses if ":" not in address["host"]]
        kept = {id(address) for address in (*ipv6[:MAX_ADDRESSES], *ipv4[:MAX_ADDRESSES])}
        return [address for address in addresses if id(address) in kept]

    async def close(self) -> None:
        """Do nothing: the resolver's creator closes it."""


class GuardedConnector(aiohttp.TCPConnector):
    """A pool of connections under one egress policy. `policy`: None if a proxy connects to the clients."""

    def __init__(
        self,
        policy: EgressPolicy | None,
        resolver: AbstractResolver,
        open_connections: OpenConnections,
        kept_for: float = KEEP_ALIVE_SECONDS,
        wire_limit: int = MAX_WIRE_BYTES,
    ) -> None:
        super().__init__(
            resolver=_LimitedResolver(resolver),
            keepalive_timeout=kept_for,
            limit=0,  # admission limits each client and all; a hanging client must not delay others here
            socket_factory=_socket_factory(policy, None if wire_limit > MAX_WIRE_BYTES else RECEIVE_BUFFER_BYTES),
        )
        self._open_connections = open_connections
        self._wire_limit = wire_limit
        self._factory = cast("Any", self._watched)  # the private hook, see the module

    def _watched(self) -> WatchedConnection:
        current_exchange.get().reached = True
        return WatchedConnection(asyncio.get_running_loop(), self._open_connections, self._wire_limit)

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        """Called by aiohttp. Return a connection from the pool, or a new one."""
        exchange = current_exchange.get()
        broken = exchange.connection
        if broken is not None and not exchange.repeated:  # aiohttp's session would send the request again
            raise broken.exception() or aiohttp.ServerDisconnectedError
        while True:
            connection = await super().connect(*args, **options)
            watched = connection.protocol
            assert isinstance(watched, WatchedConnection)
            is_new = not watched.uses
            if is_new or not (exchange.new_connection or watched.should_close):
                break
            # A new connection is needed after a stale one, since the others of the host are probably stale too. If
            # data has arrived while the connection was idle, aiohttp would take it for the response to this request.
            connection.close()
        exchange.reused = watched.uses > 0
        exchange.connection = watched
        watched.begin(exchange.client)
        if self._open_connections.count > self._open_connections.keep:
            watched.force_close()
        return connection


def _socket_factory(policy: EgressPolicy | None, receive_buffer: int | None) -> Callable[[Any], socket.socket]:
    """Return a function that opens a socket for the address of a connection, if the policy allows the address."""

    def open_socket(address: Any) -> socket.socket:
        if policy is not None:
            exchange = current_exchange.get()
            denied = check_address(address[4][0], policy)
            if denied is not None:
                exchange.denied = denied
                raise OSError(errno.EACCES, denied)
            exchange.tried = str(address[4][0])
        family, kind, protocol, _, _ = address
        opened = socket.socket(family, kind, protocol)
        if receive_buffer is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        return opened

    return open_socket

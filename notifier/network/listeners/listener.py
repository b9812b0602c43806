"""Starts and stops an HTTP listener with an aiohttp application, and limits its connections.

`bounded_connection` limits the time for a header, and the bytes that a connection holds outside of a request. The
application limits bodies. Compressed bodies are not supported. An idle connection stays open for longer than load
balancers keep it (nginx and AWS 60 s, Google 600 s), which answer 502 if it is closed while they send a request.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from aiohttp import web, web_response

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.shared_resources import shared_bound
from notifier.network.counted_tls import MAX_CLIENT_HANDSHAKE_BYTES, CountedContext
from notifier.network.listeners.authorization import Tokens
from notifier.network.listeners.bounded_connection import BODY_BUFFER_BYTES, LINGER_SECONDS, BoundedConnection
from notifier.network.listeners.held_bytes import PIECE_BYTES, ConnectionBudget
from notifier.network.listeners.problem import (
    ConnectionRefusal,
    is_loggable,
    is_long_path,
    is_of_closed_connection,
    long_path_response,
    remove_server_header,
)
from notifier.network.listeners.turns import Parties, Party, StepTimer, Turns, network_of, rest_factor_after

HANDSHAKE_TIMEOUT_SECONDS = 10.0  # seconds for TLS
MAX_HANDSHAKES = shared_bound(64)  # that have begun. 900 parts of them that arrive together took 0.8 s, with RSA 2048
OTHER_HANDSHAKE_SECONDS = 0.0002  # of the event loop, beside those in OpenSSL
HANDSHAKE_REST = 2.0  # times the time of a handshake, from its start: for the handshake, and as long for other work
MAX_CONNECTIONS = shared_bound(1000)  # at a time
MAX_BACKLOG = shared_bound(1024)  # queued by the kernel; with asyncio's default of 100, others would wait for a second
MAX_HEADERS = 64
IDLE_SECONDS = 620.0  # between two requests of a connection
# Bytes that the kernel holds of each connection (it doubles that), so that no read is larger.
RECEIVE_BUFFER_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A running listener. `port` is the real port, even if 0 was configured."""

    host: str
    port: int
    tls: bool
    runner: web.AppRunner
    server: asyncio.Server

    @property
    def url(self) -> str:
        """The URL of the listener."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    async def close(self) -> None:
        """Accept no more connections, give running requests the grace to end, and close."""
        self.server.close()
        await self.runner.cleanup()


async def listen(  # noqa: PLR0913  each has its default
    app: web.Application,
    host: str,
    port: int,
    *,
    key: str,
    tls: CountedContext | None = None,
    grace: float = 1.0,
    header_timeout: float = 10.0,
    answer_timeout: float = 60.0,
    connections: int = MAX_CONNECTIONS,
    budget: ConnectionBudget | None = None,
    tokens: Tokens = lambda: None,
) -> Listener:
    """Serve `app` at this address, which the setting `key` names (`ops.listen`).

    `grace`: seconds for running requests when the listener closes. `connections`: the limit of open connections, see
    `_Acceptor`. All listeners of a process share one `budget`. `header_timeout`: seconds for a whole header.
    `answer_timeout`: seconds to read a response.

    Raises ConfigurationError with the reason if the address is unusable.
    """
    logger = logging.getLogger("notifier.server")
    logger.addFilter(is_loggable)  # only once, however often this runs
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=grace,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
        max_headers=MAX_HEADERS,
        read_bufsize=BODY_BUFFER_BYTES,
        auto_decompress=False,
        logger=logger,
    )
    app.on_response_prepare.append(remove_server_header)
    # Its pages for requests that it cannot parse pass no hook of an application, and would show versions of libraries.
    vars(web_response)["SERVER_SOFTWARE"] = "notifier"
    await runner.setup()
    assert runner.server is not None
    acceptor = _Acceptor(
        runner.server, budget or ConnectionBudget(), connections, (header_timeout, answer_timeout), tls, tokens
    )
    try:
        where = None if host == "*" else host  # None: both families
        server = await asyncio.get_running_loop().create_server(acceptor, where, port, backlog=MAX_BACKLOG)
    except OSError as error:
        await runner.cleanup()
        what = _EXPLANATIONS.get(error.errno or 0, f"cannot be listened on: {error.strerror or type(error).__name__}")
        raise ConfigurationError([InputIssue(key, f"{host}:{port} {what}")]) from error
    for listening in server.sockets:  # the sockets of connections inherit it
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    real = int(server.sockets[0].getsockname()[1])
    return Listener(host=host, port=real, tls=tls is not None, runner=runner, server=server)


class _Acceptor:
    """Accepts each connection. If more than `max_connections` are open, it closes the oldest connections.

    Idle connections are closed at once, others after their response, so that silent connections never exclude others.
    If each connection has a request in progress, a new connection gets 503 with Retry-After, and is closed. Connections
    accepted in one round of the event loop count from the next round on. With TLS a connection counts from before its
    handshake, in which it holds 50 KiB. `seconds`: for a head, and to read a response.
    """

    def __init__(
        self,
        server: web.Server,
        budget: ConnectionBudget,
        max_connections: int,
        seconds: tuple[float, float],
        tls: CountedContext | None,
        tokens: Tokens,
    ) -> None:
        self._server = server
        self._budget = budget
        self._max_connections = max_connections
        self._seconds = seconds
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self._tls = tls
        self._parties = Parties(tokens)
        self._connections: dict[web.RequestHandler, BoundedConnection | _Handshake] = {}  # oldest first
        self._handshakes: dict[_Handshake, None] = {}  # that have begun, oldest first
        self._handshake_turns = Turns(), Party()
        self._answer = server.request_handler
        server.request_handler = self._answer_one

    async def _answer_one(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, and record that it is in progress."""
        connection = self._connections.get(request.protocol)
        if not isinstance(connection, BoundedConnection):
            return await self._respond(request)
        connection.on_request(request)
        timer, status = StepTimer(self._respond(request)), 500
        try:
            response = await timer
            status = response.status
        finally:
            connection.on_answer(timer.seconds, rest_factor_after(request.method, status))
        return response

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return long_path_response() if is_long_path(request) else await self._answer(request)
        except ConnectionError as error:
            if not is_of_closed_connection(error, request):
                raise
            return web.Response()  # aiohttp drops it, and logs no error

    def __call__(self) -> asyncio.BaseProtocol:
        """Called by asyncio for each accepted connection."""
        surplus_count = len(self._connections) + 1 - self._max_connections
        if surplus_count > 0:
            if sum(connection.busy for connection in self._connections.values()) >= self._max_connections:
                return ConnectionRefusal(secure=self._tls is not None)
            for connection in list(self._connections.values())[:surplus_count]:
                connection.end()
        handler = self._server()
        accepted = BoundedConnection(
            handler, self._budget, self._buffer, *self._seconds, self._parties, self._connections
        )
        if self._tls is None:
            return accepted
        return _Handshake(accepted, self._tls, self._connections, self._handshakes, self._handshake_turns, self._budget)


class _Handshake(asyncio.Protocol):
    """Represents a TLS connection in the set of connections and in the budget until its handshake has ended.

    asyncio's server would start the handshake itself, and report the connection only afterwards. Therefore the server
    accepts the connection without TLS, and this class takes over its socket.

    A handshake blocks the event loop for 1 ms, and strangers can send very many at the same moment. So each begins in
    its turn, once its first bytes are there and the loop had as much time for other work as the handshakes took. Beyond
    MAX_HANDSHAKES the oldest is closed: it waits for its client.
    """

    busy = False

    def __init__(
        self,
        connection: BoundedConnection,
        context: CountedContext,
        connections: "dict[web.RequestHandler, BoundedConnection | _Handshake]",
        begun: "dict[_Handshake, None]",
        turns: tuple[Turns, Party],
        budget: ConnectionBudget,
    ) -> None:
        self._connection = connection
        self._context = context
        self._connections = connections
        self._begun = begun
        self._turns, self._party = turns
        self._budget = budget
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._network = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        stream = cast("asyncio.Transport", transport)
        self._network = network_of(stream.get_extra_info("peername"))
        try:
            self._socket = stream.get_extra_info("socket").dup()  # it does not block
        except OSError:  # too many open files
            return
        finally:
            stream.abort()  # closes this descriptor, not the connection
        self._connections[self._connection.handler] = self
        self._task = asyncio.get_running_loop().create_task(self._run_handshake(self._socket))
        self._budget.hold(self, MAX_CLIENT_HANDSHAKE_BYTES)

    def end(self) -> None:
        """Close the connection at once."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    abort = end  # by the budget

    async def _wait_for_turn(self, accepted: socket.socket, deadline: float) -> None:
        """Wait for the first bytes, and then for other connections. Close the socket and raise if none come in time."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()

        def begin() -> None:
            self._party.rest(self._context.take_handshake_seconds() + OTHER_HANDSHAKE_SECONDS, HANDSHAKE_REST)
            if not turn.done():
                turn.set_result(None)

        def on_bytes() -> None:
            loop.remove_reader(accepted)
            self._turns.add(self._party, begin, self._network)

        loop.add_reader(accepted, on_bytes)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException:
            loop.remove_reader(accepted)
            self._party.remove(begin, self._network)
            accepted.close()
            raise

    async def _run_handshake(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HANDSHAKE_TIMEOUT_SECONDS
        try:
            await self._wait_for_turn(accepted, deadline)
            if len(self._begun) >= MAX_HANDSHAKES:
                oldest = next(iter(self._begun))
                del self._begun[oldest]
                oldest.end()
            self._begun[self] = None
            await loop.connect_accepted_socket(
                lambda: self._connection, accepted, ssl=self._context, ssl_handshake_timeout=deadline - loop.time()
            )
        except OSError:
            return  # the handshake failed, or `end` has closed the connection
        finally:
            self._begun.pop(self, None)
            self._budget.hold(self, 0)
            if self._connections.get(self._connection.handler) is self:  # the connection replaces it after a success
                del self._connections[self._connection.handler]


_EXPLANATIONS: Mapping[int, str] = {
    errno.EADDRINUSE: "is taken by another process; stop it, or choose another port (0 takes any that is free)",
    errno.EADDRNOTAVAIL: "is not an address of this machine; 127.0.0.1 serves this machine only, * everybody",
    errno.EACCES: "may not be used by this user; ports below 1024 are reserved, choose a higher one",
}

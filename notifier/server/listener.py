"""A listening socket with an aiohttp application behind it: how both listeners start, stop, and bound what comes in.

aiohttp closes a connection that has not sent a whole header within `keepalive_timeout`, counted from its beginning or
from the last answer; bodies are the application's to bound. Nothing is unpacked: a compressed body is not understood.
"""

import asyncio
import errno
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from notifier.domain.errors import ConfigurationError, Mistake

HEADER_TIMEOUT = 10.0  # seconds, and how long a connection may idle
HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS
CONNECTIONS = 1000  # at a time; of each the header, at most, is in memory: 8 KiB a line
BACKLOG = 1024  # that the kernel holds until they are taken: a hundred, asyncio's own, has others wait for a second
HEADERS = 64
_LINGER = 2.0  # seconds for the rest of a body that was refused, so that the answer is read before the reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listener that serves. `port` is the real one, where 0 was asked for."""

    host: str
    port: int
    tls: bool
    runner: web.AppRunner
    server: asyncio.Server

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    async def close(self) -> None:
        """Take no more connections, let requests end (bounded by the grace given at the start), and close."""
        self.server.close()
        await self.runner.cleanup()


async def listen(
    app: web.Application,
    host: str,
    port: int,
    *,
    key: str,
    tls: ssl.SSLContext | None = None,
    grace: float = 5.0,
    header_timeout: float = HEADER_TIMEOUT,
    connections: int = CONNECTIONS,
) -> Listener:
    """Serve `app` there. `key` is the setting that names the address (`ops.listen`); `grace` is for requests that run
    when it closes, and `header_timeout` for a whole header, both in seconds; `connections` at a time, see `_Door`.

    Raises ConfigurationError, which says what is wrong with the address.
    """
    logger = logging.getLogger("notifier.server")
    logger.addFilter(_discreet)  # once only, however often this runs
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=grace,
        keepalive_timeout=header_timeout,
        lingering_time=_LINGER,
        max_headers=HEADERS,
        auto_decompress=False,
        logger=logger,
    )
    app.on_response_prepare.append(_anonymous)
    door = _Door(runner, connections)
    app.middlewares.append(door.middleware)
    await runner.setup()
    try:
        server = await asyncio.get_running_loop().create_server(
            door,
            host,
            port,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_TIMEOUT,
        )
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError([Mistake(key, _explain(error, host, port))]) from error
    real = int(server.sockets[0].getsockname()[1])
    return Listener(host=host, port=real, tls=tls is not None, runner=runner, server=server)


class _Door:
    """Lets everybody in. Beyond `most` connections the oldest are closed: at once where they idle, else once answered.

    So no number of silent connections keeps others out, and who is closed had the longest to say something. Where so
    many have a request under way, the newcomer is told to come again, and closed. Those that are accepted in one turn
    of the loop, at most BACKLOG, are counted when the next comes.
    """

    def __init__(self, runner: web.AppRunner, most: int) -> None:
        self._runner = runner
        self._most = most
        self._busy: set[asyncio.BaseProtocol] = set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note that a request is under way."""
        self._busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(request.protocol)

    def __call__(self) -> asyncio.BaseProtocol:
        """Of asyncio, at each connection that is accepted."""
        server = self._runner.server
        assert server is not None, "connections come after the set-up"
        if len(self._busy) >= self._most:
            return _Full()
        oldest_first = server.connections
        for connection in oldest_first[: max(0, len(oldest_first) + 1 - self._most)]:
            if connection in self._busy:
                connection.close()
            else:
                connection.force_close()
        return server()


class _Full(asyncio.Protocol):
    """Answers before anything is read: the connection itself is too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        transport.close()


_EXPLANATIONS: Mapping[int, str] = {
    errno.EADDRINUSE: "is taken by another process; stop it, or choose another port (0 takes any that is free)",
    errno.EADDRNOTAVAIL: "is no address of this machine; 127.0.0.1 serves this machine alone, 0.0.0.0 everybody",
    errno.EACCES: "may not be used by this user; ports below 1024 are reserved, choose a higher one",
}


def _explain(error: OSError, host: str, port: int) -> str:
    what = _EXPLANATIONS.get(error.errno or 0, f"cannot be listened on: {error.strerror or type(error).__name__}")
    return f"{host}:{port} {what}"


async def _anonymous(_request: web.Request, response: web.StreamResponse) -> None:
    """Versions of libraries are nobody's business."""
    response.headers.popall("Server", None)


def _discreet(record: logging.LogRecord) -> bool:
    """aiohttp logs a request it cannot parse with the offending line, which may well be the one with the token."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))

"""Scripted receivers of logout tokens for tests, on loopback, that misbehave on raw sockets.

`async with scripted(reset(), answer(204)) as receiver:` answers the first request with a reset and all later ones with
204. Requests consume the script in order, on any connection; its last behaviour repeats. Nothing sleeps: wait with
`receiver.until(...)`.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Self

from tests.support.behaviours import Behaviour, Peer, Received, answer

PATH = "/backchannel-logout"
PATIENCE = 10.0  # seconds after which any wait of a test fails


@dataclass(slots=True, kw_only=True)
class ScriptedReceiver:
    """The requests received so far, and the number of all (`connections`) and of open (`open`) connections."""

    script: list[Behaviour]
    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition, repr=False)

    @property
    def origin(self) -> str:
        """Return scheme, host and port."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Return a `backchannel_logout_uri`."""
        return self.origin + PATH

    @property
    def tokens(self) -> list[str]:
        """Return all received tokens, in order."""
        return [request.token for request in self.requests]

    async def until(self, condition: Callable[[Self], bool]) -> None:
        """Return once the condition holds; fail after PATIENCE."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _next(self) -> Behaviour:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        peer = Peer(reader=reader, writer=writer, number=self.connections)
        try:
            await self._note()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await self._converse(peer)
        finally:
            self.open -= 1
            writer.close()
            await self._note()

    async def _converse(self, peer: Peer) -> None:
        while not (peer.writer.is_closing() or peer.reader.at_eof()):
            if self.script[0].reads:
                request = await peer.request()
                if request is None:
                    return
                self.requests.append(request)
                await self._note()
            await self._next().run(peer)


@contextlib.asynccontextmanager
async def scripted(
    *script: Behaviour, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[ScriptedReceiver]:
    """Run a receiver that follows the script. `host` is the name in its URL; it always listens on 127.0.0.1."""
    receiver = ScriptedReceiver(script=list(script or (answer(200),)), scheme="https" if tls else "http", host=host)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError):  # asyncio would log the end of each connection as an error
            await receiver._serve(reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        ended = list(tasks)
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


@contextlib.asynccontextmanager
async def deaf_port() -> AsyncIterator[int]:
    """Reserve a port of 127.0.0.1 without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]

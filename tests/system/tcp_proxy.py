"""A TCP proxy on loopback that does what networks do: delays, cuts, resets in mid-frame, stalls one way, refuses.

Bytes go through unchanged and in order, or not at all. Everything can be changed while it runs, and holds for the
connections there are and for those to come. What a stalled way holds back includes the end of a connection: while
nothing gets through, no side notices that the other is gone.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from enum import Enum, StrEnum, auto
from types import TracebackType
from typing import Any, Self

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all


class Way(Enum):
    """`UP` is from who connected to where the proxy leads, `DOWN` is back."""

    UP = auto()
    DOWN = auto()


class Ending(StrEnum):
    """How a connection ends: as if the other side had hung up (FIN), or with a reset (RST)."""

    CUT = "cut"
    RESET = "reset"


class TcpProxy:
    """Listens on `port` and leads to `host` and `to`. `made` counts the connections that ever stood.

    `on_written` receives what clients write, piece by piece. `delay_seconds`: how much later each piece leaves, either
    way; raise it as you like, but lower it only while nothing is on its way.
    """

    def __init__(
        self, host: str, to: int, port: int = 0, on_written: Callable[[bytes], object] = lambda _piece: None
    ) -> None:
        self.port = port
        self.made = 0
        self.delay_seconds = 0.0
        self._target = host, to
        self._on_written = on_written
        self._flowing = {way: asyncio.Event() for way in Way}
        self.flow()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        # Bound and never listening: it keeps the port ours while connections are refused.
        self._keeper = _bound(port)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self.port = self._keeper.getsockname()[1]
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self._keeper.close()
        self.end(Ending.RESET)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ── the faults ──

    def end(self, ending: Ending) -> None:
        """End every connection now, on both sides."""
        for connection in list(self._connections):
            connection.end(ending)

    def end_after(self, way: Way, count: int, ending: Ending) -> None:
        """Let so many more bytes of each connection through that way, then end it: in the middle of whatever it is."""
        for connection in self._connections:
            connection.left[way] = count, ending

    def stall(self, *ways: Way) -> None:
        """Hold back everything that goes these ways. Nothing is closed."""
        for way in ways:
            self._flowing[way].clear()

    def flow(self) -> None:
        """Forward everything again, held data first."""
        for flowing in self._flowing.values():
            flowing.set()

    def refuse(self) -> None:
        """Refuse new connections; those there are live on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Take new connections, again."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self.port), backlog=1024)

    # ── what it sees ──

    @property
    def connections(self) -> int:
        """How many stand now."""
        return len(self._connections)

    async def until_connections(self, least: int, patience: float) -> None:
        """Return once so many stand."""
        async with asyncio.timeout(patience), self._changed:
            await self._changed.wait_for(lambda: len(self._connections) >= least)

    async def until_made(self, least: int, patience: float) -> None:
        """Return once so many have ever stood."""
        async with asyncio.timeout(patience), self._changed:
            await self._changed.wait_for(lambda: self.made >= least)

    # ── one connection ──

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._pass_on(reader, writer)
        except asyncio.CancelledError:
            pass  # only by our own end; asyncio would print it
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, onward = await asyncio.open_connection(*self._target)
        except OSError:
            _end(writer, Ending.RESET)
            return
        connection = _Connection(writer, onward)
        async with self._standing(connection):
            ways: asyncio.Future[Any] = asyncio.gather(
                self._one_way(Way.UP, connection, reader, onward), self._one_way(Way.DOWN, connection, there, writer)
            )
            ended: asyncio.Future[Any] = asyncio.ensure_future(connection.ended.wait())
            try:
                await asyncio.wait({ways, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                ways.cancel()
                await asyncio.gather(ways, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _standing(self, connection: "_Connection") -> AsyncIterator[None]:
        self._connections.add(connection)
        self.made += 1
        async with self._changed:
            self._changed.notify_all()
        try:
            yield
        finally:
            self._connections.discard(connection)
            connection.end(Ending.CUT)

    async def _one_way(
        self, way: Way, connection: "_Connection", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Write each piece as soon as this direction is free. One held piece waits here, the rest in buffers."""
        piece: bytes | Ending = b""
        with contextlib.suppress(OSError):  # the recipient has closed, and the other direction reports it
            while not isinstance(piece, Ending):
                try:
                    piece = await reader.read(CHUNK) or Ending.CUT
                except OSError:
                    piece = Ending.RESET
                await self._flowing[way].wait()
                if isinstance(piece, Ending):
                    await asyncio.sleep(self.delay_seconds)
                    connection.half_end(writer, piece)
                    break
                if way is Way.UP:
                    self._on_written(piece)
                if self.delay_seconds:
                    asyncio.get_running_loop().call_later(self.delay_seconds, connection.write_late, writer, piece)
                else:
                    await connection.write(way, writer, piece)


class _Connection:
    """Both sides of one connection, and how many bytes of it may still pass, where that is limited."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.left: dict[Way, tuple[int, Ending]] = {}
        self.ended = asyncio.Event()
        self._sides = near, far

    async def write(self, way: Way, writer: asyncio.StreamWriter, piece: bytes) -> None:
        """Pass it on, or so much of it as may still pass."""
        if way in self.left:
            count, ending = self.left[way]
            if count <= len(piece):
                writer.write(piece[:count])
                self.end(ending)
                return
            self.left[way] = count - len(piece), ending
        writer.write(piece)
        await writer.drain()

    def write_late(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        """Pass it on after its delay, unless that side has ended meanwhile."""
        if not writer.is_closing():
            writer.write(piece)

    def half_end(self, writer: asyncio.StreamWriter, ending: Ending) -> None:
        """One side has closed: close the other."""
        if ending is Ending.RESET:
            self.end(ending)
        elif not writer.is_closing():
            with contextlib.suppress(OSError):
                writer.write_eof()

    def end(self, ending: Ending) -> None:
        """End it on both sides."""
        self.ended.set()
        for side in self._sides:
            _end(side, ending)


def _end(writer: asyncio.StreamWriter, ending: Ending) -> None:
    if writer.is_closing():
        return
    if ending is Ending.RESET:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
    else:
        writer.close()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.setblocking(False)
    return made

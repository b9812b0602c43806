"""An HTTP server on loopback: one function answers every request, and a test can wait for what requests change."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.system.waiting import PATIENCE


class LoopbackServer:
    """Listens at `port` while it is entered (0: a free one). Set `changed` whenever `until` must look at its condition
    again.
    """

    def __init__(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], port: int = 0) -> None:
        self.port = port
        self.changed = asyncio.Event()
        self._server = web.Server(handle)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)

    @property
    def base(self) -> str:
        """Its URL, without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Return once the condition holds."""
        async with asyncio.timeout(patience):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Listen no more, and close every connection."""
        await self._runner.cleanup()

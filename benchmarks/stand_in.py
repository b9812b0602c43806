"""Replaces nginx in the tests of the benchmarks: it counts every POST and keeps the first tokens.

It runs in the test's own process and speaks plain http. Nothing must be installed for it.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from tests.system.loopback import LoopbackServer


class StandIn:
    """Answers as `nginx.Nginx` does. Made by `stand_in`."""

    def __init__(self, keep: int) -> None:
        self.tokens: list[tuple[str, str, float]] = []
        self._keep = keep
        self.ca = Path("/nowhere")
        self.port = 0
        self._posts = 0

    def url(self, name: str, *, tls: bool) -> str:
        """The `backchannel_logout_uri` of a client."""
        assert not tls
        return f"http://127.0.0.1:{self.port}/{name}"

    async def count(self, session: aiohttp.ClientSession) -> int:
        """How many POSTs have come."""
        return self._posts

    async def take(self, request: web.BaseRequest) -> web.Response:
        """Take one request. The ceiling begins with GETs, which only make connections."""
        if request.method == "POST":
            self._posts += 1
            form = parse_qs((await request.read()).decode())
            if len(self.tokens) < self._keep:
                self.tokens.append((request.path.removeprefix("/"), form["logout_token"][0], time.time()))
        return web.Response()


@contextlib.asynccontextmanager
async def stand_in(keep: int = 100) -> AsyncIterator[StandIn]:
    """Listen. Keep only so many tokens: to verify one takes 30 ms."""
    made = StandIn(keep)
    async with LoopbackServer(made.take) as server:
        made.port = server.port
        yield made

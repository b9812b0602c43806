"""`GET /v1/status`: what waits, how fast it goes, how the workers and the clients fare. For tokens with scope `read`.

A bearer who may see some issuers alone is told of their clients alone. All workers are asked once a second at most,
however many ask here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from notifier.operations.status import Status, document_of
from notifier.server.authorization import Authorization, concerns

FRESH = 1.0  # seconds


class StatusRoutes:
    """`look` asks all workers; `steady` gives seconds."""

    def __init__(
        self, authorization: Authorization, look: Callable[[], Awaitable[Status]], steady: Callable[[], float]
    ) -> None:
        self._authorization = authorization
        self._look = look
        self._steady = steady
        self._last: Status | None = None
        self._looked = 0.0
        self._looking = asyncio.Lock()

    def routes(self) -> Iterator[web.RouteDef]:
        """To be served by the API."""
        yield web.get("/v1/status", self._get)

    async def _get(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "read")
        status = await self._now()
        return web.json_response(document_of(status, lambda iss: concerns(token, iss)))

    async def _now(self) -> Status:
        async with self._looking:
            if self._last is None or self._steady() - self._looked > FRESH:
                self._last = await self._look()
                self._looked = self._steady()
            return self._last

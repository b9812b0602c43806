"""What notifier reads as the server's JWK Set: the server's, or another answer. Clients read elsewhere."""

from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tests.system.loopback import LoopbackServer


class KeysReader:
    """Answers with what `leads_to` answers, without the headers of the request, or with `instead`: status and body."""

    def __init__(self, leads_to: str) -> None:
        self.leads_to = leads_to
        self.instead: tuple[int, str] | None = None
        self._server = LoopbackServer(self._answer)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self._server.base}/keys"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        await self._session.close()

    async def refuse(self) -> None:
        """Refuse connections from now on."""
        await self._server.close()

    async def _answer(self, _request: web.BaseRequest) -> web.StreamResponse:
        status, text = self.instead or (0, "")
        if not status:
            try:
                async with self._session.get(self.leads_to) as answer:
                    status, text = answer.status, await answer.text()
            except aiohttp.ClientError:
                status = 502
        return web.Response(status=status, text=text, content_type="application/json")

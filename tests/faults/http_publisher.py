"""An identity server without AMQP: numbered events by `POST /v1/events`, each sent again until it is answered 202."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import aiohttp

from tests.system.publisher import Publisher
from tests.system.site import API_TOKEN

ANSWER_WITHIN = 15.0  # seconds; the service answers within five whatever becomes of its queue
_HEADERS = {"Authorization": f"Bearer {API_TOKEN}", "Content-Type": "application/json"}


class HttpPublisher(Publisher):
    """See the module. `answers` counts what it was told, by status; 0 is no answer at all."""

    def __init__(self, port: int, clients: Sequence[str]) -> None:
        super().__init__((), "", clients)
        self.answers: Counter[int] = Counter()
        self._url = f"http://127.0.0.1:{port}/v1/events"
        self._session: aiohttp.ClientSession | None = None
        self._changed = asyncio.Condition()

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()

    async def until_answered(self, status: int, count: int, patience: float) -> None:
        """Return once so many requests were answered so."""
        async with asyncio.timeout(patience), self._changed:
            await self._changed.wait_for(lambda: self.answers[status] >= count)

    async def _try(self, body: bytes) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN))
        try:
            async with self._session.post(self._url, data=body, headers=_HEADERS) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        async with self._changed:
            self.answers[status] += 1
            self._changed.notify_all()
        return status == 202

"""Senders without AMQP, each of which sends again until its logout is taken.

An identity server posts numbered events; an upstream provider posts a logout token of each session.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import aiohttp

from tests.features.upstreams.upstream_provider import logout_token
from tests.system.publisher import Publisher
from tests.system.site import API_TOKEN

ANSWER_WITHIN = 15.0  # seconds; the service answers within five whatever becomes of its queue
AT_A_TIME = 400  # requests of an upstream: more than the listener serves at a time
_HEADERS = {"Authorization": f"Bearer {API_TOKEN}", "Content-Type": "application/json"}


class HttpPublisher(Publisher):
    """An identity server. `answers` counts the answers by status; 0 is a missing answer."""

    def __init__(self, port: int, clients: Sequence[str], path: str = "/v1/events") -> None:
        super().__init__((), "", clients)
        self.answers: Counter[int] = Counter()
        self._url = f"http://127.0.0.1:{port}{path}"
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
            timeout, connector = aiohttp.ClientTimeout(total=ANSWER_WITHIN), aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        try:
            async with self._session.post(self._url, **self._request(body)) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        async with self._changed:
            self.answers[status] += 1
            self._changed.notify_all()
        return status in (200, 202)

    def _request(self, body: bytes) -> dict[str, Any]:
        """What the event's request is made of."""
        return {"data": body, "headers": _HEADERS}


class UpstreamSender(HttpPublisher):
    """An upstream provider whose `iss` is `issuer`. It sends the same token again."""

    again = 1.0  # second: the answer asks for five

    def __init__(self, port: int, clients: Sequence[str], name: str, issuer: str) -> None:
        super().__init__(port, clients, f"/upstreams/{name}/backchannel-logout")
        self._in_flight = asyncio.Semaphore(AT_A_TIME)
        self._issuer = issuer
        self._tokens: dict[str, str] = {}

    def _request(self, body: bytes) -> dict[str, Any]:
        sid, now = json.loads(body)["sid"], int(time.time())
        if sid not in self._tokens:
            token = logout_token(iss=self._issuer, iat=now, exp=now + 120, sid=sid, jti=sid)
            self._tokens[sid] = token.decode()
        return {"data": {"logout_token": self._tokens[sid]}}

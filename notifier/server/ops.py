"""The listener for those who watch: `/livez`, `/readyz`, `/metrics`. It tells nothing secret and takes nothing.

`/livez` needs no check: it is answered by the loop, so that an answer proves that the loop turns. Whoever reaches the
listener may be anybody, so it bears fewer connections than the API, and fewer scrapes than those: a probe waits for
neither.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from aiohttp import web

from notifier.server.problem import problem

CONNECTIONS = 100  # at a time; a probe and a few that scrape need ten
SCRAPES = 4  # at a time, each of which takes some of the loop's time; two Prometheus servers, and people who look
SCRAPE_WITHIN = 10.0  # seconds for a page to be read; as long as Prometheus waits for one by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """How the worker stands. `queue`: connected and its topology in place; `blocked`: it takes nothing from us now.

    `problem`: what is wrong, in words.
    """

    queue: bool
    consuming: bool
    blocked: bool = False
    draining: bool = False
    problem: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it does its work now.

        Blocked, it still is: it delivers what it can, and only what failed must wait. The cause is the broker's and
        meets every worker alike: not ready, they would all fall out of their service, so that `POST /v1/events` would
        find nobody to say why it takes nothing (503), and the roll-out that may be the way out would stand still.
        """
        return self.queue and self.consuming and not self.draining


class Exposition(Protocol):
    """What Prometheus reads."""

    @property
    def content_type(self) -> str:
        """The value of the header of that name."""

    @property
    def openmetrics_type(self) -> str:
        """The same, of OpenMetrics."""

    def chunks(self, *, openmetrics: bool = False) -> AsyncIterator[bytes]:
        """The page, piece by piece. Must not hold the loop."""


class _Scrapes:
    """Serves the page, to so many at a time, and to each for so many seconds."""

    def __init__(self, metrics: Exposition, most: int, within: float) -> None:
        self._metrics = metrics
        self._within = within
        self._room = most

    async def page(self, request: web.Request) -> web.StreamResponse:
        """`/metrics`."""
        if not self._room:
            return problem(503, "Too many scrapes at a time; try again soon", headers={"Retry-After": "1"})
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        kind = self._metrics.openmetrics_type if openmetrics else self._metrics.content_type
        response = web.StreamResponse(headers={"Content-Type": kind})
        self._room -= 1
        try:
            await response.prepare(request)
            async with asyncio.timeout(self._within):
                async for chunk in self._metrics.chunks(openmetrics=openmetrics):
                    await response.write(chunk)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # half a page must not look like a whole one
        finally:
            self._room += 1
        return response


def ops_app(
    health: Callable[[], Readiness],
    metrics: Exposition,
    *,
    scrapes: int = SCRAPES,
    scrape_within: float = SCRAPE_WITHIN,
) -> web.Application:
    """The application. `health` is asked at each probe and must return at once. `scrapes` at a time, each in so many
    seconds.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        now = health()
        return web.json_response({"ready": now.ready, **asdict(now)}, status=200 if now.ready else 503)

    page = _Scrapes(metrics, scrapes, scrape_within).page
    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", page)])
    return app

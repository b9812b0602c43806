"""The listener for those who watch: `/livez`, `/readyz`, `/metrics`. It tells nothing secret and takes nothing.

`/livez` needs no check: it is answered by the loop, so that an answer proves that the loop turns.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from aiohttp import web


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
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


def ops_app(health: Callable[[], Health], metrics: Exposition) -> web.Application:
    """The application. `health` is asked at each probe and must return at once."""

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        now = health()
        return web.json_response({"ready": now.ready, **asdict(now)}, status=200 if now.ready else 503)

    async def page(request: web.Request) -> web.StreamResponse:
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        kind = metrics.openmetrics_type if openmetrics else metrics.content_type
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        async for chunk in metrics.chunks(openmetrics=openmetrics):
            await response.write(chunk)
        return response

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", page)])
    return app

"""The ops listener: `/livez`, `/readyz`, `/metrics`. It shows nothing secret and accepts no input.

`/livez` checks nothing: the event loop answers it, so a response proves that the loop runs. Any peer may reach this
listener. Therefore it allows fewer connections than the API, and few scrapes at a time. The limit of scrapes does not
affect health probes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from aiohttp import web

from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.problem import problem_response

MAX_CONNECTIONS = shared_bound(100)  # at a time; a probe and a few scrapers need ten
MAX_SCRAPES = shared_bound(4)  # at a time, since each blocks the loop; for two Prometheus servers and some people
SCRAPE_TIMEOUT_SECONDS = 10.0  # seconds to read a page; the default scrape timeout of Prometheus


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The worker's readiness. `queue`: connected, topology in place. `blocked`: the queue accepts no messages now.

    `needed`: it has consumed before, and clients of a relayed identity server can read their keys from it, or its spool
    can keep sign-outs.
    `problem` is the reason if it is not ready or blocked, or names a queue that refuses messages for long.
    """

    queue: bool
    consuming: bool
    blocked: bool = False
    draining: bool = False
    needed: bool = False
    problem: str | None = None

    @property
    def operates(self) -> bool:
        """True if the worker takes messages now."""
        return self.queue and self.consuming and not self.draining

    @property
    def ready(self) -> bool:
        """True if the worker operates now, or is needed without its queue, for sign-ins or by senders that send once.

        A blocked worker is ready: it still delivers, and only failed deliveries wait. The broker blocks all workers at
        once. If they were unready, all would leave their Service, so that `POST /v1/events` could not explain its 503,
        and a rollout that may be the remedy would stop. The same holds for a queue that refuses messages: it
        refuses those of all workers, and only affects some clients if it is a bucket.
        """
        return self.operates or (self.needed and not self.draining)


class Exposition(Protocol):
    """The page that Prometheus reads."""

    @property
    def content_type(self) -> str:
        """The value of the header `Content-Type`."""

    @property
    def openmetrics_type(self) -> str:
        """The same for OpenMetrics."""

    def chunks(self, *, openmetrics: bool = False) -> AsyncIterator[bytes]:
        """Yield the page in pieces. Must not block the event loop."""


class _Scrapes:
    """Serves the page, with a limit on concurrent readers and on the time of each."""

    def __init__(self, metrics: Exposition, max_scrapes: int, within: float) -> None:
        self._metrics = metrics
        self._within = within
        self._free_slots = max_scrapes

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Serve `/metrics`."""
        if not self._free_slots:
            return problem_response(503, "Too many scrapes at a time; try again soon", headers={"Retry-After": "1"})
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        kind = self._metrics.openmetrics_type if openmetrics else self._metrics.content_type
        response = web.StreamResponse(headers={"Content-Type": kind})
        self._free_slots -= 1
        try:
            await response.prepare(request)
            async with asyncio.timeout(self._within):
                async for chunk in self._metrics.chunks(openmetrics=openmetrics):
                    await response.write(chunk)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # half a page must not look complete
        finally:
            self._free_slots += 1
        return response


def ops_app(
    health: Callable[[], Readiness],
    metrics: Exposition,
    *,
    scrapes: int = MAX_SCRAPES,
    scrape_within: float = SCRAPE_TIMEOUT_SECONDS,
) -> web.Application:
    """Return the application. `health` is called at each probe, and must return at once.

    `scrapes`: the number of concurrent scrapes. `scrape_within`: the time limit of each, in seconds.
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

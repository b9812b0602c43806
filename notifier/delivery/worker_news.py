"""What workers tell one another of clients, as documents that travel over the side channel, at best effort.

Nothing depends on the news: a worker that hears nothing finds out by its own attempts. So the news is bounded, and
nobody waits for it. A worker tells at most fifty documents of 4 KiB a second, about a thousand clients. Of each client
it tells the newest news only. It hears no more than all workers can tell: beyond that somebody else writes to the
exchange.

The durations in a document are those at the moment when it is sent: news that waited here was corrected.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.delivery.ports import News
from notifier.model.moment import Clock

MOST = 2000  # clients of which news waits; then the one that has waited longest gives way
FRESH = 2.0  # seconds after which it is not told any more
LARGEST = 4 * 1024  # bytes of a document
DOCUMENTS = 50  # heard a second, for each worker
LONGEST = 3600.0  # seconds of a rest; a longer one is told as this
SLOWEST = 16.0  # seconds between two attempts, likewise
EVER = 1e9  # seconds for which a client may have failed


class _OfClient(TypedDict):
    iss: str
    client_id: str
    up: bool
    failing: Annotated[float, Field(ge=0, le=EVER, allow_inf_nan=False)]
    rest: Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]
    cap: Annotated[int, Field(ge=1, le=1_000_000)]
    spacing: Annotated[float, Field(ge=0, le=SLOWEST, allow_inf_nan=False)]
    former_share: NotRequired[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]]
    parked: bool


class _Document(TypedDict):
    v: Literal[1]
    news: list[_OfClient]


_OF_CLIENT, _DOCUMENT = TypeAdapter(_OfClient), TypeAdapter(_Document)
_AROUND = b'{"v":1,"news":[%s]}'


class OtherWorkers:
    """The workers that share the queue with this one. `steady` is a steady clock."""

    def __init__(self, count: Callable[[], int], *, steady: Clock) -> None:
        self.count = count
        self._steady = steady
        self._waiting: dict[tuple[str, str], tuple[float, News]] = {}
        self._has_news = asyncio.Event()
        self._second, self._documents = -math.inf, 0  # when the present second began, and what was heard in it

    def tell(self, news: News) -> None:
        """Tell the others, at best effort. Never raises, never waits."""
        self._waiting.pop(news.key, None)
        if len(self._waiting) >= MOST:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[news.key] = (self._steady(), news)
        self._has_news.set()

    async def following(self) -> bytes:
        """Return the next document for the others, once there is news."""
        while (document := self.take()) is None:
            self._has_news.clear()
            await self._has_news.wait()
        return document

    def take(self) -> bytes | None:
        """Return the next document, None if there is no news."""
        now, size, parts = self._steady(), len(_AROUND), list[bytes]()
        while self._waiting:
            key = next(iter(self._waiting))
            at, news = self._waiting[key]
            part = _dump(news, now - at) if now - at <= FRESH else b""
            if parts and size + len(part) > LARGEST:
                break
            del self._waiting[key]
            if part and size + len(part) <= LARGEST:
                size += len(part) + 1
                parts.append(part)
        return _AROUND % b",".join(parts) if parts else None

    def hear(self, document: bytes, on_news: Callable[[News], None]) -> None:
        """Pass each report of another worker to `on_news`. An unreadable document has no effect, nor has a flood."""
        if (now := self._steady()) >= self._second + 1:
            self._second, self._documents = now, 0
        self._documents += 1
        if self._documents > DOCUMENTS * max(1, self.count()):
            return
        with suppress(ValidationError):
            for members in _DOCUMENT.validate_json(document if len(document) <= LARGEST else b"")["news"]:
                on_news(_load(members))


def _dump(news: News, waited: float) -> bytes:
    failing = news.failing if news.up else news.failing + waited
    members: dict[str, Any] = asdict(news) | {
        "failing": min(EVER, failing), "rest": min(LONGEST, max(0.0, news.rest - waited)),
        "spacing": min(SLOWEST, news.spacing),
    }  # fmt: skip
    members["iss"], members["client_id"] = members.pop("key")
    return _OF_CLIENT.dump_json(cast("_OfClient", members))


def _load(document: _OfClient) -> News:
    members: dict[str, Any] = {**document}
    if "former_share" not in members:  # an older release does not say whether it tries that pace or keeps it
        members["spacing"] = 0.0
    return News(key=(members.pop("iss"), members.pop("client_id")), **members)

"""Reports of clients between workers, as documents that travel over the side channel without a guarantee.

Nothing depends on a report: a worker without it makes its own attempts. So the reports are bounded, and no worker waits
for them. A worker sends at most fifty documents of 4 KiB a second, about a thousand clients, and only the newest report
of each client. It reads no more than all workers can send: any more would come from another program.

The durations in a document are those at the moment when it is sent: they are corrected for the wait here.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from notifier.delivery.ports import News
from notifier.model.moment import Clock

MAX_REPORTS = 2000  # clients with a pending report; beyond them the oldest report is dropped
MAX_REPORT_SECONDS = 2.0  # after which a report is dropped
MAX_DOCUMENT_BYTES = 4 * 1024  # bytes of a document
MAX_SENT_SPACING_SECONDS = 16.0  # earlier releases refuse a document with a longer spacing
DOCUMENTS_PER_SECOND = 50  # read a second, for each worker

_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _ClientReport(TypedDict):
    iss: str
    client_id: str
    up: bool
    failing: _Seconds
    rest: _Seconds
    cap: Annotated[int, Field(ge=1, le=1_000_000)]
    spacing: _Seconds
    former_share: Annotated[float, Field(ge=0, le=1)]
    parked: bool


class _Document(TypedDict):
    v: Literal[1]
    news: list[_ClientReport]


_CLIENT_REPORT, _DOCUMENT = TypeAdapter(_ClientReport), TypeAdapter(_Document)
_DOCUMENT_TEMPLATE = b'{"v":1,"news":[%s]}'


class OtherWorkers:
    """The workers that share the queue with this one. `steady` is a steady clock."""

    def __init__(self, count: Callable[[], int], *, steady: Clock) -> None:
        self.count = count
        self._steady = steady
        self._waiting: dict[tuple[str, str], tuple[float, News]] = {}
        self._has_news = asyncio.Event()
        self._second, self._documents = -math.inf, 0  # when the present second began, and the documents read in it

    def report(self, news: News) -> None:
        """Send the report to the other workers soon, or drop it. Never raises, never waits."""
        self._waiting.pop(news.key, None)
        if len(self._waiting) >= MAX_REPORTS:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[news.key] = (self._steady(), news)
        self._has_news.set()

    async def wait_for_document(self) -> bytes:
        """Return the next document for the other workers. Waits until there is a report."""
        while (document := self.take()) is None:
            self._has_news.clear()
            await self._has_news.wait()
        return document

    def take(self) -> bytes | None:
        """Return the next document for the other workers; None if there is no report."""
        now, size, parts = self._steady(), len(_DOCUMENT_TEMPLATE), list[bytes]()
        while self._waiting:
            key = next(iter(self._waiting))
            at, news = self._waiting[key]
            part = _dump(news, now - at) if now - at <= MAX_REPORT_SECONDS else b""
            if parts and size + len(part) > MAX_DOCUMENT_BYTES:
                break
            del self._waiting[key]
            if part and size + len(part) <= MAX_DOCUMENT_BYTES:
                size += len(part) + 1
                parts.append(part)
        return _DOCUMENT_TEMPLATE % b",".join(parts) if parts else None

    def read(self, document: bytes, on_news: Callable[[News], None]) -> None:
        """Pass each report of another worker to `on_news`. Unreadable and excess documents are dropped."""
        if (now := self._steady()) >= self._second + 1:
            self._second, self._documents = now, 0
        self._documents += 1
        if self._documents > DOCUMENTS_PER_SECOND * max(1, self.count()):
            return
        with suppress(ValidationError):
            for members in _DOCUMENT.validate_json(document if len(document) <= MAX_DOCUMENT_BYTES else b"")["news"]:
                on_news(_load(members))


def _dump(news: News, waited: float) -> bytes:
    failing = news.failing if news.up else news.failing + waited
    members: dict[str, Any] = asdict(news) | {"failing": failing, "rest": max(0.0, news.rest - waited)}
    members["iss"], members["client_id"] = members.pop("key")
    members["spacing"] = min(MAX_SENT_SPACING_SECONDS, news.spacing)
    return _CLIENT_REPORT.dump_json(cast("_ClientReport", members))


def _load(document: _ClientReport) -> News:
    members: dict[str, Any] = {**document}
    return News(key=(members.pop("iss"), members.pop("client_id")), **members)

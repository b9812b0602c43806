"""Sends and reads reports of clients between workers, as documents over the side channel, without a guarantee.

A worker without a report makes its own attempts, so the reports are bounded and no worker waits for them. A worker
sends at most fifty documents of 4 KiB a second (about a thousand clients), and only the newest report of each client.
It reads only as many documents as all workers may send: more would come from another program.

The durations in a document count until it is sent: `_dump` adds the time in which the report waited.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from notifier.delivery.ports import ClientReport
from notifier.model.moment import Clock
from notifier.model.shared_resources import shared_bound

MAX_REPORTS = shared_bound(2000)  # clients with a pending report; beyond them the oldest report is dropped
MAX_REPORT_SECONDS = 2.0  # after which a report is dropped
MAX_DOCUMENT_BYTES = 4 * 1024  # bytes of a document
MAX_SPACING_SECONDS = 16.0  # a forged report may slow down a client, not stop it
DOCUMENTS_PER_SECOND = 50  # read a second, for each worker …
MAX_DOCUMENTS_PER_SECOND = shared_bound(1000)  # … and for all of them, of which some may be forged

_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _ReportMembers(TypedDict):
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
    news: list[_ReportMembers]


_CLIENT_REPORT, _DOCUMENT = TypeAdapter(_ReportMembers), TypeAdapter(_Document)
_DOCUMENT_TEMPLATE = b'{"v":1,"news":[%s]}'


class PeerReports:
    """Exchanges reports with the workers that share the queue. Satisfies `Peers`."""

    def __init__(self, count: Callable[[], int], *, monotonic: Clock) -> None:
        self.count = count
        self._monotonic = monotonic
        self._waiting: dict[tuple[str, str], tuple[float, ClientReport]] = {}
        self._has_report = asyncio.Event()
        self._second_began_at, self._documents_read = -math.inf, 0  # the present second, and the documents read in it

    def report(self, report: ClientReport) -> None:
        """Send the report to the other workers soon, or drop it. Never raises, never waits."""
        self._waiting.pop(report.key, None)
        if len(self._waiting) >= MAX_REPORTS:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[report.key] = (self._monotonic(), report)
        self._has_report.set()

    async def wait_for_document(self) -> bytes:
        """Return the next document for the other workers. Waits until there is a report."""
        while (document := self.take_document()) is None:
            self._has_report.clear()
            await self._has_report.wait()
        return document

    def take_document(self) -> bytes | None:
        """Return the next document for the other workers; None if there is no report. Drops old and large reports."""
        now, size, parts = self._monotonic(), len(_DOCUMENT_TEMPLATE), list[bytes]()
        while self._waiting:
            key = next(iter(self._waiting))
            reported_at, report = self._waiting[key]
            waited_seconds = now - reported_at
            part = _dump(report, waited_seconds) if waited_seconds <= MAX_REPORT_SECONDS else b""
            if parts and size + len(part) > MAX_DOCUMENT_BYTES:
                break
            del self._waiting[key]
            if part and size + len(part) <= MAX_DOCUMENT_BYTES:
                size += len(part) + 1
                parts.append(part)
        return _DOCUMENT_TEMPLATE % b",".join(parts) if parts else None

    def read(self, document: bytes, on_report: Callable[[ClientReport], None]) -> None:
        """Pass each report in another worker's document to `on_report`. Drop unreadable and excess documents."""
        if (now := self._monotonic()) >= self._second_began_at + 1:
            self._second_began_at, self._documents_read = now, 0
        self._documents_read += 1
        if self._documents_read > min(MAX_DOCUMENTS_PER_SECOND, DOCUMENTS_PER_SECOND * max(1, self.count())):
            return
        with suppress(ValidationError):
            for members in _DOCUMENT.validate_json(document if len(document) <= MAX_DOCUMENT_BYTES else b"")["news"]:
                on_report(_load(members))


def _dump(report: ClientReport, waited_seconds: float) -> bytes:
    """Return the report as JSON, with its durations as of now: it has waited for so many seconds."""
    iss, client_id = report.key
    members: _ReportMembers = {
        "iss": iss, "client_id": client_id, "up": report.circuit_closed,
        "failing": report.failing_seconds + (0.0 if report.circuit_closed else waited_seconds),
        "rest": max(0.0, report.open_seconds - waited_seconds), "cap": report.concurrency,
        "spacing": min(MAX_SPACING_SECONDS, report.spacing), "former_share": report.former_share,
        "parked": report.parked,
    }  # fmt: skip
    return _CLIENT_REPORT.dump_json(members)


def _load(members: _ReportMembers) -> ClientReport:
    return ClientReport(
        key=(members["iss"], members["client_id"]), circuit_closed=members["up"], failing_seconds=members["failing"],
        open_seconds=members["rest"], concurrency=members["cap"], spacing=min(MAX_SPACING_SECONDS, members["spacing"]),
        former_share=members["former_share"], parked=members["parked"],
    )  # fmt: skip

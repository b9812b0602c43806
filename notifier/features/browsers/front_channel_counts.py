"""Count front-channel pages and browsers' reports about clients. Reports are not proof, so they are metrics only.

A client's series begin at zero with the first page that requests it, so that `increase()` counts its first report.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from notifier.model.front_channel import AddressRefusal
from notifier.model.frozen import frozen
from notifier.model.printable import printable
from notifier.telemetry.client_series import SHARED_LABELS, Label
from notifier.telemetry.families import labelled_family

MAX_REPORT_BYTES = 8192  # a client takes 12
_SHOWN, _REFUSED, _REPEATED = "shown", "refused", "repeated"


class PageEnd(StrEnum):
    """How a page ended: all clients are done, its time limit has passed, or the user left it earlier."""

    DONE = "done"
    LIMIT = "limit"
    LEFT = "left"


class PageResult(StrEnum):
    """A page's result for a client. `confirmed`: reported by its frame. `answered`: a response came over valid TLS.

    `failed`: no response. `unclear`: no response that the page may read, but the frame loaded something. `loaded`,
    `silent`: no response yet when the page ended; the frame had loaded or not.
    """

    CONFIRMED = "confirmed"
    ANSWERED = "answered"
    FAILED = "failed"
    UNCLEAR = "unclear"
    LOADED = "loaded"
    SILENT = "silent"


class BrowserReach(StrEnum):
    """A client's result in the metrics: whether it answered the browser."""

    REACHED = "reached"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


REACH: Mapping[PageResult, BrowserReach] = MappingProxyType(
    {
        PageResult.CONFIRMED: BrowserReach.REACHED,
        PageResult.ANSWERED: BrowserReach.REACHED,
        PageResult.FAILED: BrowserReach.UNREACHABLE,
        PageResult.UNCLEAR: BrowserReach.UNKNOWN,
        PageResult.LOADED: BrowserReach.UNKNOWN,
        PageResult.SILENT: BrowserReach.UNKNOWN,
    }
)


@frozen
class PageReport:
    """How a page ended, and its result for each client in the order of the plan."""

    end: PageEnd
    results: tuple[PageResult, ...]


def read_report(body: bytes, clients: int) -> PageReport | None:
    """Return the report of a page with this number of clients; None if it is too large or malformed."""
    if len(body) > MAX_REPORT_BYTES:
        return None
    try:
        document = json.loads(body)
        end, results = PageEnd(document["how"]), tuple(map(PageResult, document["clients"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return PageReport(end=end, results=results) if len(results) == clients else None


class ClientLabels(Protocol):
    """Returns the current metric label of a client."""

    def label(self, iss: str, client_id: str) -> Label: ...


class FrontChannelCounts:
    """The counters. `label` returns the current metric label of a client."""

    def __init__(self, label: Callable[[str, str], Label]) -> None:
        self._label = label
        self._pages = dict.fromkeys((_SHOWN, _REFUSED), 0)
        self._omitted = dict.fromkeys(map(str, AddressRefusal), 0)
        self._reports = dict.fromkeys((*map(str, PageEnd), _REPEATED, _REFUSED), 0)
        self._clients: dict[Label, dict[BrowserReach, int]] = {}

    def on_page_shown(self, iss: str, client_ids: Iterable[str]) -> None:
        """Count a page that requests these clients."""
        self._pages[_SHOWN] += 1
        for client_id in client_ids:
            self._counts_of(iss, client_id)

    def on_page_refused(self) -> None:
        """Count a page that could not be shown."""
        self._pages[_REFUSED] += 1

    def on_clients_omitted(self, reason: AddressRefusal, clients: int) -> None:
        """Count clients whose included address was refused."""
        self._omitted[reason] += clients

    def on_report(self, end: PageEnd, iss: str, reached: Iterable[tuple[str, BrowserReach]]) -> None:
        """Count the first report of a context."""
        self._reports[end] += 1
        for client_id, reach in reached:
            self._counts_of(iss, client_id)[reach] += 1

    def on_repeated_report(self) -> None:
        """Count another report of a context."""
        self._reports[_REPEATED] += 1

    def on_refused_report(self) -> None:
        """Count a malformed or unknown report."""
        self._reports[_REFUSED] += 1

    def families(self) -> Iterator[Metric]:
        """Yield the metric families. Drop clients that no longer have an individual label."""
        self._clients = {
            label: counts
            for label, counts in self._clients.items()
            if label[1] in SHARED_LABELS or self._label(*label) == label
        }
        text = "Front-channel pages, by whether they were shown."
        yield labelled_family(CounterMetricFamily, "front_channel_pages_total", text, ("result",), self._pages)
        text = "Reports of front-channel pages, by how the page ended."
        yield labelled_family(CounterMetricFamily, "front_channel_reports_total", text, ("result",), self._reports)
        text = "Clients left out of a page though an address came with them, by why it does not count."
        yield labelled_family(CounterMetricFamily, "front_channel_left_out_total", text, ("reason",), self._omitted)
        text = "Clients that browsers requested, by the result that the browser could detect."
        family = CounterMetricFamily(
            "notifier_front_channel_clients_total", text, labels=("iss", "client_id", "result")
        )
        for (iss, client_id), counts in self._clients.items():
            for reach, count in counts.items():
                family.add_metric((iss, printable(client_id), reach), count)
        yield family

    def _counts_of(self, iss: str, client_id: str) -> dict[BrowserReach, int]:
        return self._clients.setdefault(self._label(iss, client_id), dict.fromkeys(BrowserReach, 0))

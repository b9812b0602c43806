"""Count front-channel pages and the reports that their scripts send about clients, as metrics.

A browser's report proves nothing, so it changes only metrics. A client's series start at zero with the first page that
requests it, so that PromQL's `increase()` counts its first report.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from notifier.model.front_channel import AddressRefusal
from notifier.model.printable import printable
from notifier.model.record import record
from notifier.telemetry.client_series import SHARED_LABELS, Label
from notifier.telemetry.families import labelled_family

MAX_REPORT_BYTES = 8192  # 12 per client
_SHOWN, _REFUSED, _REPEATED = "shown", "refused", "repeated"


class PageEnd(StrEnum):
    """How a page ended: all requests completed, its time limit passed, or the user left it before."""

    DONE = "done"
    LIMIT = "limit"
    LEFT = "left"


class PageResult(StrEnum):
    """A page's result for a client, from its fetch and its frame.

    `confirmed`: the frame sent a message that the user is signed out. `answered`: the fetch had a response over valid
    TLS. `failed`: the fetch failed. `unclear`: the fetch failed, but the frame loaded. `loaded` and `silent`: the fetch
    had not completed when the page ended, and the frame had loaded or had not.
    """

    CONFIRMED = "confirmed"
    ANSWERED = "answered"
    FAILED = "failed"
    UNCLEAR = "unclear"
    LOADED = "loaded"
    SILENT = "silent"


class BrowserReach(StrEnum):
    """The metric label of a client's result: whether the browser reached the client."""

    REACHED = "reached"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


REACH: Mapping[PageResult, BrowserReach] = {
    PageResult.CONFIRMED: BrowserReach.REACHED,
    PageResult.ANSWERED: BrowserReach.REACHED,
    PageResult.FAILED: BrowserReach.UNREACHABLE,
    PageResult.UNCLEAR: BrowserReach.UNKNOWN,
    PageResult.LOADED: BrowserReach.UNKNOWN,
    PageResult.SILENT: BrowserReach.UNKNOWN,
}


@record
class PageReport:
    """How a page ended, and its results for the clients in the order of the page plan."""

    end: PageEnd
    results: tuple[PageResult, ...]


def read_report(body: bytes, client_count: int) -> PageReport | None:
    """Return the parsed report of a page with `client_count` clients; None if it is too large or malformed."""
    if len(body) > MAX_REPORT_BYTES:
        return None
    try:
        document = json.loads(body)
        end = PageEnd(document["how"])
        results = tuple(PageResult(result) for result in document["clients"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return PageReport(end=end, results=results) if len(results) == client_count else None


class FrontChannelCounts:
    """The counters. `label_of` returns the metric label of a client: `(iss, client_id)`, or a shared label."""

    def __init__(self, label_of: Callable[[str, str], Label]) -> None:
        self._label_of = label_of
        self._pages = dict.fromkeys((_SHOWN, _REFUSED), 0)
        self._omitted = dict.fromkeys(map(str, AddressRefusal), 0)
        self._reports = dict.fromkeys((*map(str, PageEnd), _REPEATED, _REFUSED), 0)
        self._clients: dict[Label, dict[BrowserReach, int]] = {}

    def on_page_shown(self, iss: str, client_ids: Iterable[str]) -> None:
        """Count a page that requests the clients, and start their series."""
        self._pages[_SHOWN] += 1
        for client_id in client_ids:
            self._counts_of(iss, client_id)

    def on_page_refused(self) -> None:
        """Count a page that could not be shown."""
        self._pages[_REFUSED] += 1

    def on_clients_omitted(self, reason: AddressRefusal, client_count: int) -> None:
        """Count clients that a page does not request, since the address in the event was refused."""
        self._omitted[reason] += client_count

    def on_report(self, end: PageEnd, iss: str, results: Iterable[tuple[str, BrowserReach]]) -> None:
        """Count the first report of a page. `results`: client ID and result."""
        self._reports[end] += 1
        for client_id, reach in results:
            self._counts_of(iss, client_id)[reach] += 1

    def on_repeated_report(self) -> None:
        """Count a further report of a page whose first report was counted."""
        self._reports[_REPEATED] += 1

    def on_refused_report(self) -> None:
        """Count a report that is malformed, too large or of an invalid page."""
        self._reports[_REFUSED] += 1

    def families(self) -> Iterator[Metric]:
        """Yield the metric families for a scrape. Drop the series of clients that have lost their own label."""
        self._clients = {
            label: counts
            for label, counts in self._clients.items()
            if label[1] in SHARED_LABELS or self._label_of(*label) == label
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
        return self._clients.setdefault(self._label_of(iss, client_id), dict.fromkeys(BrowserReach, 0))

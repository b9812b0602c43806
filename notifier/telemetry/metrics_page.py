"""Renders the page for Prometheus: the counters of `metrics`, gauges, and the series of clients.

Gauges are read at the scrape, through `MetricsSources`. `client_series` renders the series of clients, and
prometheus-client all other metrics.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_latest
from prometheus_client.registry import Collector

from notifier import __version__
from notifier.model.message import PolicyKey, QueueStatus, Unsettled
from notifier.telemetry.families import gauge, labelled_family, plain_counter
from notifier.telemetry.metrics import Metrics

_END = b"# EOF\n"  # ends an OpenMetrics page
_SLICE_SECONDS = 0.002  # rendering time, after which other tasks run


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSources:
    """The sources of the gauges. Each is called at a scrape, and must not block.

    `circuits` returns (iss, client_id, state) for each circuit that is half-open (1) or open (2). `waiting` returns
    (iss, client_id, number of pending deliveries). `signing_keys` returns (iss, kid, published). `certificates` returns
    (purpose, file, epoch seconds of the expiry of notifier's certificate). `registry_sources` returns (name,
    up, age in seconds, changed, held back). `clients_expiring` returns the number of clients with a delivery that
    expires within the hour, by whether its token has a `sid` (yes, no). `clock_offset` returns seconds. `pauses`
    returns the age of the worker's copy of the pauses in seconds, and the end of each by issuer and client ID.
    """

    in_flight: Callable[[], int] = lambda: 0
    queue: Callable[[], QueueStatus] = lambda: QueueStatus(connected=False, consuming=False)
    unsettled: Callable[[], Mapping[str, Unsettled]] = dict
    circuits: Callable[[], Iterable[tuple[str, str, int]]] = tuple
    waiting: Callable[[], Iterable[tuple[str, str, int]]] = tuple
    reload_succeeded: Callable[[], bool] = lambda: True
    reload_taken_at: Callable[[], float] = lambda: 0.0
    restart_needed: Callable[[], bool] = lambda: False
    clients_expiring: Callable[[], Mapping[str, int]] = dict
    signing_keys: Callable[[], Iterable[tuple[str, str, bool]]] = tuple
    ready: Callable[[], bool] = lambda: False
    loop_lag: Callable[[], float] = lambda: 0.0
    api_requests: Callable[[], Mapping[tuple[str, str, str], float]] = dict
    workers_vanished: Callable[[], int] = lambda: 0
    clock_offset: Callable[[], float] = lambda: 0.0
    certificates: Callable[[], Iterable[tuple[str, str, float]]] = tuple
    registry_sources: Callable[[], Iterable[tuple[str, bool, float, bool, bool]]] = tuple
    library_hooks: Callable[[], Mapping[str, bool]] = dict
    pauses: Callable[[], tuple[float, Mapping[tuple[str, str], float]]] = lambda: (0.0, {})
    log_lines_dropped: Callable[[], int] = lambda: 0


class MetricsPage:
    """The page of `/metrics`: counters, gauges, and the families of features."""

    content_type: Final = CONTENT_TYPE_PLAIN_0_0_4
    openmetrics_type: Final = CONTENT_TYPE_OPENMETRICS

    def __init__(
        self,
        metrics: Metrics,
        sources: MetricsSources | None = None,
        feature_families: Iterable[Callable[[], Iterable[Metric]]] = (),
    ) -> None:
        self._metrics = metrics
        self._sources = MetricsSources() if sources is None else sources
        self._feature_families = tuple(feature_families)
        self._page = _registry(partial(self._families, exemplars=False))
        self._open_page = _registry(partial(self._families, exemplars=True))

    async def render(self, *, openmetrics: bool = False) -> bytes:
        """Return the whole page."""
        return b"".join([chunk async for chunk in self.chunks(openmetrics=openmetrics)])

    async def chunks(self, *, openmetrics: bool = False) -> AsyncIterator[bytes]:
        """Yield the page in pieces, in the text format 0.0.4, or as OpenMetrics with exemplars.

        Other tasks run every 2 ms. Joining the pieces of a page of 50 MB (10,000 clients) would take 40 ms.
        """
        self._metrics.clients.set_circuits(self._sources.circuits())
        self._metrics.clients.set_waiting(self._sources.waiting())
        head = _openmetrics(self._open_page) if openmetrics else generate_latest(self._page)
        yield head
        pieces: list[str] = []
        began = perf_counter()
        for piece in self._metrics.clients.render(openmetrics=openmetrics):
            pieces.append(piece)
            if perf_counter() - began > _SLICE_SECONDS:
                yield "".join(pieces).encode()
                pieces = []
                await asyncio.sleep(0)
                began = perf_counter()
        yield "".join(pieces).encode() + (_END if openmetrics else b"")

    def _families(self, *, exemplars: bool) -> Iterator[Metric]:
        """Yield all metrics of the page except the series of clients."""
        yield from self._metrics.families(exemplars=exemplars)
        for families in self._feature_families:
            yield from families()
        yield from self._gauge_families()
        yield from self._metrics.queues.families(self._sources.unsettled())

    def _gauge_families(self) -> Iterator[Metric]:
        sources = self._sources
        yield gauge("in_flight", "Deliveries that are attempted or settled.", sources.in_flight())
        yield gauge("ready", "1 while /readyz reports that the worker is ready.", sources.ready())
        yield gauge("loop_lag_seconds", "How late the event loop was at most, of late.", sources.loop_lag())
        text, labels = "Requests to the API.", ("route", "status", "token")
        yield labelled_family(CounterMetricFamily, "api_requests_total", text, labels, sources.api_requests())
        text = "Other workers that were last seen within the hour, announced no stop and are silent."
        yield gauge("workers_vanished", text, sources.workers_vanished())
        text = "How far this worker's clock is ahead of the others', by their announcements."
        yield gauge("clock_offset_seconds", text, sources.clock_offset())
        yield gauge("config_last_reload_success", "0 after a reload that was refused.", sources.reload_succeeded())
        text = "When the configuration that is in force was read (epoch seconds)."
        yield gauge("config_last_reload_timestamp_seconds", text, sources.reload_taken_at())
        text = "Clients for which something that waits is given up within the hour, by whether its token has a sid."
        yield labelled_family(GaugeMetricFamily, "clients_expiring", text, ("sid",), sources.clients_expiring())
        text = "1 while a changed setting waits for a restart."
        yield gauge("config_restart_needed", text, sources.restart_needed())
        yield from self._registry_families()
        yield from _queue_families(sources.queue())
        published = {(iss, kid): present for iss, kid, present in sources.signing_keys()}
        text = "1 while the issuer's JWKS has the key we sign with."
        yield labelled_family(GaugeMetricFamily, "signing_key_published", text, ("iss", "kid"), published)
        ends = {(use, file): moment for use, file, moment in sources.certificates()}
        text = "When a certificate that we present runs out."
        yield labelled_family(GaugeMetricFamily, "certificate_expiry_timestamp_seconds", text, ("use", "file"), ends)
        text = "0 while a hook into a library is not in use."
        yield labelled_family(GaugeMetricFamily, "library_hooks", text, ("hook",), sources.library_hooks())
        age, pause_ends = sources.pauses()
        yield gauge("pauses_read_age_seconds", "Since this worker last read which clients operators have paused.", age)
        text, names = "When the pause of a client ends by itself (epoch seconds).", ("iss", "client_id")
        until = {key: end for key, end in pause_ends.items() if self._metrics.clients.label(*key) == key}
        yield labelled_family(GaugeMetricFamily, "client_paused_until_seconds", text, names, until)
        text = "Lines of the log that were lost, since nobody read them or the write failed."
        yield plain_counter("log_lines_dropped_total", text, sources.log_lines_dropped())
        yield labelled_family(GaugeMetricFamily, "build_info", "What runs here.", ("version",), {__version__: 1})

    def _registry_families(self) -> Iterator[Metric]:
        states = [*self._sources.registry_sources()]
        for name, text, nth in (
            ("registry_source_up", "0 while a registry source cannot be read, or losses of clients are held back.", 1),
            ("registry_source_age_seconds", "Since the source was last read.", 2),
            ("registry_source_changed", "1 for an hour after many of its clients came or moved at once.", 3),
            ("registry_source_held_back", "1 while losses of its clients are held back.", 4),
        ):
            yield labelled_family(
                GaugeMetricFamily, name, text, ("source",), {state[0]: float(state[nth]) for state in states}
            )
        left_out = sum(map(len, self._metrics.registry().faults.values()))
        yield gauge("registry_clients_left_out", "Clients of registry sources that cannot be used.", left_out)
        text = "Members of clients that registry sources are not permitted to set, and that were ignored or reduced."
        yield gauge("registry_members_left_away", text, self._metrics.registry().ignored_count)


def _queue_families(status: QueueStatus) -> Iterator[Metric]:
    yield gauge("queue_connected", "1 while the queue is connected.", status.connected)
    yield gauge("publishing_blocked", "1 while the queue takes no message.", status.blocked)
    yield gauge("queues_refusing", "Queues that have refused messages, or confirmed none, for 10 s.", status.refusing)
    missing = dict.fromkeys((binding.binding.source for binding in status.bindings), 0)
    for binding in status.bindings:
        missing[binding.binding.source] += bool(binding.problem)
    text = "Exchanges of others to which the source's queue is not bound."
    yield labelled_family(GaugeMetricFamily, "source_bindings_missing", text, ("source",), missing)
    text = "1 while a policy of the broker changes this on our queues."
    series = {str(key): key in status.overrides for key in PolicyKey}
    yield labelled_family(GaugeMetricFamily, "queue_policy_overrides", text, ("key",), series)
    text = "Messages moved out of delay queues in which the broker's clock held them up."
    yield plain_counter("delays_moved_total", text, status.moved_on)


class _Page(Collector):
    """Provides the families to prometheus-client."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()


def _registry(families: Callable[[], Iterator[Metric]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(families))
    ProcessCollector(registry=registry)
    return registry


def _openmetrics(registry: CollectorRegistry) -> bytes:
    """Return the page without its end mark, which follows the series of clients."""
    page: bytes = openmetrics_latest(registry)  # type: ignore[no-untyped-call]
    return page.removesuffix(_END)

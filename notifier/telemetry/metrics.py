"""Counts the facts of deliveries for Prometheus.

`metrics_page` serves the counters and the gauges. All calls come from the event loop, so there are no locks.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from time import time

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, Exemplar, HistogramMetricFamily

from notifier.delivery.facts import (
    EVENT_RESULTS,
    Attempted,
    ClientServed,
    DeadLettered,
    Deferred,
    EventTaken,
    FactHandlers,
    IgnoredOverrides,
    LogoutDelivered,
    MembersMisspelt,
    RetryScheduled,
    Skipped,
    Unexpected,
)
from notifier.model.client import Client
from notifier.model.documents.event_document import INFORMATIONAL_MEMBERS
from notifier.model.documents.misspelt_members import MEANT_MEMBERS
from notifier.model.outcome import Cause, DeadReason, Failed, Reason
from notifier.model.registry import Registry
from notifier.telemetry.client_series import ClientSeries, Label
from notifier.telemetry.families import Histogram, WaitingMessages, labelled_family, plain_counter
from notifier.tokens.signer import SignatureResult

ATTEMPT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIGNATURE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
RECOVERY_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)


class AttemptSeconds:
    """Counts attempts by duration. Keeps the last attempt of each bucket for exemplars."""

    def __init__(self) -> None:
        self._seconds = Histogram(ATTEMPT_BUCKETS)
        self._latest: list[Attempted | None] = [None] * (len(ATTEMPT_BUCKETS) + 1)

    def add(self, fact: Attempted) -> None:
        """Count an attempt."""
        self._latest[self._seconds.add(fact.seconds)] = fact

    def family(self, *, exemplars: bool) -> Metric:
        """Return the histogram. `exemplars`: with exemplars, which the text format 0.0.4 does not support."""
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for bucket, latest in zip(self._seconds.buckets, self._latest, strict=True):
            example = _exemplar(latest) if exemplars else None
            buckets.append(bucket if example is None else (*bucket, example))
        return HistogramMetricFamily(
            "notifier_attempt_seconds", "How long attempts took.", buckets=buckets, sum_value=self._seconds.sum
        )


def _exemplar(fact: Attempted | None) -> Exemplar | None:
    """Return an exemplar with the attempt's trace id. Without a trace it has the `jti`, which clients may log."""
    if fact is None or not fact.jti:
        return None
    trace = fact.delivery.trace
    label = {"jti": fact.jti} if trace is None else {"trace_id": trace.split("-")[1]}
    return Exemplar(label, fact.seconds, fact.at)


class SignatureCounts:
    """The counters of signers. The series of each configured kind start at zero."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, Histogram] = {}

    def add_kinds(self, kinds: Iterable[str]) -> None:
        """Start the series of these kinds of signers at zero."""
        for kind in kinds:
            self._seconds.setdefault(kind, Histogram(SIGNATURE_BUCKETS))
            for result in SignatureResult:
                self._results.setdefault((kind, result.value), 0)

    def count(self, kind: str, result: SignatureResult, seconds: float) -> None:
        """Count the result of a request to a signer. Only successful requests count in the durations."""
        self.add_kinds((kind,))
        self._results[kind, result.value] += 1
        if result is SignatureResult.OK:
            self._seconds[kind].add(seconds)

    def families(self) -> Iterator[Metric]:
        """Yield the families for a scrape."""
        text = "Requests to external signers, by result."
        yield labelled_family(CounterMetricFamily, "signatures_total", text, ("signer", "result"), self._results)
        text = "Durations of signatures by external signers."
        seconds = HistogramMetricFamily("notifier_signature_seconds", text, labels=("signer",))
        for kind, histogram in self._seconds.items():
            seconds.add_metric((kind,), buckets=histogram.buckets, sum_value=histogram.sum)
        yield seconds


class Metrics:
    """The counters of deliveries. `clients`: the series of clients. `waiting`: the numbers of messages in queues."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        *,
        max_clients: int = 500,
        clock: Callable[[], float] = time,
        signatures: SignatureCounts | None = None,
    ) -> None:
        self.registry = registry
        self.clients = ClientSeries(registry, max_clients)
        self._events = dict.fromkeys(EVENT_RESULTS, 0)
        self._undated = self._ignored_overrides = 0
        self._unread = dict.fromkeys((*INFORMATIONAL_MEMBERS, "time"), 0)
        self._remarks = dict.fromkeys(MEANT_MEMBERS, 0)
        self._source_events: dict[tuple[str, str], int] = {}
        self._source_lists: list[Callable[[], Iterable[str]]] = []
        self.signatures = signatures or SignatureCounts()
        self._surplus: dict[Label, int] = {}
        self._internal_faults = 0
        self._minted: dict[tuple[str, str], int] = {}
        self._ended_early = 0
        self._attempt_seconds = AttemptSeconds()
        self._recoveries = Histogram(RECOVERY_BUCKETS)
        self.queues = WaitingMessages(clock)
        self.observe = FactHandlers(  # `circuit_state` is read at the scrape
            {
                Attempted: self._on_attempt,
                LogoutDelivered: self._on_attempt,
                EventTaken: self._on_event_taken,
                MembersMisspelt: self._on_members_misspelt,
                RetryScheduled: lambda fact: self.clients.of(*fact.delivery.key).on_retry(),
                Deferred: self._on_deferred,
                Skipped: lambda fact: self.clients.of(fact.iss, fact.client_id).on_skipped(fact.reason),
                IgnoredOverrides: self._on_ignored_overrides,
                DeadLettered: self._on_dead_letter,
                Unexpected: self._on_unexpected,
                ClientServed: lambda fact: self._recoveries.add(fact.seconds),
            }
        )
        """Counts a fact."""

    def label(self, iss: str, client_id: str) -> Label:
        """Return the current label of a registered client."""
        return self.clients.label(iss, client_id)

    def add_sources(self, list_names: Callable[[], Iterable[str]]) -> None:
        """Start the series of these sources at zero. Otherwise an alert would not see the first refusal of a source."""
        self._source_lists.append(list_names)

    def count_surplus(self, client: Client) -> None:
        """Count a connection that was closed because the client sent bytes after its response."""
        label = self.clients.label(client.iss, client.client_id)
        self._surplus[label] = self._surplus.get(label, 0) + 1

    def _on_deferred(self, fact: Deferred) -> None:
        self.clients.of(fact.iss, fact.client_id, unregistered=fact.cause is Cause.UNKNOWN).on_deferred(fact.cause)

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        unregistered = fact.reason in _UNKNOWN_REASONS
        self.clients.of(fact.iss, fact.client_id, unregistered=unregistered).on_dead_letter(fact.reason)

    def _on_ignored_overrides(self, _: IgnoredOverrides) -> None:
        self._ignored_overrides += 1

    def _on_unexpected(self, _: Unexpected) -> None:
        self._internal_faults += 1

    def _on_event_taken(self, fact: EventTaken) -> None:
        self._events[fact.result] += 1
        self._undated += fact.result == "accepted" and not fact.dated
        for member in fact.unread:
            self._unread[member] += 1
        if fact.source is not None:
            key = (fact.source, fact.result)
            self._source_events[key] = self._source_events.get(key, 0) + 1

    def _on_members_misspelt(self, fact: MembersMisspelt) -> None:
        for member in fact.members:
            self._remarks[member.meant] += 1

    def _on_attempt(self, fact: Attempted) -> None:
        iss, client_id = fact.delivery.key
        numbers = self.clients.of(iss, client_id)
        numbers.on_attempt(fact.outcome.reason)
        if isinstance(fact, LogoutDelivered):
            numbers.on_delivered(fact.propagation)
        elif fact.outcome.reason is Reason.TIMEOUT and isinstance(fact.outcome, Failed):
            self._ended_early += fact.outcome.ended_early
        self._attempt_seconds.add(fact)
        if fact.jti:  # an attempt that egress denies has no token
            key = (self.clients.iss(iss), fact.alg)
            self._minted[key] = self._minted.get(key, 0) + 1

    def families(self, *, exemplars: bool) -> Iterator[Metric]:
        """Yield the metrics of deliveries, except those of `clients` and `waiting`."""
        yield labelled_family(
            CounterMetricFamily, "events_total", "Event messages processed here, by result.", ("result",), self._events
        )
        yield plain_counter("events_undated_total", "Accepted events without a time.", self._undated)
        text = "Informational members of events that could not be read and were dropped."
        yield labelled_family(CounterMetricFamily, "event_members_unread_total", text, ("member",), self._unread)
        text = "Unknown members of events that probably mean this member."
        yield labelled_family(CounterMetricFamily, "event_remarks_total", text, ("member",), self._remarks)
        yield plain_counter(
            "events_unheard_total", "Events whose members for registered clients were ignored.", self._ignored_overrides
        )
        text = "Connections that were closed because the client sent bytes after its response."
        yield labelled_family(CounterMetricFamily, "answers_surplus_total", text, ("iss", "client_id"), self._surplus)
        yield plain_counter(
            "own_faults_total", "Deliveries that failed by an internal error of notifier.", self._internal_faults
        )
        text = "Messages of sources processed here, by result."
        names = chain.from_iterable(list_names() for list_names in self._source_lists)
        counts = {(name, result): 0 for name in names for result in EVENT_RESULTS} | self._source_events
        yield labelled_family(CounterMetricFamily, "source_events_total", text, ("source", "result"), counts)
        yield from self.signatures.families()
        text = "Tokens signed, by issuer and algorithm."
        yield labelled_family(CounterMetricFamily, "tokens_minted_total", text, ("iss", "alg"), self._minted)
        text = "Attempts ended before their timeout, since other clients needed the slot."
        yield plain_counter("attempts_ended_early_total", text, self._ended_early)
        yield self._attempt_seconds.family(exemplars=exemplars)
        yield HistogramMetricFamily(
            "notifier_recovery_seconds",
            "From a client's recovery until nothing is parked for it.",
            buckets=self._recoveries.buckets,
            sum_value=self._recoveries.sum,
        )


_UNKNOWN_REASONS = frozenset({DeadReason.UNKNOWN_CLIENT, DeadReason.UNKNOWN_ISSUER, DeadReason.MALFORMED_EVENT})

"""Counts the facts of the pipeline. Nothing else counts.

`metrics_page` serves them, with the gauges. All runs on the event loop: no locks, no threads.
"""

from collections.abc import Callable, Iterator, Mapping
from time import time

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from notifier.delivery.facts import (
    Attempted,
    Buried,
    ClientServed,
    Deferred,
    EventTaken,
    FactHandlers,
    IgnoredOverrides,
    LogoutDelivered,
    RetryScheduled,
    Skipped,
    Unexpected,
)
from notifier.model.client import Client
from notifier.model.documents.event_document import INFORMATIONAL
from notifier.model.message import Depth
from notifier.model.outcome import Cause, DeadReason
from notifier.model.registry import Registry
from notifier.telemetry.attempt_seconds import AttemptSeconds
from notifier.telemetry.client_series import ClientSeries, Label
from notifier.telemetry.families import Histogram, WaitingMessages, labelled, plain_counter
from notifier.telemetry.signature_counts import SignatureCounts

_RESULTS = ("accepted", "duplicate", "split", "malformed", "ignored")
RECOVERY_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)


class Metrics:
    """The observer that counts. `clients` are the series of clients, `waiting` the messages in the queues."""

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
        self._events = dict.fromkeys(_RESULTS, 0)
        self._undated = self._unheard = 0
        self._unread = dict.fromkeys((*INFORMATIONAL, "time"), 0)
        self._source_events: dict[tuple[str, str], int] = {}
        self.signatures = signatures or SignatureCounts()
        self._surplus: dict[Label, int] = {}
        self._own_faults = 0
        self._minted: dict[tuple[str, str], int] = {}
        self._attempt_seconds = AttemptSeconds()
        self._recoveries = Histogram(RECOVERY_BUCKETS)
        self.waiting = WaitingMessages(clock)
        self.observe = FactHandlers(  # `circuit_state` is read at the scrape
            {
                Attempted: self._attempted,
                LogoutDelivered: self._attempted,
                EventTaken: self._event_taken,
                RetryScheduled: lambda fact: self.clients.of(*fact.delivery.key).retry(),
                Deferred: self._deferred,
                Skipped: lambda fact: self.clients.of(fact.iss, fact.client_id).skipped(),
                IgnoredOverrides: self._count_unheard,
                Buried: self._buried,
                Unexpected: self._unexpected,
                ClientServed: lambda fact: self._recoveries.add(fact.seconds),
            }
        )
        """Counts a fact."""

    def label(self, iss: str, client_id: str) -> Label:
        """Return the label under which a registered client counts now."""
        return self.clients.label(iss, client_id)

    def set_depths(self, depths: Mapping[str, Depth]) -> None:
        """Set what the broker says of each queue (names without prefix)."""
        self.waiting.set_depths(depths)

    def count_surplus(self, client: Client) -> None:
        """Count a connection that was closed since the client sent more than its answer."""
        label = self.clients.label(client.iss, client.client_id)
        self._surplus[label] = self._surplus.get(label, 0) + 1

    def _deferred(self, fact: Deferred) -> None:
        self.clients.of(fact.iss, fact.client_id, unknown=fact.cause is Cause.UNKNOWN).deferred(fact.cause)

    def _buried(self, fact: Buried) -> None:
        self.clients.of(fact.iss, fact.client_id, unknown=fact.reason in _NOBODY_KNOWS).buried(fact.reason)

    def _count_unheard(self, _: IgnoredOverrides) -> None:
        self._unheard += 1

    def _unexpected(self, _: Unexpected) -> None:
        self._own_faults += 1

    def _event_taken(self, fact: EventTaken) -> None:
        self._events[fact.result] += 1
        self._undated += fact.result == "accepted" and not fact.dated
        for member in fact.unread:
            self._unread[member] += 1
        if fact.source is not None:
            key = (fact.source, fact.result)
            self._source_events[key] = self._source_events.get(key, 0) + 1

    def _attempted(self, fact: Attempted) -> None:
        iss, client_id = fact.delivery.key
        numbers = self.clients.of(iss, client_id)
        numbers.attempted(fact.outcome.reason)
        if isinstance(fact, LogoutDelivered):
            numbers.delivered(fact.propagation)
        self._attempt_seconds.add(fact)
        if fact.jti:  # no token is made for an attempt that egress denies
            key = (self.clients.iss(iss), fact.alg)
            self._minted[key] = self._minted.get(key, 0) + 1

    def families(self, *, exemplars: bool) -> Iterator[Metric]:
        """Return the families of the counters that have no client."""
        yield labelled(
            CounterMetricFamily, "events_total", "Event messages come to their end here.", ("result",), self._events
        )
        yield plain_counter(
            "events_undated_total", "Accepted events of which nobody knows when they happened.", self._undated
        )
        text = "Informational members of events that could not be read and were dropped."
        yield labelled(CounterMetricFamily, "event_members_unread_total", text, ("member",), self._unread)
        yield plain_counter(
            "events_unheard_total", "Events whose word on registered clients does not count.", self._unheard
        )
        text = "Connections that were closed since the client sent more than its answer."
        yield labelled(CounterMetricFamily, "answers_surplus_total", text, ("iss", "client_id"), self._surplus)
        yield plain_counter("own_faults_total", "Deliveries that met a fault in our own code.", self._own_faults)
        text = "Messages of sources that come to their end here."
        yield labelled(CounterMetricFamily, "source_events_total", text, ("source", "result"), self._source_events)
        yield from self.signatures.families()
        yield labelled(CounterMetricFamily, "tokens_minted_total", "Tokens signed.", ("iss", "alg"), self._minted)
        yield self._attempt_seconds.family(exemplars=exemplars)
        yield HistogramMetricFamily(
            "notifier_recovery_seconds",
            "From a client's recovery until nothing is parked for it.",
            buckets=self._recoveries.buckets,
            sum_value=self._recoveries.sum,
        )


_NOBODY_KNOWS = frozenset({DeadReason.UNKNOWN_CLIENT, DeadReason.UNKNOWN_ISSUER, DeadReason.MALFORMED_EVENT})

"""Keeps the metrics of each client: its label, its numbers, and their text at a scrape.

prometheus-client is too slow for so many series: 500 clients with some 50 series each took 280 ms. Plain lists
and one f-string per line take 5 ms, and a scrape can pause between pieces of the text. All series of a client begin at
zero with its first fact, so that `increase()` counts the first failure.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from weakref import ref

from notifier.model.notice import SkipReason
from notifier.model.outcome import Cause, DeadReason, Reason
from notifier.model.registry import Registry

Label = tuple[str, str]
"""The values of `iss` and `client_id`."""

OTHER_CLIENT, INLINE_CLIENT, UNKNOWN = "_other", "_inline", "_unknown"
NO_CLIENT: Label = ("", "")
SHARED_LABELS = frozenset({"", OTHER_CLIENT, INLINE_CLIENT, UNKNOWN})

# From half the time of a healthy delivery to 15 minutes, which only retries reach; +Inf is the eighth. The alerts use
# 30 s. There is no bucket of one minute: no alert uses it, and each bucket is a series per client.
PROPAGATION_BUCKETS = (0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 900.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """One metric of clients. `text`: its help text. `start`: the position of its first sample in a client's numbers.

    A sample is a suffix of the metric's name, and the text of further labels. `clientless`: the metric also has series
    without a client.
    """

    name: str
    kind: str
    text: str
    start: int
    samples: tuple[tuple[str, str], ...]
    clientless: bool = False


def _layout() -> tuple[_Family, ...]:
    """Return the metrics, in the order of a client's numbers."""
    buckets = [("_bucket", f',le="{bound}"') for bound in (*PROPAGATION_BUCKETS, "+Inf")]
    plan: list[tuple[str, str, str, list[tuple[str, str]]]] = [
        ("attempts_total", "counter", "Attempts to deliver, by reason.", _label_values("reason", Reason)),
        ("deliveries_settled_total", "counter", "Deliveries with a final result.", _label_values("fate", FATES)),
        ("retries_scheduled_total", "counter", "Retries made durable.", [("", "")]),
        (
            "deferrals_total",
            "counter",
            "Deliveries deferred without an attempt, by cause.",
            _label_values("cause", Cause),
        ),
        ("dead_letters_total", "counter", "Dead letters, by reason.", _label_values("reason", DeadReason)),
        (
            "circuit_state",
            "gauge",
            "0 closed, 1 half-open, 2 open; of clients that share a label, the worst.",
            [("", "")],
        ),
        ("waiting_deliveries", "gauge", "Deliveries that wait for the client. The sum over all workers.", [("", "")]),
        ("propagation_seconds", "histogram", "From ended_at to delivered.", [*buckets, ("_count", ""), ("_sum", "")]),
    ]
    families: list[_Family] = []
    start = 0
    for name, kind, text, samples in plan:
        clientless = name in ("deferrals_total", "dead_letters_total")
        families.append(
            _Family(name=name, kind=kind, text=text, start=start, samples=tuple(samples), clientless=clientless)
        )
        start += len(samples)
    return tuple(families)


def _label_values(label: str, values: Iterable[str]) -> list[tuple[str, str]]:
    return [("", f',{label}="{value}"') for value in values]


FATES = ("delivered", "dead", "skipped", "session_only")
_SKIPPED = MappingProxyType({SkipReason.NO_URI: "skipped", SkipReason.SESSION_ONLY: "session_only"})
_FAMILIES = _layout()
_SIZE = _FAMILIES[-1].start + len(_FAMILIES[-1].samples)
_START = MappingProxyType({family.name: family.start for family in _FAMILIES})
_PROPAGATION = _START["propagation_seconds"]
_INFINITE_BUCKET = _PROPAGATION + len(PROPAGATION_BUCKETS)
_PROPAGATION_COUNT, _PROPAGATION_SUM = _INFINITE_BUCKET + 1, _INFINITE_BUCKET + 2
_CIRCUIT = _START["circuit_state"]
_WAITING = _START["waiting_deliveries"]
_RETRIES = _START["retries_scheduled_total"]


def _positions(name: str, values: Iterable[str]) -> Mapping[str, int]:
    """Return the position of the sample of each label value in a client's numbers."""
    return MappingProxyType({str(value): position for position, value in enumerate(values, _START[name])})


_ATTEMPTS = _positions("attempts_total", Reason)
_SETTLED = _positions("deliveries_settled_total", FATES)
_DEFERRALS = _positions("deferrals_total", Cause)
_DEAD = _positions("dead_letters_total", DeadReason)


class ClientNumbers:
    """The numbers of one client, or of the clients that share a label."""

    __slots__ = ("concerns_client", "labels", "numbers")

    def __init__(self, label: Label) -> None:
        self.labels = f'iss="{_escape(label[0])}",client_id="{_escape(label[1])}"'
        self.concerns_client = bool(label[1])
        self.numbers: list[float] = [0] * _SIZE

    def on_attempt(self, reason: Reason) -> None:
        """Count an attempt."""
        self.numbers[_ATTEMPTS[reason]] += 1

    def on_skipped(self, reason: SkipReason) -> None:
        """Count a client that is not notified."""
        self.numbers[_SETTLED[_SKIPPED[reason]]] += 1

    def on_retry(self) -> None:
        """Count a durable retry."""
        self.numbers[_RETRIES] += 1

    def on_deferred(self, cause: Cause) -> None:
        """Count a durable deferral."""
        self.numbers[_DEFERRALS[cause]] += 1

    def on_dead_letter(self, reason: DeadReason) -> None:
        """Count a dead letter, which also settles the delivery."""
        self.numbers[_DEAD[reason]] += 1
        self.numbers[_SETTLED["dead"]] += 1

    def on_delivered(self, propagation: float | None) -> None:
        """Count a successful delivery. `propagation`: seconds since `ended_at`; None if unknown."""
        numbers = self.numbers
        numbers[_SETTLED["delivered"]] += 1
        if propagation is None:
            return
        seconds = max(0.0, propagation)
        first_bucket = _PROPAGATION + bisect_left(PROPAGATION_BUCKETS, seconds)
        for bucket in range(first_bucket, _INFINITE_BUCKET + 1):  # buckets are cumulative, as in the text format
            numbers[bucket] += 1
        numbers[_PROPAGATION_COUNT] += 1
        numbers[_PROPAGATION_SUM] += seconds


class ClientSeries:
    """The numbers of all clients, by label. The first `max_clients` clients of the registry have individual labels.

    All other clients share the labels OTHER_CLIENT, INLINE_CLIENT and UNKNOWN.
    """

    def __init__(self, registry: Callable[[], Registry], max_clients: int) -> None:
        self._registry = registry
        self._max_clients = max_clients
        self._numbers: dict[Label, ClientNumbers] = {NO_CLIENT: ClientNumbers(NO_CLIENT)}
        self._followed = ref(registry())
        self._individual = _first_clients(registry(), max_clients)

    def of(self, iss: str, client_id: str, *, unregistered: bool = False) -> ClientNumbers:
        """Return the numbers of this client. `unregistered`: the client is known not to be registered."""
        self._follow_registry()
        numbers = self._numbers.get((iss, client_id))  # finds a client with an individual label
        if numbers is None:
            label = self._label(iss, client_id, unregistered=unregistered)
            numbers = self._numbers.get(label)
            if numbers is None:
                numbers = self._numbers[label] = ClientNumbers(label)
        return numbers

    def label(self, iss: str, client_id: str) -> Label:
        """Return the current label of a registered client."""
        self._follow_registry()
        return self._label(iss, client_id, unregistered=True)  # if it was removed meanwhile, it is unknown, not inline

    def iss(self, iss: str) -> str:
        """Return the label of an issuer. Unknown issuers share one label, because publishers can invent names."""
        return iss if not iss or iss in self._registry().issuers else UNKNOWN

    def set_circuits(self, states: Iterable[tuple[str, str, int]]) -> None:
        """Set the states of all circuits. `states`: (iss, client_id, state) of open circuits (2) and half-open (1)."""
        for client in self._numbers.values():
            client.numbers[_CIRCUIT] = 0
        for iss, client_id, state in states:
            numbers = self.of(iss, client_id).numbers
            numbers[_CIRCUIT] = max(numbers[_CIRCUIT], state)

    def set_waiting(self, counts: Iterable[tuple[str, str, int]]) -> None:
        """Set the number of pending deliveries of each client: the sum of its counts, 0 without counts."""
        for client in self._numbers.values():
            client.numbers[_WAITING] = 0
        for iss, client_id, count in counts:
            self.of(iss, client_id).numbers[_WAITING] += count

    def render(self, *, openmetrics: bool = False) -> Iterator[str]:
        """Yield the text of a scrape in pieces. OpenMetrics describes counters without `_total`."""
        clients = tuple(self._numbers.values())  # new clients may appear while the caller pauses
        for family in _FAMILIES:
            name = f"notifier_{family.name}"
            described_name = name.removesuffix("_total") if openmetrics else name
            yield f"# HELP {described_name} {family.text}\n# TYPE {described_name} {family.kind}\n"
            for client in clients:
                if client.concerns_client or family.clientless:
                    numbers, labels = client.numbers, client.labels
                    yield "".join(
                        f"{name}{suffix}{{{labels}{further_labels}}} {numbers[position]}\n"
                        for position, (suffix, further_labels) in enumerate(family.samples, family.start)
                    )

    def _label(self, iss: str, client_id: str, *, unregistered: bool) -> Label:
        """Return the label of a client. A client that may have come from an event has INLINE_CLIENT."""
        registry = self._registry()
        label = self.iss(iss)
        if not client_id or client_id in self._individual.get(iss, frozenset()):
            return label, client_id
        if client_id in registry.clients_of(iss):
            return label, OTHER_CLIENT
        is_unknown = unregistered or label == UNKNOWN or registry.inline == "deny"
        return label, UNKNOWN if is_unknown else INLINE_CLIENT

    def _follow_registry(self) -> None:
        """After a reload, drop the numbers of clients without an individual label, and of issuers that were removed."""
        registry = self._registry()
        if registry is self._followed():
            return
        self._followed, self._individual = ref(registry), _first_clients(registry, self._max_clients)
        self._numbers = {label: numbers for label, numbers in self._numbers.items() if self._is_current(label)}

    def _is_current(self, label: Label) -> bool:
        iss, client_id = label
        if client_id in SHARED_LABELS and self.iss(iss) == iss:
            return True
        return client_id in self._individual.get(iss, frozenset())


def _first_clients(registry: Registry, count: int) -> Mapping[str, frozenset[str]]:
    """Return the first `count` clients of the registry, by issuer."""
    keys = islice(((iss, client_id) for iss, clients in registry.clients.items() for client_id in clients), count)
    client_ids: dict[str, set[str]] = {}
    for iss, client_id in keys:
        client_ids.setdefault(iss, set()).add(client_id)
    return {iss: frozenset(issuer_ids) for iss, issuer_ids in client_ids.items()}


def _escape(value: str) -> str:
    clean = value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate would break the whole page
    return clean.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

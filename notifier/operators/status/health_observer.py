"""Counts each client's results and refused events at this worker, for `notifier status`.

At most 10,000 clients are kept; a new client replaces the oldest. A refused event became a dead letter as a whole. Its
issuer may be invented, so the number of counted issuers is limited; further events count without issuer.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from notifier.delivery.facts import Attempted, DeadLettered, Deferred, FactHandlers, LogoutDelivered, RetryScheduled
from notifier.model import outcome
from notifier.model.delivery import Delivery
from notifier.model.moment import Clock, earliest
from notifier.model.outcome import DeadReason
from notifier.model.redaction import redact, redact_subject
from notifier.model.registry import CurrentRegistry, Registry
from notifier.model.shared_resources import shared_bound, shared_ring
from notifier.model.trouble import Trouble, TroubleKind
from notifier.operators.status.lifetime import GetLifetime, Lifetime
from notifier.operators.status.web_page_watch import WebPageWatch

MAX_CLIENTS = shared_bound(10_000)
MAX_SKIPPED_CLIENTS = 10  # clients in trouble that are kept when the oldest client is replaced
MAX_TEXT_LENGTH = 200  # characters of a failure text
MAX_REMEDY_TEXT_LENGTH = 500  # characters of the text of a dead letter, which ends with the remedy
UNREGISTERED_SECONDS = 3600.0  # after which an unregistered client is forgotten: events may name any number of them
MAX_OVERDUE_SECONDS = 1200.0  # within which a delivery that is due is attempted or deferred again
EXPIRING_SECONDS = 3600.0
MAX_SAMPLES = 13  # one every five seconds, for the last minute
MAX_REFUSAL_COUNTS = shared_bound(50)  # pairs of issuer and reason
REFUSAL_SECONDS = 3600.0  # after which a refusal is forgotten, as in the alert NotifierEventsRefused


@dataclass(slots=True, kw_only=True)
class ClientRecord:
    """The results of one client since the worker started. Times are in epoch seconds.

    `put_off` counts retries and deferrals. `waits_for` is the cause of the last deferral, which was at `deferred_at`.
    `reason`, `status` and `text` are those of the last failure, without the user. `failing_since` is the time of the
    first failure since the last success; it may be before the worker started. `expires_with_sid` and
    `expires_without_sid` are the times when the first deferred delivery expires, by whether its token has a `sid`.
    """

    delivered: int = 0
    dead: int = 0
    put_off: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    reason: str = ""
    status: int | None = None
    next_due: float | None = None
    waits_for: str = ""
    deferred_at: float | None = None
    text: str = ""
    failing_since: float | None = None
    expires_with_sid: float | None = None
    expires_without_sid: float | None = None

    @property
    def is_in_trouble(self) -> bool:
        """Return True if an attempt failed or a delivery was deferred since the last success."""
        last_success = self.last_success or 0.0
        return (self.last_failure or 0.0) > last_success or (self.deferred_at or 0.0) > last_success

    @property
    def last_activity_at(self) -> float:
        """Return the latest time of a result, a deferral or the next attempt; 0 without any."""
        return max(filter(None, (self.last_success, self.last_failure, self.deferred_at, self.next_due)), default=0.0)


class HealthObserver:
    """Records each client's results. The owner calls `sample` every five seconds, and `forget` regularly."""

    def __init__(
        self,
        *,
        clock: Clock,
        monotonic: Clock,
        get_lifetime: GetLifetime = lambda _: None,
        registry: CurrentRegistry = Registry,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._get_lifetime = get_lifetime
        self._samples: deque[tuple[float, Mapping[str, int]]] = shared_ring(MAX_SAMPLES)
        self.clients: dict[tuple[str, str], ClientRecord] = {}
        self.web_pages = WebPageWatch(registry, self.last_activity_at, clock)
        self.counts = {"attempts": 0, "delivered": 0, "retried": 0, "deferred": 0, "dead": 0}
        self.observe = FactHandlers(
            {
                Attempted: self._on_attempt,
                LogoutDelivered: self._on_attempt,
                RetryScheduled: self._on_retry_scheduled,
                Deferred: self._on_deferred,
                DeadLettered: self._on_dead_letter,
            }
        )
        """Record a fact."""
        self.sample()

    def sample(self) -> None:
        """Record the current counts for the rates."""
        self._samples.append((self._monotonic(), dict(self.counts)))

    def forget(self, registry: Registry) -> None:
        """Forget unregistered clients without a result or a planned attempt in the last hour."""
        since = self._clock() - UNREGISTERED_SECONDS
        for (iss, client_id), record in list(self.clients.items()):
            if client_id not in registry.clients_of(iss) and record.last_activity_at < since:
                del self.clients[iss, client_id]

    def last_activity_at(self, key: tuple[str, str]) -> float:
        """Return the time of the client's last result, deferral or planned attempt; 0 without any."""
        record = self.clients.get(key)
        return 0.0 if record is None else record.last_activity_at

    def count_expiring_clients(self) -> Mapping[str, int]:
        """Return how many clients have a delivery that expires within an hour, by whether its token has a `sid`."""
        now, counts = self._clock(), {"yes": 0, "no": 0}
        for record in self.clients.values():
            if record.next_due is None or record.next_due + MAX_OVERDUE_SECONDS < now:
                continue  # another worker has the delivery: here it would have been attempted or deferred again
            for label, expires in (("yes", record.expires_with_sid), ("no", record.expires_without_sid)):
                counts[label] += expires is not None and now < expires <= now + EXPIRING_SECONDS
        return counts

    def rates(self) -> dict[str, float]:
        """Return counts per second, over the last minute or since the worker started, whichever is shorter."""
        sampled_at, old_counts = self._samples[0]
        seconds = max(1.0, self._monotonic() - sampled_at)
        return {name: round((count - old_counts[name]) / seconds, 2) for name, count in self.counts.items()}

    def _get_record(self, key: tuple[str, str], *, unregistered: bool = False) -> ClientRecord:
        """Return the client's record, or a new one.

        If there are many records, that of an unregistered client is not stored: publishers may invent its name.
        """
        record = self.clients.get(key)
        if record is None:
            if unregistered and len(self.clients) >= MAX_CLIENTS // 2:
                return ClientRecord()
            if len(self.clients) >= MAX_CLIENTS:
                self._make_room()
            record = self.clients[key] = ClientRecord()
        return record

    def _make_room(self) -> None:
        """Forget the oldest client, but keep up to MAX_SKIPPED_CLIENTS older clients that are in trouble."""
        for key in list(islice(self.clients, MAX_SKIPPED_CLIENTS)):
            record = self.clients.pop(key)
            if not record.is_in_trouble:
                return
            self.clients[key] = record  # now the newest
        del self.clients[next(iter(self.clients))]

    def _on_attempt(self, fact: Attempted) -> None:
        """Record an attempt: a success, or a failure with its reason."""
        self.counts["attempts"] += 1
        record = self._get_record(fact.delivery.key)
        if self.web_pages.since or fact.outcome.is_web_page:
            self.web_pages.on_attempt(fact)
        if isinstance(fact, LogoutDelivered):
            self.counts["delivered"] += 1
            record.delivered += 1
            record.last_success, record.failing_since = fact.at, None
            self._forget_expiry(record, fact.delivery)
        else:
            record.last_failure = fact.at
            # The first attempt of the delivery may be older than this worker.
            first_failure_at = max(record.last_success or 0.0, fact.delivery.progress.first_attempt_at or fact.at)
            record.failing_since = earliest(record.failing_since, first_failure_at)
            record.reason, record.status = fact.outcome.reason.value, fact.outcome.status
            record.text = _redact_text(fact.outcome.text, fact.delivery)[:MAX_TEXT_LENGTH]

    def _on_retry_scheduled(self, fact: RetryScheduled) -> None:
        self.counts["retried"] += 1
        self._record_deferral(fact.delivery.key, fact.due, fact.delivery)

    def _on_deferred(self, fact: Deferred) -> None:
        """Count a deferral, and record it for its client. A deferred event has no client."""
        self.counts["deferred"] += 1
        if not fact.client_id:
            return
        unregistered = fact.cause is outcome.Cause.UNKNOWN
        record = self._record_deferral((fact.iss, fact.client_id), fact.due, fact.delivery, unregistered=unregistered)
        record.waits_for, record.deferred_at = fact.cause.value, self._clock()

    def _record_deferral(
        self, key: tuple[str, str], due: float, delivery: Delivery | None, *, unregistered: bool = False
    ) -> ClientRecord:
        """Record a retry or deferral, and the expiry of its delivery if it is the first."""
        record = self._get_record(key, unregistered=unregistered)
        record.put_off += 1
        record.next_due = due
        lifetime = None if delivery is None else self._get_lifetime(delivery)
        if lifetime is not None:
            member = _expiry_member(lifetime)
            setattr(record, member, earliest(getattr(record, member), lifetime.expires))
        return record

    def _forget_expiry(self, record: ClientRecord, delivery: Delivery) -> None:
        """Clear the first expiry if it is that of this delivery, which has ended. The next deferral sets it again."""
        if record.expires_with_sid is None and record.expires_without_sid is None:
            return
        if (lifetime := self._get_lifetime(delivery)) is not None:
            member = _expiry_member(lifetime)
            first_expiry = getattr(record, member)
            if first_expiry is not None and lifetime.expires <= first_expiry:
                setattr(record, member, None)

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        """Count a dead letter, and record it for its client if it has one."""
        self.counts["dead"] += 1
        if not fact.client_id:
            return
        unregistered = fact.reason in (outcome.DeadReason.UNKNOWN_CLIENT, outcome.DeadReason.UNKNOWN_ISSUER)
        record = self._get_record((fact.iss, fact.client_id), unregistered=unregistered)
        record.dead += 1
        if fact.delivery is not None:
            self._forget_expiry(record, fact.delivery)
        if fact.delivery is None or not fact.delivery.progress.attempts:
            self._record_reason(record, fact)

    def _record_reason(self, record: ClientRecord, fact: DeadLettered) -> None:
        """Record the reason of a dead letter without an attempt. It counts as a failure unless its delivery expired."""
        if fact.reason is not outcome.DeadReason.EXPIRED:
            record.last_failure = self._clock()
            record.failing_since = record.failing_since or record.last_failure
        elif (record.last_failure or 0.0) > (record.last_success or 0.0):
            return  # the last failure shows more than the expiry
        record.reason, record.status = fact.reason.value, None
        text = fact.text if fact.delivery is None else _redact_text(fact.text, fact.delivery)
        record.text = text[:MAX_REMEDY_TEXT_LENGTH]


def _expiry_member(lifetime: Lifetime) -> str:
    """Return the name of the member of ClientRecord that has the first expiry of such deliveries."""
    return "expires_with_sid" if lifetime.has_sid else "expires_without_sid"


def _redact_text(text: str, delivery: Delivery) -> str:
    """Return the text of a failure without secrets and without the user."""
    return redact(redact_subject(text, delivery.sub, delivery.sid, delivery.email)) if text else ""


@dataclass(slots=True)
class _Refusals:
    since: float
    last_at: float = 0.0
    count: int = 0
    text: str = ""


class RefusedEventCounts:
    """Counts refused events by issuer and reason, until none was refused for an hour."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals: dict[tuple[str, DeadReason], _Refusals] = {}
        self.observe = FactHandlers({DeadLettered: self._on_dead_letter})
        """Count a refused event."""

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        """Count a dead letter without a client: a refused event; without its issuer if too many issuers are counted."""
        if fact.client_id:
            return
        now, key = self._clock(), (fact.iss, fact.reason)
        if key not in self._refusals and len(self._refusals) >= MAX_REFUSAL_COUNTS:
            self._forget(now)
            if len(self._refusals) >= MAX_REFUSAL_COUNTS:
                key = ("", fact.reason)
        refusals = self._refusals.setdefault(key, _Refusals(since=now))
        refusals.count += 1
        # The text of a malformed event may name a user.
        text = "" if fact.reason is DeadReason.MALFORMED_EVENT else f": {fact.text}"
        refusals.last_at, refusals.text = now, text

    def troubles(self) -> Iterator[Trouble]:
        """Yield a trouble for each issuer and reason. `count` is the number of refused events."""
        self._forget(self._clock())
        for (iss, reason), refusals in self._refusals.items():
            text = f"no client was notified of them{refusals.text}; `notifier dead-letters list --reason {reason}`"
            yield Trouble(
                kind=TroubleKind.EVENTS_REFUSED, text=text,
                since=refusals.since, iss=iss, subject=reason, count=refusals.count,
            )  # fmt: skip

    def _forget(self, now: float) -> None:
        for key in [key for key, refusals in self._refusals.items() if refusals.last_at + REFUSAL_SECONDS < now]:
            del self._refusals[key]

"""Keep a worker's recent data for the console: counts per five seconds, last answers of clients, the newest facts.

The data are limited in entries and bytes, and are lost when the worker ends. No delivery depends on them. An entry has
hashes of the user and the session instead of their identifiers, so that they can be searched for but not read.
"""

from array import array
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from sys import getsizeof
from typing import Any, Literal, NamedTuple

from notifier.delivery.facts import (
    Attempted,
    ClientFailing,
    ClientRecovered,
    DeadLettered,
    Deferred,
    FactHandlers,
    LogoutDelivered,
    RetryScheduled,
)
from notifier.model.client import ClientKey
from notifier.model.delivery import Delivery
from notifier.model.moment import Clock, format_optional_moment
from notifier.model.redaction import redact, redact_subject
from notifier.model.shared_resources import shared_bound

STEP_SECONDS = 5  # the time in which deliveries are counted together
MAX_STEPS = shared_bound(360)  # half an hour
MAX_MINUTES, MAX_ANSWERS = 60, 20  # per client
MAX_CLIENTS = shared_bound(2000)  # with answers and counts per minute
MAX_TROUBLE_ROWS, MAX_WELL_ROWS = shared_bound((2000, 5000))  # entries of failures, and of deliveries
MAX_TROUBLE_BYTES, MAX_WELL_BYTES, MAX_CLIENT_BYTES = 3 * 2**20, 4 * 2**20, 8 * 2**20  # limits where names are long
MAX_ROWS_PER_ANSWER = 200  # entries of each ring in one response
NUMBERS_PER_SECOND = 100_000  # more than a worker's entries per second
MAX_TEXT_CHARS = 200
SERIES = ("attempts", "delivered", "failed", "retried", "deferred", "dead")
_, _DELIVERED, _FAILED, _RETRIED, _DEFERRED, _DEAD = range(len(SERIES))
_ROW_BYTES, _CLIENT_BYTES = 450, 1600  # of an entry without its texts, and of a client with its minutes

EntryKind = Literal["delivered", "failed", "put_off", "dead", "down", "recovered"]


class RecentEntry(NamedTuple):
    """One entry of `/v1/recent`. `number` increases with each entry of this worker.

    `at`: the end of the attempt; without an attempt, the time at which the worker observed the fact. `size`: the
    maximum bytes in memory. `sub` and `sid`: hashes of the delivery's user and session.
    """

    number: int
    at: float
    kind: EntryKind
    iss: str
    client_id: str
    size: int
    event_id: str = ""
    reason: str = ""
    status: int | None = None
    seconds: float | None = None
    attempt: int | None = None
    next_due: float | None = None
    text: str = ""
    sub: int | None = None
    sid: int | None = None

    def document(self) -> dict[str, Any]:
        """Return the entry as JSON of the API."""
        return {
            "n": self.number, "at": format_optional_moment(self.at), "kind": self.kind, "iss": self.iss,
            "client_id": self.client_id,
            "event_id": self.event_id, "reason": self.reason or None, "status": self.status,
            "seconds": None if self.seconds is None else round(self.seconds, 4), "attempt": self.attempt,
            "next_due": format_optional_moment(self.next_due), "text": self.text,
        }  # fmt: skip


class _Ring:
    """The newest entries within limits. `has_dropped`: older entries were dropped."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.rows: deque[RecentEntry] = deque()
        self.bytes = 0
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self.has_dropped = False

    def trim(self) -> None:
        """Drop the oldest entries until the limits hold."""
        while len(self.rows) > self.max_rows or self.bytes > self.max_bytes:
            self.has_dropped = True
            self.bytes -= self.rows.popleft().size


@dataclass(slots=True)
class _ClientHistory:
    """The last answers of one client, and its counts per minute. All its entries share the strings `iss`, `client_id`.

    `minutes`: three numbers for each minute: minutes since the epoch, deliveries, failures. `row_bytes`: the bytes of
    an entry with these two strings, without its other texts.
    """

    iss: str
    client_id: str
    row_bytes: int
    answers: list[RecentEntry] = field(default_factory=list)
    minutes: "array[int]" = field(default_factory=lambda: array("I"))

    def bytes(self) -> int:
        """Return the maximum bytes in memory."""
        return _CLIENT_BYTES + self.row_bytes + sum(row.size for row in self.answers)


class Recent:
    """Records the facts of one worker, and returns its recent data."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_at = clock()
        self._steps: OrderedDict[int, list[int]] = OrderedDict()
        self._step_now, self._minute, self._counts_now = -1, 0, [0]
        self._clients: OrderedDict[ClientKey, _ClientHistory] = OrderedDict()
        self._client_bytes = 0
        self._trouble, self._well = _Ring(MAX_TROUBLE_ROWS, MAX_TROUBLE_BYTES), _Ring(MAX_WELL_ROWS, MAX_WELL_BYTES)
        self.last = int(self._started_at * NUMBERS_PER_SECOND)
        """The number of the newest entry. A restarted worker of the same name starts above all earlier numbers."""
        self.observe = FactHandlers(
            {
                Attempted: self._on_attempt,
                LogoutDelivered: self._on_attempt,
                RetryScheduled: lambda _: self._count(_RETRIED),
                Deferred: self._on_deferred,
                DeadLettered: self._on_dead_letter,
                ClientFailing: self._on_failing,
                ClientRecovered: self._on_recovered,
            }
        )
        """Record a fact."""

    def _count(self, series: int) -> None:
        self._current_counts()[series] += 1

    def _on_deferred(self, fact: Deferred) -> None:
        self._count(_DEFERRED)
        if fact.first:  # a delivery may be deferred many times
            cause, text = fact.cause.value, fact.text[:MAX_TEXT_CHARS]
            self._add_entry("put_off", fact.iss, fact.client_id, event_id=fact.event_id, reason=cause, text=text)

    def _on_failing(self, fact: ClientFailing) -> None:
        self._add_entry("down", fact.iss, fact.client_id, next_due=fact.next_try)

    def _on_recovered(self, fact: ClientRecovered) -> None:
        self._add_entry("recovered", fact.iss, fact.client_id, seconds=fact.outage)

    def _current_counts(self) -> list[int]:
        """Return the counts of the current step by SERIES, which the caller increases. Start a step if it is due."""
        step = int(self._clock()) // STEP_SECONDS
        if step != self._step_now:
            self._step_now, self._minute = step, step * STEP_SECONDS // 60
            self._counts_now = self._steps.setdefault(step, [0] * len(SERIES))
            if len(self._steps) > MAX_STEPS:
                self._steps.popitem(last=False)
        return self._counts_now

    def _on_attempt(self, fact: Attempted) -> None:
        """Count an attempt by step and by its client's minute, and add it to the client's answers and to a ring."""
        delivery, outcome = fact.delivery, fact.outcome
        counts = self._current_counts()
        history = self._touch_client((delivery.iss, delivery.client_id))
        event_id, minutes, answers = delivery.event_id, history.minutes, history.answers
        if not minutes or minutes[-3] != self._minute:  # three numbers per minute: minute, deliveries, failures
            minutes.extend((self._minute, 0, 0))
            del minutes[: -3 * MAX_MINUTES]
        kind: EntryKind
        if isinstance(fact, LogoutDelivered):
            kind, reason, text, ring = "delivered", "", "", self._well
            size = history.row_bytes + _size(event_id)
            counts[_DELIVERED] += 1
            minutes[-2] += 1
        else:
            kind, ring = "failed", self._trouble
            reason, text = outcome.reason.value, _redact_text(outcome.text, delivery)
            size = history.row_bytes + _size(event_id) + _size(text)
            counts[_FAILED] += 1
            minutes[-1] += 1
        self.last = number = self.last + 1
        row = RecentEntry(
            number, fact.at, kind, history.iss, history.client_id, size, event_id, reason, outcome.status, fact.seconds,
            fact.number, fact.next_due, text, hash(delivery.sub), hash(delivery.sid),
        )  # fmt: skip
        ring.rows.append(row)
        ring.bytes += size
        if ring.bytes > ring.max_bytes or len(ring.rows) > ring.max_rows:
            ring.trim()
        answers.append(row)
        if len(answers) > MAX_ANSWERS:
            size -= answers.pop(0).size
        self._client_bytes += size
        while self._client_bytes > MAX_CLIENT_BYTES:
            self._free_client_bytes(history)

    def _free_client_bytes(self, history: _ClientHistory) -> None:
        """Drop a client's oldest answer. If it has at most one, drop the least recently attempted client."""
        if len(history.answers) > 1:
            self._client_bytes -= history.answers.pop(0).size
        else:
            self._client_bytes -= self._clients.popitem(last=False)[1].bytes()

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        self._count(_DEAD)
        text, hashes, delivery = fact.text[:MAX_TEXT_CHARS], dict[str, int](), fact.delivery
        if delivery is not None:  # a message that could not be read has no delivery
            text, hashes = _redact_text(fact.text, delivery), {"sub": hash(delivery.sub), "sid": hash(delivery.sid)}
        reason = fact.reason.value
        self._add_entry("dead", fact.iss, fact.client_id, event_id=fact.event_id, reason=reason, text=text, **hashes)

    def _touch_client(self, key: ClientKey) -> _ClientHistory:
        """Return the history of a client, as the most recently attempted one. Drop another client at the limit."""
        history = self._clients.get(key)
        if history is not None:
            self._clients.move_to_end(key)
            return history
        history = self._clients[key] = _ClientHistory(*key, _ROW_BYTES + _size(key[0]) + _size(key[1]))
        self._client_bytes += history.bytes()
        if len(self._clients) > MAX_CLIENTS:
            self._free_client_bytes(history)
        return history

    def _add_entry(
        self, kind: EntryKind, iss: str, client_id: str, *, event_id: str = "", text: str = "", **members: Any
    ) -> None:
        """Add an entry of another kind than an attempt, at the present time."""
        self.last += 1
        size = _ROW_BYTES + sum(map(_size, (iss, client_id, event_id, text)))
        row = RecentEntry(self.last, self._clock(), kind, iss, client_id, size, event_id, text=text, **members)
        self._trouble.rows.append(row)
        self._trouble.bytes += size
        self._trouble.trim()

    def steps(self, since: int) -> list[list[int]]:
        """Return the counts of each step from `since` on: the step (of the epoch), then the counts in SERIES order."""
        return [
            [step, delivered + failed, delivered, failed, *others]
            for step, (_, delivered, failed, *others) in self._steps.items()
            if step >= since
        ]

    def answers(self, key: ClientKey) -> Iterable[RecentEntry]:
        """Return the last answers of a client, oldest first."""
        return self._clients[key].answers if key in self._clients else ()

    def minutes(self, key: ClientKey) -> list[list[int]]:
        """Return the counts of a client by minute: minutes since the epoch, deliveries, failures."""
        minutes = self._clients[key].minutes if key in self._clients else array("I")
        return [minutes[start : start + 3].tolist() for start in range(0, len(minutes), 3)]

    def after(self, number: int, *, well: bool, issuers: Collection[str] | None) -> list[RecentEntry]:
        """Return the entries after this number, the newest of each ring. `well`: with successful deliveries."""
        rows = list(islice(_rows_after(self._trouble.rows, number, issuers), MAX_ROWS_PER_ANSWER))
        if well:
            rows += islice(_rows_after(self._well.rows, number, issuers), MAX_ROWS_PER_ANSWER)
        return sorted(rows, key=lambda row: row.number)

    def find_rows(
        self, *, event_id: str | None, subject: str | None, issuers: Collection[str] | None
    ) -> Sequence[RecentEntry]:
        """Return the newest entries by number: of the user or session `subject`, or without `subject` of an event."""
        subject_hash = hash(subject)

        rows = [row for row in (*self._trouble.rows, *self._well.rows) if issuers is None or row.iss in issuers]
        if subject is None:
            rows = [row for row in rows if row.event_id == event_id]
        else:
            rows = [row for row in rows if subject_hash in (row.sub, row.sid)]
        return sorted(rows, key=lambda row: row.number)[-MAX_ROWS_PER_ANSWER:]

    @property
    def since(self) -> float:
        """Return the time since which all entries are kept."""
        rings = (self._trouble, self._well)
        return max((ring.rows[0].at for ring in rings if ring.has_dropped and ring.rows), default=self._started_at)


def _size(text: str) -> int:
    """Return the maximum bytes of a text in memory. Python may cache its UTF-8 form, up to 4 bytes per character."""
    return getsizeof(text) if text.isascii() else getsizeof(text) + 4 * len(text)


def _rows_after(rows: Sequence[RecentEntry], number: int, issuers: Collection[str] | None) -> Iterator[RecentEntry]:
    for row in reversed(rows):
        if row.number <= number:
            return
        if issuers is None or row.iss in issuers:
            yield row


def _redact_text(text: str, delivery: Delivery) -> str:
    return text and redact(redact_subject(text, delivery.sub, delivery.sid, delivery.email))[:MAX_TEXT_CHARS]

"""Keeps a worker's recent data for the console: counts per five seconds, last answers of clients, the newest facts.

The data are bounded in rows and bytes, and are lost when the worker ends; nothing depends on them. A row keeps the
members below of a fact, with hashes of its user and session for searches.
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

STEP_SECONDS = 5  # seconds of one count
MAX_STEPS = 360  # half an hour
MAX_MINUTES = 60  # per client
MAX_ANSWERS = 20  # per client
MAX_CLIENTS = 2000  # with answers and minutes
MAX_TROUBLE_ROWS, MAX_WELL_ROWS = 2000, 5000  # rows of failures, and of deliveries
MAX_TROUBLE_BYTES, MAX_WELL_BYTES, MAX_CLIENT_BYTES = 3 * 2**20, 4 * 2**20, 8 * 2**20  # limits where names are long
MAX_ROWS_PER_ANSWER = 200  # rows of one answer
NUMBERS_PER_SECOND = 100_000  # maximum rows per second
MAX_TEXT_CHARS = 200  # characters
SERIES = ("attempts", "delivered", "failed", "retried", "deferred", "dead")
_, _DELIVERED, _FAILED, _RETRIED, _DEFERRED, _DEAD = range(len(SERIES))
_ROW_BYTES, _CLIENT_BYTES = 450, 1600  # bytes of a row without its texts, and of a client with its minutes

EntryKind = Literal["delivered", "failed", "put_off", "dead", "down", "recovered"]


class RecentEntry(NamedTuple):
    """One entry of `/v1/recent`. `number` counts the entries of this worker.

    `at`: when the attempt ended, as in traces; otherwise when the worker observed the fact.
    `size`: the maximum bytes of memory. `sub`, `sid`: hashes of those of the delivery.
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
    """The newest rows; `trim` enforces the limits of rows and bytes. `dropped`: older rows were dropped."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.rows: deque[RecentEntry] = deque()
        self.bytes = 0
        self.most, self.most_bytes = most, most_bytes
        self.dropped = False

    def trim(self) -> None:
        """Drop the oldest rows above the limits."""
        while len(self.rows) > self.most or self.bytes > self.most_bytes:
            self.dropped = True
            self.bytes -= self.rows.popleft().size


@dataclass(slots=True)
class _ClientHistory:
    """The history of one client. Its rows share the strings of its names.

    `minutes` has three numbers per minute: the minute since the epoch, deliveries, failures. `row_bytes`: the bytes of
    a row without its other texts.
    """

    iss: str
    client_id: str
    row_bytes: int
    answers: list[RecentEntry] = field(default_factory=list)
    minutes: "array[int]" = field(default_factory=lambda: array("I"))

    def bytes(self) -> int:
        """Return the bytes of the client and its answers."""
        return _CLIENT_BYTES + self.row_bytes + sum(row.size for row in self.answers)


class Recent:
    """The recent data of one worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock()
        self._steps: OrderedDict[int, list[int]] = OrderedDict()
        self._step_now, self._minute, self._counts_now = -1, 0, [0]
        self._clients: OrderedDict[ClientKey, _ClientHistory] = OrderedDict()
        self._client_bytes = 0
        self._trouble, self._well = _Ring(MAX_TROUBLE_ROWS, MAX_TROUBLE_BYTES), _Ring(MAX_WELL_ROWS, MAX_WELL_BYTES)
        self.last = int(self._began * NUMBERS_PER_SECOND)
        """The number of the newest row. A restarted worker of the same name begins above all earlier numbers."""
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
        """Records a fact."""

    def _count(self, series: int) -> None:
        self._step()[series] += 1

    def _on_deferred(self, fact: Deferred) -> None:
        self._count(_DEFERRED)
        if fact.first:
            cause, text = fact.cause.value, fact.text[:MAX_TEXT_CHARS]
            self._add_entry("put_off", fact.iss, fact.client_id, event_id=fact.event_id, reason=cause, text=text)

    def _on_failing(self, fact: ClientFailing) -> None:
        self._add_entry("down", fact.iss, fact.client_id, next_due=fact.next_try)

    def _on_recovered(self, fact: ClientRecovered) -> None:
        self._add_entry("recovered", fact.iss, fact.client_id, seconds=fact.outage)

    def _step(self) -> list[int]:
        now = int(self._clock()) // STEP_SECONDS
        if now != self._step_now:
            self._step_now, self._minute = now, now * STEP_SECONDS // 60
            self._counts_now = self._steps.setdefault(now, [0] * len(SERIES))
            if len(self._steps) > MAX_STEPS:
                self._steps.popitem(last=False)
        return self._counts_now

    def _on_attempt(self, fact: Attempted) -> None:
        delivery, outcome = fact.delivery, fact.outcome
        counts = self._step()
        key = (delivery.iss, delivery.client_id)
        if (history := self._clients.get(key)) is None:
            history = self._add_client(key)
        self._clients.move_to_end(key)
        event_id, minutes, answers = delivery.event_id, history.minutes, history.answers
        if not minutes or minutes[-3] != self._minute:
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
        if ring.bytes > ring.most_bytes or len(ring.rows) > ring.most:
            ring.trim()
        answers.append(row)
        if len(answers) > MAX_ANSWERS:
            size -= answers.pop(0).size
        self._client_bytes += size
        while self._client_bytes > MAX_CLIENT_BYTES:
            self._drop_oldest(history)

    def _drop_oldest(self, history: _ClientHistory) -> None:
        """Drop the client's oldest answer; if it has only one, drop the least recently attempted client."""
        if len(history.answers) > 1:
            self._client_bytes -= history.answers.pop(0).size
        else:
            self._client_bytes -= self._clients.popitem(last=False)[1].bytes()

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        self._step()[_DEAD] += 1
        text, hashes, delivery = fact.text[:MAX_TEXT_CHARS], dict[str, int](), fact.delivery
        if delivery is not None:
            text, hashes = _redact_text(fact.text, delivery), {"sub": hash(delivery.sub), "sid": hash(delivery.sid)}
        why = fact.reason.value
        self._add_entry("dead", fact.iss, fact.client_id, event_id=fact.event_id, reason=why, text=text, **hashes)

    def _add_client(self, key: ClientKey) -> _ClientHistory:
        history = self._clients[key] = _ClientHistory(*key, _ROW_BYTES + _size(key[0]) + _size(key[1]))
        self._client_bytes += history.bytes()
        if len(self._clients) > MAX_CLIENTS:
            self._drop_oldest(history)
        return history

    def _add_entry(
        self, kind: EntryKind, iss: str, client_id: str, *, event_id: str = "", text: str = "", **members: Any
    ) -> None:
        self.last += 1
        size = _ROW_BYTES + sum(map(_size, (iss, client_id, event_id, text)))
        row = RecentEntry(self.last, self._clock(), kind, iss, client_id, size, event_id, text=text, **members)
        self._trouble.rows.append(row)
        self._trouble.bytes += size
        self._trouble.trim()

    def steps(self, since: int) -> list[list[int]]:
        """Return the counts since this step; each row begins with its step."""
        return [
            [step, delivered + failed, delivered, failed, *others]
            for step, (_, delivered, failed, *others) in self._steps.items()
            if step >= since
        ]

    def answers(self, key: ClientKey) -> Iterable[RecentEntry]:
        """Return the last answers of a client, oldest first."""
        return self._clients[key].answers if key in self._clients else ()

    def minutes(self, key: ClientKey) -> list[list[int]]:
        """Return the minutes of a client, each with its deliveries and failures."""
        minutes = self._clients[key].minutes if key in self._clients else array("I")
        return [minutes[at : at + 3].tolist() for at in range(0, len(minutes), 3)]

    def after(self, number: int, *, well: bool, issuers: Collection[str] | None) -> list[RecentEntry]:
        """Return the newest rows after this number, by number. `well`: include deliveries. `issuers`: None for all."""
        rings = (self._trouble, self._well) if well else (self._trouble,)
        newest = (islice(_rows_after(ring.rows, number, issuers), MAX_ROWS_PER_ANSWER) for ring in rings)
        return sorted((row for rows in newest for row in rows), key=lambda row: row.number)

    def find_rows(
        self, *, event_id: str | None, subject: str | None, issuers: Collection[str] | None
    ) -> Sequence[RecentEntry]:
        """Return the newest rows of an event, or of a user or session."""
        hashes = hash(subject)
        rows = [
            row
            for ring in (self._trouble, self._well)
            for row in ring.rows
            if (row.event_id == event_id if subject is None else hashes in (row.sub, row.sid))
            and (issuers is None or row.iss in issuers)
        ]
        return sorted(rows, key=lambda row: row.number)[-MAX_ROWS_PER_ANSWER:]

    @property
    def since(self) -> float:
        """Return the time since which no row was dropped."""
        rings = (self._trouble, self._well)
        return max((ring.rows[0].at for ring in rings if ring.dropped and ring.rows), default=self._began)


def _size(text: str) -> int:
    """Return the maximum bytes of a text: Python caches its UTF-8 form after a C function has read it."""
    return getsizeof(text) if text.isascii() else getsizeof(text) + 4 * len(text)


def _rows_after(ring: Sequence[RecentEntry], number: int, issuers: Collection[str] | None) -> Iterator[RecentEntry]:
    for row in reversed(ring):
        if row.number <= number:
            return
        if issuers is None or row.iss in issuers:
            yield row


def _redact_text(text: str, delivery: Delivery) -> str:
    return text and redact(redact_subject(text, delivery.sub, delivery.sid))[:MAX_TEXT_CHARS]

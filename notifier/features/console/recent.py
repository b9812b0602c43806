"""What a worker remembers for the console: counts of every five seconds, last answers of clients, the newest facts.

All of it is bounded, and is lost with the worker: nothing depends on it. What is kept of a fact is what its row shows,
and its user and session, to be found by; these are never shown.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from notifier.delivery.facts import (
    Attempted,
    Buried,
    ClientFailing,
    ClientRecovered,
    Deferred,
    FactHandlers,
    LogoutDelivered,
    RetryScheduled,
)
from notifier.model.client import ClientKey
from notifier.model.delivery import Delivery
from notifier.model.frozen import frozen
from notifier.model.moment import Clock, rendered
from notifier.model.redaction import redact, without_subject

STEP = 5  # seconds of one count
STEPS = 360  # counts that are kept: half an hour
MINUTES = 60  # of a client
ANSWERS = 20  # of a client
CLIENTS = 2000  # of which answers and minutes are kept
TROUBLE, WELL = 2000, 5000  # rows of what went wrong, and of what went well
AT_ONCE = 200  # rows of one answer
NUMBERS = 100_000  # rows of a second at most
TEXT = 200  # characters
SERIES = ("attempts", "delivered", "failed", "retried", "deferred", "dead")
_ATTEMPTS, _DELIVERED, _FAILED, _RETRIED, _DEFERRED, _DEAD = range(len(SERIES))

What = Literal["delivered", "failed", "put_off", "dead", "down", "recovered"]


@frozen
class Happening:
    """One thing that happened. `number` counts those of this worker. `of`: the delivery's `sub` and `sid`.

    `at`: when the attempt ended, as in traces; else when the worker observed it.
    """

    number: int
    at: float
    kind: What
    iss: str
    client_id: str
    event_id: str = ""
    reason: str = ""
    status: int | None = None
    seconds: float | None = None
    attempt: int | None = None
    next_due: float | None = None
    text: str = ""
    of: tuple[str | None, ...] = ()

    def document(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "n": self.number,
            "at": rendered(self.at),
            "kind": self.kind,
            "iss": self.iss,
            "client_id": self.client_id,
            "event_id": self.event_id,
            "reason": self.reason or None,
            "status": self.status,
            "seconds": None if self.seconds is None else round(self.seconds, 4),
            "attempt": self.attempt,
            "next_due": rendered(self.next_due),
            "text": self.text,
        }


@dataclass(slots=True)
class _Kept:
    """What is kept of one client. `minutes`: what was delivered and what failed, by minute of the epoch."""

    answers: deque[Happening] = field(default_factory=lambda: deque(maxlen=ANSWERS))
    minutes: OrderedDict[int, list[int]] = field(default_factory=OrderedDict)


class Recent:
    """The memory of one worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock()
        self._steps: OrderedDict[int, list[int]] = OrderedDict()
        self._clients: OrderedDict[ClientKey, _Kept] = OrderedDict()
        self._trouble: deque[Happening] = deque(maxlen=TROUBLE)
        self._well: deque[Happening] = deque(maxlen=WELL)
        self.last = int(self._began * NUMBERS)
        """The number of the newest row. A worker that follows one of the same name goes on from its numbers."""
        self.observe = FactHandlers(
            {
                Attempted: self._attempted,
                LogoutDelivered: self._attempted,
                RetryScheduled: lambda _: self._count(_RETRIED),
                Deferred: self._deferred,
                Buried: self._buried,
                ClientFailing: self._failing,
                ClientRecovered: self._recovered,
            }
        )
        """Notes a fact."""

    # ── what happens ──

    def _count(self, series: int) -> None:
        self._step()[series] += 1

    def _deferred(self, fact: Deferred) -> None:
        self._count(_DEFERRED)
        if fact.first:
            cause, text = fact.cause.value, fact.text[:TEXT]
            self._note("put_off", fact.iss, fact.client_id, event_id=fact.event_id, reason=cause, text=text)

    def _failing(self, fact: ClientFailing) -> None:
        self._note("down", fact.iss, fact.client_id, next_due=fact.next_try)

    def _recovered(self, fact: ClientRecovered) -> None:
        self._note("recovered", fact.iss, fact.client_id, seconds=fact.outage)

    def _step(self) -> list[int]:
        """The counts of now."""
        return _counts(self._steps, int(self._clock()) // STEP, STEPS, len(SERIES))

    def _attempted(self, fact: Attempted) -> None:
        delivery, well = fact.delivery, isinstance(fact, LogoutDelivered)
        counts = self._step()
        counts[_ATTEMPTS] += 1
        counts[_DELIVERED if well else _FAILED] += 1
        self.last += 1
        row = Happening(
            number=self.last,
            at=fact.at,
            kind="delivered" if well else "failed",
            iss=delivery.iss,
            client_id=delivery.client_id,
            event_id=delivery.event_id,
            reason="" if well else fact.outcome.reason.value,
            status=fact.outcome.status,
            seconds=fact.seconds,
            attempt=fact.number,
            next_due=fact.next_due,
            text="" if well else _shown(fact.outcome.text, delivery),
            of=(delivery.sub, delivery.sid),
        )
        (self._well if well else self._trouble).append(row)
        kept = self._kept(delivery.key)
        kept.answers.append(row)
        _counts(kept.minutes, int(fact.at) // 60, MINUTES, 2)[not well] += 1

    def _buried(self, fact: Buried) -> None:
        self._step()[_DEAD] += 1
        delivery = fact.delivery
        self._note(
            "dead",
            fact.iss,
            fact.client_id,
            event_id=fact.event_id,
            reason=fact.reason.value,
            text=fact.text[:TEXT] if delivery is None else _shown(fact.text, delivery),
            of=() if delivery is None else (delivery.sub, delivery.sid),
        )

    def _kept(self, key: ClientKey) -> _Kept:
        kept = self._clients.get(key)
        if kept is None:
            kept = self._clients[key] = _Kept()
            if len(self._clients) > CLIENTS:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(key)
        return kept

    def _note(self, kind: What, iss: str, client_id: str, **members: Any) -> None:
        self.last += 1
        row = Happening(number=self.last, at=self._clock(), kind=kind, iss=iss, client_id=client_id, **members)
        self._trouble.append(row)

    # ── what is asked ──

    def steps(self, since: int) -> list[list[int]]:
        """The counts, each after its step, from this step on."""
        return [[step, *counts] for step, counts in self._steps.items() if step >= since]

    def answers(self, key: ClientKey) -> Iterable[Happening]:
        """The last answers of a client, the oldest first."""
        return self._clients[key].answers if key in self._clients else ()

    def minutes(self, key: ClientKey) -> list[list[int]]:
        """The minutes of a client, each with what was delivered and what failed."""
        kept = self._clients.get(key)
        return [] if kept is None else [[minute, *counts] for minute, counts in kept.minutes.items()]

    def after(self, number: int, *, well: bool, issuers: Collection[str] | None) -> list[Happening]:
        """The newest rows after this one, in order. `well`: with deliveries. `issuers`: of these; None: of all."""
        rings = (self._trouble, self._well) if well else (self._trouble,)
        newest = (islice(_newer(ring, number, issuers), AT_ONCE) for ring in rings)
        return sorted((row for rows in newest for row in rows), key=lambda row: row.number)

    def found(
        self, *, event_id: str | None, subject: str | None, issuers: Collection[str] | None
    ) -> Sequence[Happening]:
        """The newest rows of an event, or of a user or session."""
        rows = [
            row
            for ring in (self._trouble, self._well)
            for row in ring
            if (row.event_id == event_id if subject is None else subject in row.of)
            and (issuers is None or row.iss in issuers)
        ]
        return sorted(rows, key=lambda row: row.number)[-AT_ONCE:]

    @property
    def since(self) -> float:
        """From when on it remembers everything."""
        return max(
            (ring[0].at for ring in (self._trouble, self._well) if len(ring) == ring.maxlen), default=self._began
        )


def _counts(kept: OrderedDict[int, list[int]], now: int, most: int, width: int) -> list[int]:
    """The counts of now, a new list if need be; so many are kept."""
    counts = kept.get(now)
    if counts is None:
        counts = kept[now] = [0] * width
        if len(kept) > most:
            kept.popitem(last=False)
    return counts


def _newer(ring: Sequence[Happening], number: int, issuers: Collection[str] | None) -> Iterator[Happening]:
    for row in reversed(ring):
        if row.number <= number:
            return
        if issuers is None or row.iss in issuers:
            yield row


def _shown(text: str, delivery: Delivery) -> str:
    """What a failure met, as operators may read it."""
    return text and redact(without_subject(text, delivery.sub, delivery.sid))[:TEXT]


def merged_steps(of_workers: Iterable[Iterable[Sequence[int]]]) -> list[list[int]]:
    """The counts of all workers, in order."""
    sums: dict[int, list[int]] = {}
    for step, *counts in (step for steps in of_workers for step in steps):
        had = sums.setdefault(step, [0] * len(counts))
        sums[step] = [before + more for before, more in zip(had, counts, strict=True)]
    return [[step, *sums[step]] for step in sorted(sums)]

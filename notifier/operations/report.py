"""The propagation report: of each client, what share of logouts arrived, how soon, and what went wrong.

Pure. Outcomes go into a `Tally` one by one, in any order; its memory is bounded by the number of clients. Durations are
counted in buckets whose bounds are 2^(1/8) apart, so that a quantile lies within 4.4 % of the true one; the slowest is
exact. A report on `outcomes: failures` knows nothing of what went well: its shares and times are None.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, replace

from notifier.domain.outcome_event import Fate, Seen, State

PER_DOUBLING = 8
ERROR = 2 ** (1 / (2 * PER_DOUBLING)) - 1  # of a quantile, relative
LEAST = 0.0001  # seconds; whatever is shorter counts as that
BINS = 48  # of the time line


class Durations:
    """A histogram of seconds. Bucket n holds LEAST·2^(n/8) up to LEAST·2^((n+1)/8)."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.slowest = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.slowest = max(self.slowest, seconds)
        self._counts[0 if seconds <= LEAST else math.floor(PER_DOUBLING * math.log2(seconds / LEAST))] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share of them lies; None where there are none."""
        if not self.count:
            return None
        wanted, passed = share * self.count, 0
        for bucket in sorted(self._counts):
            passed += self._counts[bucket]
            if passed >= wanted:
                return min(LEAST * 2 ** ((bucket + 0.5) / PER_DOUBLING), self.slowest)
        return self.slowest

    def bars(self) -> "tuple[Bar, ...]":
        """Two of them a doubling, from the lowest that holds any to the highest."""
        if not self.count:
            return ()
        each = PER_DOUBLING // 2
        coarse: Counter[int] = Counter()
        for bucket, count in self._counts.items():
            coarse[bucket // each] += count
        return tuple(
            Bar(least=LEAST * 2 ** (number / 2), below=LEAST * 2 ** ((number + 1) / 2), count=coarse[number])
            for number in range(min(coarse), max(coarse) + 1)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How many took so many seconds."""

    least: float
    below: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What went wrong: how many deliveries were given up for it, and how many attempts it cost."""

    reason: str
    dead: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One client, or all together (`client_id` empty). Durations in seconds from `ended_at` to delivered.

    `share` of those that came to an end, None where none did; `undated` were delivered, but nobody knows when the
    session ended. `failing`: its circuit was open when last heard of (of any worker's).
    """

    iss: str
    client_id: str
    delivered: int | None
    dead: int
    skipped: int
    retries: int
    share: float | None
    median: float | None
    p99: float | None
    slowest: float | None
    undated: int
    openings: int
    failing: bool
    reasons: tuple[Why, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """What was told from `at` on, for a stretch of the period."""

    at: float
    delivered: int
    dead: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Clients in order of what hurts: smallest share first, then the slowest. `complete`: what went well was told."""

    since: float
    until: float
    complete: bool
    total: Line
    clients: tuple[Line, ...]
    timeline: tuple[Bin, ...]
    propagation: tuple[Bar, ...]


@dataclass(slots=True)
class _Client:
    durations: Durations = field(default_factory=Durations)
    fates: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    failing: bool = False

    def add(self, seen: Seen) -> None:
        self.fates[seen.fate] += 1
        match seen.fate:
            case Fate.DELIVERED:
                if seen.propagation is not None:
                    self.durations.add(seen.propagation)
            case Fate.DEAD:
                self.dead[seen.reason] += 1
            case Fate.RETRYING:
                self.retries[seen.reason] += 1
            case State.FAILING:
                self.failing = True
            case State.RECOVERED:
                self.failing = False

    def line(self, iss: str, client_id: str, *, complete: bool) -> Line:
        delivered, dead = self.fates[Fate.DELIVERED], self.fates[Fate.DEAD]
        ended = delivered + dead
        why = (
            Why(reason=reason, dead=self.dead[reason], retries=self.retries[reason])
            for reason in {*self.dead, *self.retries}
        )
        return Line(
            iss=iss,
            client_id=client_id,
            delivered=delivered if complete else None,
            dead=dead,
            skipped=self.fates[Fate.SKIPPED],
            retries=self.fates[Fate.RETRYING],
            share=delivered / ended if complete and ended else None,
            median=self.durations.quantile(0.5),
            p99=self.durations.quantile(0.99),
            slowest=self.durations.slowest if self.durations.count else None,
            undated=delivered - self.durations.count,
            openings=self.fates[State.FAILING],
            failing=self.failing,
            reasons=tuple(sorted(why, key=lambda one: (-one.dead, -one.retries, one.reason))),
        )


class Tally:
    """Counts what was told from `since` until `until`, both in epoch seconds.

    `complete`: whether what went well was told too; None where only what is counted can show it.
    """

    def __init__(self, since: float, until: float, *, complete: bool | None) -> None:
        self._since, self._until, self._complete = since, until, complete
        self._width = max(until - since, 1e-3) / BINS
        self._clients: dict[tuple[str, str], _Client] = {}
        self._total = _Client()
        self._bins = [Counter[str]() for _ in range(BINS)]

    def add(self, seen: Seen) -> None:
        """One outcome. What lies outside the period is left out."""
        if not self._since <= seen.at <= self._until:
            return
        key = (seen.iss, seen.client_id)
        if (client := self._clients.get(key)) is None:
            client = self._clients[key] = _Client()
        client.add(seen)
        self._total.add(seen)
        self._bins[min(BINS - 1, int((seen.at - self._since) / self._width))][seen.fate] += 1

    def report(self) -> Report:
        """What came of it."""
        complete = self._total.fates[Fate.DELIVERED] > 0 if self._complete is None else self._complete
        lines = [client.line(*key, complete=complete) for key, client in self._clients.items()]
        total = self._total.line("", "", complete=complete)
        return Report(
            since=self._since,
            until=self._until,
            complete=complete,
            total=replace(total, failing=any(line.failing for line in lines)),
            clients=tuple(sorted(lines, key=_hurts)),
            timeline=tuple(self._bin(number) for number in range(BINS)),
            propagation=self._total.durations.bars(),
        )

    def _bin(self, number: int) -> Bin:
        counts = self._bins[number]
        return Bin(
            at=self._since + number * self._width,
            delivered=counts[Fate.DELIVERED],
            dead=counts[Fate.DEAD],
            retries=counts[Fate.RETRYING],
        )


def _hurts(line: Line) -> tuple[object, ...]:
    # With `failures`, and where nothing has come to an end: by how many were given up, and then by what they cost.
    # A client that fails, and of whom nothing has come to an end, is as bad as one that gets nothing.
    share = (0.0 if line.failing else 1.0) if line.share is None else line.share
    return (share, -line.dead, not line.failing, -(line.p99 or 0.0), -line.retries, line.iss, line.client_id)

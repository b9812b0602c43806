"""Computes the propagation report: the share of logouts that arrived at each client, how soon, and what went wrong.

A `ReportTally` counts the rows of the feed one by one, in any order. Its memory is bounded by the number of clients.
Durations are counted in buckets whose bounds are 2^(1/8) apart. So a quantile lies within 4.4 % of the true one; the
slowest is exact. With `outcomes: failures` the feed holds no successes, so shares and times are None.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from notifier.model.fate import ClientChange, Fate, FeedRow
from notifier.model.moment import render_moment

VERSION = 1  # of the JSON
PER_DOUBLING = 8
ERROR = 2 ** (1 / (2 * PER_DOUBLING)) - 1  # of a quantile, relative
LEAST = 0.0001  # seconds; anything shorter counts as this
SLICES = 48  # of the report's period
_GOOD = frozenset({Fate.DELIVERED, ClientChange.RECOVERED})
_BAD = frozenset({Fate.DEAD, Fate.RETRYING, ClientChange.FAILING})


class Durations:
    """A histogram of seconds. Bucket n holds LEAST·2^(n/8) up to LEAST·2^((n+1)/8)."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.slowest = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.count += 1
        self.slowest = max(self.slowest, seconds)
        self._counts[0 if seconds <= LEAST else math.floor(PER_DOUBLING * math.log2(seconds / LEAST))] += 1

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which this share of the durations lies. None if there are none."""
        if not self.count:
            return None
        wanted, passed = share * self.count, 0
        for bucket in sorted(self._counts):
            passed += self._counts[bucket]
            if passed >= wanted:
                return min(LEAST * 2 ** ((bucket + 0.5) / PER_DOUBLING), self.slowest)
        return self.slowest

    def bars(self) -> "tuple[DurationBar, ...]":
        """Return the histogram, two bars for each doubling, from the lowest that holds any to the highest."""
        if not self.count:
            return ()
        steps = PER_DOUBLING // 2
        coarse: Counter[int] = Counter()
        for bucket, count in self._counts.items():
            coarse[bucket // steps] += count
        return tuple(
            DurationBar(least=LEAST * 2 ** (number / 2), below=LEAST * 2 ** ((number + 1) / 2), count=coarse[number])
            for number in range(min(coarse), max(coarse) + 1)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationBar:
    """A bar of the histogram: how many deliveries took from `least` up to `below` seconds."""

    least: float
    below: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """The deliveries that were given up for a reason, and the retries that it cost."""

    reason: str
    dead: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFigures:
    """The figures of one client, or of all together (`client_id` empty). Seconds count from `ended_at` to delivered.

    `share` is that of the deliveries that ended, None if none did. `undated` were delivered, but nobody knows when the
    session ended. `failing`: the last that is told of it is a failure, as `notifier status` has it.
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
    reasons: tuple[ReasonCount, ...]

    @property
    def got_nothing(self) -> bool:
        """True if logouts were due, and none was delivered."""
        return self.delivered == 0 and self.dead + self.retries > 0 and self.client_id != ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSlice:
    """What happened in one slice of the period, from `at` on."""

    at: float
    delivered: int
    dead: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PropagationReport:
    """The report. The worst clients come first. `complete`: the feed told of what went well, too.

    `untold`: clients of the registry, by issuer and name, of which the feed tells nothing.
    """

    since: float
    until: float
    complete: bool
    total: ClientFigures
    clients: tuple[ClientFigures, ...]
    timeline: tuple[TimeSlice, ...]
    propagation: tuple[DurationBar, ...]
    untold: tuple[tuple[str, str], ...] = ()

    @property
    def named(self) -> tuple[ClientFigures, ...]:
        """The clients that have a name: not what no client could be read from."""
        return tuple(line for line in self.clients if line.client_id)


@dataclass(slots=True)
class _Client:
    durations: Durations = field(default_factory=Durations)
    fates: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    failing: bool = False
    last_told: float = 0.0

    def add(self, row: FeedRow) -> None:
        self.fates[row.fate] += 1
        match row.fate:
            case Fate.DELIVERED:
                if row.propagation is not None:
                    self.durations.add(row.propagation)
            case Fate.DEAD:
                self.dead[row.reason] += 1
            case Fate.RETRYING:
                self.retries[row.reason] += 1
        if row.fate in _GOOD | _BAD and row.at >= self.last_told:
            self.last_told = row.at
            self.failing = row.fate in _BAD

    def line(self, iss: str, client_id: str, *, complete: bool) -> ClientFigures:
        delivered, dead = self.fates[Fate.DELIVERED], self.fates[Fate.DEAD]
        ended = delivered + dead
        why = (
            ReasonCount(reason=reason, dead=self.dead[reason], retries=self.retries[reason])
            for reason in {*self.dead, *self.retries}
        )
        return ClientFigures(
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
            openings=self.fates[ClientChange.FAILING],
            failing=self.failing,
            reasons=tuple(sorted(why, key=lambda figures: (-figures.dead, -figures.retries, figures.reason))),
        )


class ReportTally:
    """Counts the rows from `since` until `until`, in epoch seconds.

    `complete`: whether the feed told of what went well, too. If None, the rows show it.
    """

    def __init__(self, since: float, until: float, *, complete: bool | None) -> None:
        self._since, self._until, self._complete = since, until, complete
        self._width = max(until - since, 1e-3) / SLICES
        self._clients: dict[tuple[str, str], _Client] = {}
        self._total = _Client()
        self._bins = [Counter[str]() for _ in range(SLICES)]

    def add(self, row: FeedRow) -> None:
        """Count one row. Rows outside the period are left out."""
        if not self._since <= row.at <= self._until:
            return
        key = (row.iss, row.client_id)
        if (client := self._clients.get(key)) is None:
            client = self._clients[key] = _Client()
        client.add(row)
        self._total.add(row)
        self._bins[min(SLICES - 1, int((row.at - self._since) / self._width))][row.fate] += 1

    def report(self, registered: Iterable[tuple[str, str]] = ()) -> PropagationReport:
        """Return the report of what was counted. `registered`: the clients of the registry that have an address."""
        complete = self._total.fates[Fate.DELIVERED] > 0 if self._complete is None else self._complete
        lines = [client.line(*key, complete=complete) for key, client in self._clients.items()]
        total = self._total.line("", "", complete=complete)
        return PropagationReport(
            since=self._since,
            until=self._until,
            complete=complete,
            total=replace(total, failing=any(line.failing for line in lines)),
            clients=tuple(sorted(lines, key=_hurts)),
            timeline=tuple(self._bin(number) for number in range(SLICES)),
            propagation=self._total.durations.bars(),
            untold=tuple(sorted(set(registered) - self._clients.keys())),
        )

    def _bin(self, number: int) -> TimeSlice:
        counts = self._bins[number]
        return TimeSlice(
            at=self._since + number * self._width,
            delivered=counts[Fate.DELIVERED],
            dead=counts[Fate.DEAD],
            retries=counts[Fate.RETRYING],
        )


def _hurts(line: ClientFigures) -> tuple[object, ...]:
    # Without a share, clients are in order of what was given up, and then of what retries cost. A client that fails,
    # and of which nothing has ended, is as bad as one that gets nothing.
    share = (0.0 if line.failing else 1.0) if line.share is None else line.share
    return (share, -line.dead, not line.failing, -(line.p99 or 0.0), -line.retries, line.iss, line.client_id)


def report_document(report: PropagationReport) -> dict[str, Any]:
    """Return what `--json` prints: durations in seconds, moments in RFC 3339."""
    total = _line(report.total)
    del total["iss"], total["client_id"]
    total["got_nothing"] = sum(line.got_nothing for line in report.clients)
    return {
        "v": VERSION,
        "since": render_moment(report.since),
        "until": render_moment(report.until),
        "complete": report.complete,
        "quantile_error": round(ERROR, 3),
        "total": total,
        "clients": [_line(line) for line in report.clients],
        "untold": [{"iss": iss, "client_id": client_id} for iss, client_id in report.untold],
        "timeline": [asdict(interval) | {"at": render_moment(interval.at)} for interval in report.timeline],
        "propagation": [
            {"least": _seconds(bar.least), "below": _seconds(bar.below), "count": bar.count}
            for bar in report.propagation
        ],
    }


def _line(line: ClientFigures) -> dict[str, Any]:
    shown = asdict(line)
    times = {f"{name}_seconds": _seconds(shown.pop(name)) for name in ("median", "p99", "slowest")}
    return shown | times | {"reasons": list(shown["reasons"]), "got_nothing": line.got_nothing}


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")

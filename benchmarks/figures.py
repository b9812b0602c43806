"""Figures from arrivals: percentiles, ratios with their spread, and the account of every delivery."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.processes import Arrival
from benchmarks.rig import Event, table_of


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that this share (0 to 1) of the values does not exceed; NaN if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Least, middle and greatest of a few runs."""

    min: float
    median: float
    max: float

    def __str__(self) -> str:
        return f"{self:.3f}"

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.min:{spec}} – {self.max:{spec}})"


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return Spread(min=ordered[0], median=middle, max=ordered[-1])


def spreads(records: Sequence[object], *names: str) -> dict[str, Spread]:
    """The spread of each of these fields."""
    return {name: spread([getattr(record, name) for record in records]) for name in names}


def table(title: str, records: Mapping[str, object]) -> Table:
    """For people: a row for each record, with its spreads."""
    first = next(iter(records.values()))
    names = [name for name in getattr(first, "__dataclass_fields__", ()) if isinstance(getattr(first, name), Spread)]
    made = table_of(f"{title}: median (min – max)", ("case", *names))
    for case, record in records.items():
        spreads: list[Spread] = [getattr(record, name) for name in names]
        made.add_row(case, *(f"{each:{',.0f' if each.median >= 100 else '.2f'}}" for each in spreads))
    return made


def ratios(pairs: Iterable[tuple[float, float]]) -> Spread:
    """The spread of second ÷ first of each pair."""
    return spread([after / before if before else math.nan for before, after in pairs])


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Of the deliveries that had to arrive: how many did, how many did more than once, and how many never did.

    `strange` came without having been sent there.
    """

    expected: int
    arrived: int
    duplicated: int
    missing: int
    strange: int

    @property
    def complete(self) -> bool:
        """True if each arrived and nothing else did. Duplicates are allowed, and counted."""
        return not self.missing and not self.strange


@dataclass(frozen=True, slots=True)
class Ledger:
    """Which deliveries were expected, when each first arrived, and which were not answered at some time."""

    expected: frozenset[tuple[int, int]]
    first: Mapping[tuple[int, int], float]
    account: Account
    refused: frozenset[tuple[int, int]]

    def waits(self, deliveries: Iterable[tuple[int, int]], since: Mapping[int, float]) -> list[float]:
        """Return the seconds of each delivery after the moment of its event; infinite if it did not arrive."""
        return [self.first.get(each, math.inf) - since[each[0]] for each in deliveries]

    def latencies(self, due: Mapping[int, float]) -> list[float]:
        """Seconds from the moment each event was due to be published, for those events that `due` has."""
        return [at - due[event] for (event, _), at in self.first.items() if event in due]

    def by_second(self, due: Mapping[int, float], start: float) -> list[list[float]]:
        """The latencies of the events due in each second after `start`."""
        seconds: dict[int, list[float]] = {}
        for (event, _), at in self.first.items():
            if event in due:
                seconds.setdefault(int(due[event] - start), []).append(at - due[event])
        return [seconds[second] for second in sorted(seconds)]


def ledger(events: Iterable[Event], clients: Collection[int], arrivals: Iterable[Arrival]) -> Ledger:
    """Make the ledger of these clients. A delivery has arrived once it was answered."""
    expected = frozenset((event.number, number) for event in events for number in event.clients if number in clients)
    times: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], float] = {}
    refused = set()
    strange = 0
    for arrival in arrivals:
        key = arrival.event, arrival.client
        if arrival.client not in clients:
            continue
        if not arrival.answered:
            refused.add(key)
            continue
        strange += key not in expected
        times[key] += 1
        first[key] = min(arrival.at, first.get(key, math.inf))
    found = Account(
        expected=len(expected),
        arrived=len(expected & first.keys()),
        duplicated=sum(count > 1 for count in times.values()),
        missing=len(expected - first.keys()),
        strange=strange,
    )
    return Ledger(expected, first, found, frozenset(refused))

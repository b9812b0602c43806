"""The figures of a soak: what a long life costs and whether that is flat, as JSON and as text.

Flat is judged by medians, since bursts after an outage make peaks: that of the last fifth of the samples against that
of the second (the first is warming up), within a bound that a leak of any use to know passes in half an hour.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.system.ledger import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the long-lived worker. `connections` to clients are no part of `descriptors`.

    `unsettled`: the messages it holds; None where it did not answer.
    """

    at: float
    memory: float  # MiB, resident
    descriptors: int
    connections: int
    threads: int
    unsettled: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How far the end may lie above the beginning: so many hundredths of it, and so much more."""

    percent: float
    more: float


BOUNDS: Mapping[str, Bound] = {
    # The memory of duplicates (50,000 deliveries, about 8 MB) is filled after ten minutes of this load: late in a short
    # run, early in a long one. 100 bytes a delivery, never given back, are 10 MiB in half an hour.
    "memory": Bound(percent=10, more=8),
    # One left at each lost broker connection would be fifty.
    "descriptors": Bound(percent=10, more=6),
    # As many are kept alive as were ever wanted at once, by turns: 32 for each of the busy clients and a few for each
    # of the others are reached in time. One left at each failed attempt would be thousands.
    "connections": Bound(percent=50, more=100),
    # Those of the default executor begin as they are needed, six at most on two cores.
    "threads": Bound(percent=0, more=4),
}
UNITS: Mapping[str, str] = {"memory": " MiB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one thing went: the medians of the second and of the last fifth, the most at any time, and the bound."""

    what: str
    early: float
    late: float
    most: float
    bound: float

    @property
    def flat(self) -> bool:
        """True if it did not grow."""
        return self.late <= self.bound

    def __str__(self) -> str:
        unit = UNITS.get(self.what, "")
        return (
            f"{self.what}: {self.early:.1f}{unit} early, {self.late:.1f}{unit} late, at most {self.most:.1f}{unit}"
            f" (bound {self.bound:.1f}{unit}){'' if self.flat else ': GREW'}"
        )


def courses(samples: Sequence[Sample]) -> list[Course]:
    """The course of each measure; none of fewer than ten samples, which tell nothing."""
    return [
        _course(what, [float(getattr(sample, what)) for sample in samples]) for what in BOUNDS if len(samples) >= 10
    ]


def _course(what: str, values: Sequence[float]) -> Course:
    fifth = len(values) // 5
    early, bound = median(values[fifth : 2 * fifth]), BOUNDS[what]
    return Course(
        what=what,
        early=early,
        late=median(values[-fifth:]),
        most=max(values),
        bound=early * (1 + bound.percent / 100) + bound.more,
    )


def look(pid: int, at: float, unsettled: float | None, ports: Collection[int]) -> Sample:
    """One sample, from /proc. `ports`: those of clients."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    open_files = [_target(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    connections = len(_sockets_to(pid, ports).intersection(open_files))
    return Sample(
        at=at,
        memory=int(status["VmRSS"].split()[0]) / 1024,
        descriptors=len(open_files) - connections,
        connections=connections,
        threads=int(status["Threads"]),
        unsettled=unsettled,
    )


def _target(descriptor: Path) -> str:
    """The link's target; nothing if it was closed meanwhile."""
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""


def _sockets_to(pid: int, ports: Collection[int]) -> set[str]:
    """The sockets connected to these ports, as /proc/PID/fd names them."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) in ports}


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that a soak found. `said`: warnings in the workers' logs; `cpu`: shares of one core, by process."""

    began: str
    broker: str
    minutes: float
    seed: int
    rate: float
    account: Account
    faults: Mapping[str, int]
    made: Sequence[Mapping[str, Any]]
    samples: Sequence[Sample]
    courses: Sequence[Course]
    said: Mapping[str, int]
    complaints: Sequence[str]
    cpu: Mapping[str, float]

    @property
    def holds(self) -> bool:
        """True if nothing was lost, nothing was wrong and nothing grew."""
        return self.account.holds and not self.complaints and all(course.flat for course in self.courses)

    def to_json(self) -> str:
        """All figures as JSON."""
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        lines = [
            f"account: {self.account}",
            f"faults: {', '.join(f'{count} × {what}' for what, count in self.faults.items()) or 'none'}",
            *map(str, self.courses),
            f"logged: {', '.join(f'{count} × {event}' for event, count in self.said.items()) or 'no warnings'}",
            f"processor: {', '.join(f'{share:.0%} {who}' for who, share in self.cpu.items())}",
            *(f"WRONG: {complaint}" for complaint in self.complaints),
            "nothing lost, nothing wrong, nothing grew" if self.holds else "FAILED",
        ]
        return "\n".join(lines)

"""What a long life costs a worker, and whether that is flat.

Flat is judged by medians, since bursts after an outage make peaks: that of the last fifth of the samples against that
of the second (the first is warming up), within a bound that a leak of any use to know passes in half an hour.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.system.ledger import Account

BOUNDS: Mapping[str, tuple[float, float]] = {
    # The memory of duplicates (50,000 deliveries, about 8 MB) is filled after ten minutes of this load: late in a short
    # run, early in a long one. 100 bytes a delivery, never given back, are 10 MiB in half an hour.
    "memory": (1.1, 8),
    # One left at each lost broker connection would be fifty.
    "descriptors": (1.1, 6),
    # As many are kept alive as were ever wanted at once. One left at each failed attempt would be thousands.
    "connections": (1.5, 100),
    # Those of the default executor begin as they are needed, six at most on two cores.
    "threads": (1, 4),
}
"""How often the beginning the end may be, and how much more."""
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


def course(what: str, values: Sequence[float]) -> Course:
    """Of one measure, of ten samples at least."""
    fifth, (times, more) = len(values) // 5, BOUNDS[what]
    early = median(values[fifth : 2 * fifth])
    return Course(what=what, early=early, late=median(values[-fifth:]), most=max(values), bound=early * times + more)


def look(pid: int, ports: Collection[int]) -> dict[str, float]:
    """Take one sample from /proc: `memory` in MiB; `connections` to clients at these ports are not in `descriptors`."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) in ports}
    opened = [_target(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    connections = len(sockets.intersection(opened))
    return {
        "memory": resident(pid) / 2**20,
        "descriptors": len(opened) - connections,
        "connections": connections,
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
    }


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def _target(descriptor: Path) -> str:
    """The link's target; nothing if it was closed meanwhile."""
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that a soak found."""

    began: str
    broker: str
    minutes: float
    seed: int
    account: Account
    faults: Mapping[str, int]
    courses: Sequence[Course]
    complaints: Sequence[str]

    @property
    def holds(self) -> bool:
        """True if nothing was lost, nothing was wrong and nothing grew."""
        return self.account.holds and not self.complaints and all(each.flat for each in self.courses)

    def __str__(self) -> str:
        return json.dumps(asdict(self), indent=1)

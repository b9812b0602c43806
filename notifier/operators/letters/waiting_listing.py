"""Looking at what waits, for the command line and the API: one by one, or counted. Looking uses nothing up.

`waiting_repair` cancels it, or makes it due.
"""

from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass

from notifier.model.message import Message
from notifier.model.moment import render_moment
from notifier.operators.letters.dead_letter_listing import GROUPS
from notifier.operators.letters.visits import each_found
from notifier.operators.letters.waiting_filter import WaitingFilter, WaitingSummary, waiting_reader
from notifier.queues.passes import Opened, Progress, no_progress
from notifier.queues.queue_port import WaitingPlace


def walk_over(waiting: WaitingPlace, meant: WaitingFilter, *, whole: bool) -> Opened[WaitingSummary]:
    """Begin a walk over what is meant, which gives summaries, and `whole` messages if asked. Raises QueueError."""
    return waiting.visit(waiting_reader(meant, whole=whole), clients=meant.clients, parked=meant.parked)


def waiting_deliveries(
    waiting: WaitingPlace, meant: WaitingFilter, progress: Progress = no_progress, *, whole: bool = False
) -> AsyncGenerator[tuple[WaitingSummary, Message], None]:
    """What is meant, in the order of the queues. The caller closes the iterator (`aclosing`). Raises QueueError."""
    return each_found(walk_over(waiting, meant, whole=whole), progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingGroup:
    """What waits for one client, in one place, for one reason. Moments are in epoch seconds, None if unknown."""

    client_id: str
    iss: str
    where: str
    reason: str
    count: int
    oldest: float | None
    next: float | None

    def document(self) -> dict[str, object]:
        """The JSON that the API gives."""
        return asdict(self) | {"oldest": _moment(self.oldest), "next": _moment(self.next)}


class WaitingCounts:
    """Counts what waits by client, place and reason."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str, str], WaitingGroup] = {}
        self.total = 0

    def add(self, one: WaitingSummary) -> None:
        """Count one more."""
        self.total += 1
        key = (one.client_id, one.iss, one.where, one.reason)
        if key not in self._groups and len(self._groups) >= GROUPS:
            key = ("_other", "", one.where, one.reason)
        before = self._groups.get(key)
        self._groups[key] = WaitingGroup(
            client_id=key[0],
            iss=key[1],
            where=one.where,
            reason=one.reason,
            count=1 if before is None else before.count + 1,
            oldest=one.since if before is None else _earlier(before.oldest, one.since),
            next=one.due if before is None else _earlier(before.next, one.due),
        )

    def groups(self) -> list[WaitingGroup]:
        """The groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.client_id, group.iss, group.reason))


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


def _moment(moment: float | None) -> str | None:
    return None if moment is None else render_moment(moment)

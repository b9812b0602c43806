"""A client's own slots: so many attempts at a time, a short wait in memory for one of them, or a deferral.

Pure: the lengths of attempts come in as arguments. A delivery may wait while the expected wait is below `slot_wait`:
by Little's law the time to get through those who wait is their number times the mean length of an attempt, divided
by the slots. So a flood for a quick client runs at full speed, and a hung one holds next to nothing.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from notifier.domain.message import Lane

Ticket = TypeVar("Ticket")

FIRST_GUESS = 0.1  # seconds: the length of an attempt at a client that was not tried yet
SMOOTHING = 0.2  # the weight of the newest attempt in the mean


@dataclass(frozen=True, slots=True)
class Entered:
    """The delivery has a slot."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The delivery waits in memory; `leave` hands it the slot."""


@dataclass(frozen=True, slots=True)
class Full:
    """Too many wait. `seconds` is when a slot may be expected to be free."""

    seconds: float


@dataclass(slots=True)
class _State(Generic[Ticket]):
    in_flight: int = 0
    mean: float = FIRST_GUESS
    waiting: dict[Lane, deque[Ticket]] = field(default_factory=lambda: {lane: deque() for lane in Lane})

    def count(self) -> int:
        return sum(len(queue) for queue in self.waiting.values())


class Slots(Generic[Ticket]):
    """The slots of all clients. What is not in use is forgotten, so that memory follows the clients in flight."""

    def __init__(self, slot_wait: float) -> None:
        self._slot_wait = slot_wait
        self._states: dict[Hashable, _State[Ticket]] = {}
        self.waiting = 0

    def enter(self, key: Hashable, cap: int, lane: Lane, ticket: Ticket) -> Entered | Waits | Full:
        """Ask for a slot of client `key`, which may have `cap` attempts at a time."""
        state = self._states.setdefault(key, _State())
        if state.in_flight < cap:
            state.in_flight += 1
            return Entered()
        expected = (state.count() + 1) * state.mean / cap
        if expected > self._slot_wait:
            return Full(seconds=expected)
        state.waiting[lane].append(ticket)
        self.waiting += 1
        return Waits()

    def leave(self, key: Hashable, seconds: float) -> Ticket | None:
        """Give the slot back after an attempt of `seconds`; it passes on to the ticket returned, a fresh one first."""
        state = self._states[key]
        state.mean += SMOOTHING * (seconds - state.mean)
        for queue in state.waiting.values():
            if queue:
                self.waiting -= 1
                return queue.popleft()
        state.in_flight -= 1
        if not state.in_flight:
            del self._states[key]
        return None

    def abandon(self) -> list[Ticket]:
        """Forget those who wait, and return them: a drain gives them back to the queue."""
        left = [ticket for state in self._states.values() for queue in state.waiting.values() for ticket in queue]
        for state in self._states.values():
            for queue in state.waiting.values():
                queue.clear()
        self.waiting = 0
        return left

"""Keeps what a worker knows of one client: its cap, pace and circuit, what runs at it and what waits for it. Pure.

A client begins unproven, with a cap of 2 attempts at a time. Each quick answer doubles the cap, up to its limit. A
failure, a brake or a slow answer makes it *suspect*, with a cap of 1. A second of silence counts as a slow answer.
Nothing more is sent to a client that is silent for far longer than its answers take.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar, assert_never

from notifier.domain.client import Client
from notifier.domain.message import Lane
from notifier.domain.outcome import Delivered, Failed, Outcome, Reason, Refused
from notifier.pipeline.circuit import Circuit

Ticket = TypeVar("Ticket")

SLOW = 1.0  # seconds: an answer that takes longer, or does not come, makes a client suspect
FIRST_CAP = 2
FIRST_GUESS = 0.1  # seconds: the length of an attempt at a client that was not tried yet
SMOOTHING = 0.2  # the weight of the newest attempt in the mean
TARDY, TARDY_LEAST = 4.0, 0.1  # times its mean, and seconds, of silence that are out of the ordinary
# Seconds at least between two that ask again while it is down. With 100,000 in line (simulated) 0.01 takes at most 10 %
# of a core in the busiest minute, 4 % in the mean; 0.005 takes 12 %.
SUSPECTS_PACE = 0.01
SHORTEST_WATCH = 1.0  # seconds that a suspect's deliveries are put off, at the least: a delay queue's shortest
LONGEST_WATCH = 60.0
BRISK = 0.05  # seconds: one that fails as quickly as that costs nobody a slot for long


class Group(Enum):
    """Whose attempts share a part of the window."""

    WELL = "well"
    UNPROVEN = "unproven"  # never answered so far
    SUSPECT = "suspect"


class Mark(Enum):
    """What an attempt says of its client."""

    ALIVE = "alive"  # it answered as a client that works
    BRAKED = "braked"  # it asked for less (429, 408, 425)
    DOWN = "down"  # no connection, no answer, 5xx
    NOTHING = "nothing"  # a fault of ours, a refusing proxy among them


def mark_of(outcome: Outcome) -> Mark:
    """Return what an outcome says of the client. Only `DOWN` counts for its circuit."""
    match outcome:
        case Refused(reason=Reason.EGRESS_DENIED) | Failed(reason=Reason.PROXY):
            return Mark.NOTHING
        case Delivered() | Refused():
            return Mark.ALIVE
        case Failed(status=status) if status is not None and status < 500:
            return Mark.BRAKED
        case Failed():
            return Mark.DOWN
        case _:
            assert_never(outcome)


class CircuitChange(Enum):
    """What an attempt did to its client's circuit."""

    OPENED = "opened"
    CLOSED = "closed"


@dataclass(slots=True)
class Standing(Generic[Ticket]):
    """What a worker knows of one client: its cap, its pace, its circuit, and who waits for it.

    `heard`, `reserved`, `paused_until` and `token_at` in seconds of a steady clock.

    `limit` is how many attempts it may have at a time, `step` the seconds that bring a token (0: no rate); both are
    this worker's share of what its registration says.
    """

    client: Client
    limit: int
    step: float
    heard: float
    cap: int = FIRST_CAP
    proven: bool = False
    suspect: bool = False
    mean: float = FIRST_GUESS
    trouble: float = 0.0  # the mean length of the attempts since, that were not quick answers
    answered: float = 0.0  # when an attempt last ended
    running: dict[int, tuple[float, Lane]] = field(default_factory=dict)  # by the ticket's id: when it began
    queues: dict[Lane, deque[Ticket]] = field(default_factory=dict)
    waiting: int = 0
    reserved: float = 0.0
    paused_until: float = 0.0
    token_at: float = 0.0
    circuit: Circuit = field(default_factory=Circuit)

    @property
    def idle(self) -> bool:
        """True if no delivery for it is in memory."""
        return not self.running and not self.waiting

    @property
    def group(self) -> Group:
        """The part of the window that its attempts belong to."""
        if self.suspect:
            return Group.SUSPECT
        return Group.WELL if self.proven else Group.UNPROVEN

    @property
    def pace(self) -> float:
        """The seconds between two attempts that it bears; unknown for a client that never answered."""
        if not self.suspect:
            return max(self.step, self.mean / self.limit)
        return max(self.step, SUSPECTS_PACE, self.mean if self.proven else 0.0)

    @property
    def brisk(self) -> bool:
        """True if it fails so quickly that deliveries may wait for its one slot: its next answer may be a success."""
        return self.suspect and 0.0 < self.trouble <= BRISK

    @property
    def watch(self) -> float:
        """Seconds until more is known of a suspect: as long as its attempts take, doubling while they fail."""
        if not self.suspect:
            return 0.0
        return min(LONGEST_WATCH, max(SHORTEST_WATCH, self.trouble * 2.0 ** min(self.circuit.failures, 6)))

    def silence(self, now: float) -> float:
        """Return for how many seconds an attempt has been running without any answer from the client."""
        for began, _ in self.running.values():
            return now - max(began, self.answered)
        return 0.0

    def hangs(self, now: float) -> bool:
        """True if it has been silent for too long."""
        return self.silence(now) > SLOW

    def tardy(self, now: float) -> bool:
        """True if its silence is unusual, so that nothing more is sent to it for the moment."""
        return self.silence(now) > max(TARDY_LEAST, TARDY * self.mean)

    def learn(self, mark: Mark, seconds: float, now: float) -> CircuitChange | None:
        """Take in what an attempt of that length says. Returns what it did to the circuit."""
        self.answered = now
        match mark:
            case Mark.NOTHING:
                self.circuit.undecided()
                return None
            case Mark.DOWN:
                self._trouble(seconds)
                opened = self.circuit.down(now, self.client.circuit, proven=self.proven)
                return CircuitChange.OPENED if opened else None
            case Mark.ALIVE | Mark.BRAKED:
                self.mean = self.mean + SMOOTHING * (seconds - self.mean) if self.proven else seconds
                self.proven = True
                if mark is Mark.ALIVE and seconds <= SLOW:
                    self.cap = min(self.limit, 2 * self.cap)
                    self.suspect, self.trouble = False, 0.0
                else:
                    self._trouble(seconds)
                return CircuitChange.CLOSED if self.circuit.alive(now, self.client.circuit) else None
            case _:
                assert_never(mark)

    def doubt(self) -> None:
        """Note that it hangs: it has one slot until more is known, which may take until the deadline."""
        self.cap = 1
        self.suspect = True
        self.trouble = max(self.trouble, self.client.timeout)

    def _trouble(self, seconds: float) -> None:
        self.cap = 1
        self.suspect = True
        self.trouble = seconds if not self.trouble else self.trouble + SMOOTHING * (seconds - self.trouble)

    def take_token(self, now: float) -> bool:
        """Take a token of its rate, if there is one now. A second's worth of tokens may be taken at once."""
        if not self.step:
            return True
        if self.token_at - max(1.0, self.step) > now - self.step:
            return False
        self.token_at = max(now, self.token_at) + self.step
        return True

    def push(self, lane: Lane, ticket: Ticket) -> None:
        """Have it wait in memory."""
        self.queues.setdefault(lane, deque()).append(ticket)
        self.waiting += 1

    @property
    def next_lane(self) -> Lane:
        """The lane of the next to begin. Call it only if any wait."""
        return next(lane for lane in Lane if self.queues.get(lane))

    def pop(self, *, newest: bool = False) -> Ticket:
        """Take out the next to begin: the oldest of the highest lane; with `newest`, the newest of the lowest lane."""
        filled = [queue for lane in Lane if (queue := self.queues.get(lane))]
        self.waiting -= 1
        return filled[-1].pop() if newest else filled[0].popleft()

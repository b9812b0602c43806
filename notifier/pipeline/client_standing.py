"""How one client stands: its cap, its pace, its circuit, who runs and who waits. Pure state and its arithmetic.

A client begins unproven, with a cap of 2. Each quick answer doubles the cap up to its limit; a failure, a brake or a
slow answer makes it *suspect*, with a cap of 1. A second of silence is as good as a slow answer; well before, where
it lasts far longer than this client's answers take, nothing more is sent to it.
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
    """What an attempt said of its client."""

    ALIVE = "alive"  # it answered as a client that works
    BRAKED = "braked"  # it asked for less (429, 408, 425)
    DOWN = "down"  # no connection, no answer, 5xx
    NOTHING = "nothing"  # a fault of ours, a refusing proxy among them


def mark_of(outcome: Outcome) -> Mark:
    """What an outcome says of the client. Only what says that it is down counts for its circuit."""
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
    """What a mark did to the circuit."""

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
        """Nothing of it is in memory."""
        return not self.running and not self.waiting

    @property
    def group(self) -> Group:
        """Which part of the window its attempts belong to."""
        if self.suspect:
            return Group.SUSPECT
        return Group.WELL if self.proven else Group.UNPROVEN

    @property
    def pace(self) -> float:
        """Seconds between two attempts that it bears; of a client that never answered that is not known."""
        if not self.suspect:
            return max(self.step, self.mean / self.limit)
        return max(self.step, SUSPECTS_PACE, self.mean if self.proven else 0.0)

    @property
    def brisk(self) -> bool:
        """Whether it fails so quickly that deliveries may wait for its one slot: its next answer may be a good one."""
        return self.suspect and 0.0 < self.trouble <= BRISK

    @property
    def watch(self) -> float:
        """Seconds until more will be known of a suspect: as long as its attempts take, doubling while they fail."""
        if not self.suspect:
            return 0.0
        return min(LONGEST_WATCH, max(SHORTEST_WATCH, self.trouble * 2.0 ** min(self.circuit.failures, 6)))

    def silence(self, now: float) -> float:
        """Seconds without any answer, though an attempt has been running for as long."""
        for began, _ in self.running.values():
            return now - max(began, self.answered)
        return 0.0

    def hangs(self, now: float) -> bool:
        """Whether it has been silent for too long."""
        return self.silence(now) > SLOW

    def tardy(self, now: float) -> bool:
        """Whether its silence is out of the ordinary, so that nothing more should be sent to it for the moment."""
        return self.silence(now) > max(TARDY_LEAST, TARDY * self.mean)

    def learn(self, mark: Mark, seconds: float, now: float) -> CircuitChange | None:
        """What an attempt of that length said."""
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
        """It hangs: one slot until more is known, which may take until the deadline."""
        self.cap = 1
        self.suspect = True
        self.trouble = max(self.trouble, self.client.timeout)

    def _trouble(self, seconds: float) -> None:
        self.cap = 1
        self.suspect = True
        self.trouble = seconds if not self.trouble else self.trouble + SMOOTHING * (seconds - self.trouble)

    def take_token(self, now: float) -> bool:
        """Whether the token bucket has one now. A second's worth may be taken at once."""
        if not self.step:
            return True
        if self.token_at - max(1.0, self.step) > now - self.step:
            return False
        self.token_at = max(now, self.token_at) + self.step
        return True

    def push(self, lane: Lane, ticket: Ticket) -> None:
        """It waits in memory."""
        self.queues.setdefault(lane, deque()).append(ticket)
        self.waiting += 1

    @property
    def next_lane(self) -> Lane:
        """The lane of the next to begin. Only where any wait."""
        return next(lane for lane in Lane if self.queues.get(lane))

    def pop(self, *, newest: bool = False) -> Ticket:
        """The next to begin: the oldest of the highest lane; or the newest of the lowest, to give way."""
        filled = [queue for lane in Lane if (queue := self.queues.get(lane))]
        self.waiting -= 1
        return filled[-1].pop() if newest else filled[0].popleft()

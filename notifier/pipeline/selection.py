"""Which of the held messages begins its next delivery: suspects alone, else by lane, and past those that must wait.

A message redelivered three times or more is a suspect: it may be what kills the process. Suspects are handled with
nothing else in flight, in random order, so that one of them cannot take its neighbours to the delivery limit with it.

A message whose next delivery finds the share of clients not proven yet full steps aside, to the back of its lane. Put
off instead, a person who signs out beside an event of thousands of new clients would come back after all of them.
"""

import random
from collections.abc import Mapping

from notifier.domain.delivery import Delivery
from notifier.domain.message import Lane
from notifier.pipeline.gate import Gate
from notifier.pipeline.held import Held, Shelf
from notifier.pipeline.intake import SUSPECT, Intake
from notifier.pipeline.lanes import EFFORT, Turns
from notifier.pipeline.ports import Clock
from notifier.pipeline.standing import SLOW

LOOKED_AT = 32  # messages of a lane that may step aside at one turn; the next turn goes on behind them


class Selection:
    """See the module. `without_fate` counts the deliveries in memory by lane, `steady` gives seconds."""

    def __init__(
        self,
        shelves: Mapping[Lane, Shelf],
        gate: Gate,
        intake: Intake,
        without_fate: Mapping[Lane, int],
        *,
        max_in_flight: int,
        steady: Clock,
    ) -> None:
        self._shelves = shelves
        self._gate = gate
        self._intake = intake
        self._without_fate = without_fate
        self._turns = Turns(max_in_flight)
        self._steady = steady
        self._suspects: list[Held] = []
        self._alone, self._alone_since = False, 0.0  # whether a suspect is being handled

    def put(self, held: Held) -> None:
        """A message came."""
        self._shelves[held.lane].put(held)
        if held.message.delivery_count >= SUSPECT:
            self._suspects.append(held)
        else:
            self._shelves[held.lane].waiting.append(held)

    def lose(self, lane: Lane) -> None:
        """The lane's messages will come again."""
        self._shelves[lane].lose()
        self._suspects = [held for held in self._suspects if held.lane is not lane]

    def give_back(self) -> None:
        """Let go of what was not begun. An event of which some clients were told is finished: none is told twice."""
        self._suspects.clear()
        for shelf in self._shelves.values():
            for held in list(shelf.unopened()):
                shelf.waiting.remove(held)
                shelf.settled(held)

    @property
    def waiting(self) -> bool:
        """Whether any message has something left to begin."""
        return any(shelf.waiting for shelf in self._shelves.values())

    def next(self, *, busy: bool) -> Held | None:
        """The message whose turn it is, looked into; None where there is no room, or nothing to do.

        `busy` tells whether anything is in flight. To be told of its turn by `turned`.
        """
        if self._alone or self._suspects:
            if busy and not (self._alone and self._steady() - self._alone_since > SLOW):
                return None  # what kills a process does so at once; one that only hangs is waited for a second
            self._alone, self._alone_since = bool(self._suspects), self._steady()
        if self._alone:
            suspect = self._suspects.pop(random.randrange(len(self._suspects)))  # noqa: S311  no secret
            suspect.look(self._intake)
            return suspect
        lanes = [lane for lane, shelf in self._shelves.items() if shelf.waiting]
        while lanes and (lane := self._turns.next(lanes, self._gate.in_flight, self._without_fate)) is not None:
            if (held := self._first(lane)) is not None:
                return held
            lanes.remove(lane)
        return None

    def turned(self, held: Held) -> int:
        """It had its turn. Returns what that counts."""
        if held.message.delivery_count < SUSPECT:
            self._shelves[held.lane].turn(held)
        elif held.ahead is not None:
            self._suspects.append(held)
        return EFFORT[held.lane]

    def cramped(self) -> Held | None:
        """The message that would have its turn if there were more memory; None where it is not memory that lacks."""
        for lane, shelf in self._shelves.items():
            if shelf.waiting:
                cramped = self._turns.cramped(lane, self._gate.in_flight, self._without_fate)
                return shelf.waiting[0] if cramped else None
        return None

    def _first(self, lane: Lane) -> Held | None:
        """The first message of the lane that need not step aside."""
        waiting = self._shelves[lane].waiting
        for _ in range(min(LOOKED_AT, len(waiting))):
            held = waiting[0]
            held.look(self._intake)
            if not isinstance(held.ahead, Delivery) or not self._gate.crowded(held.ahead, lane):
                return held
            waiting.rotate(-1)
        return None

"""Which of the held messages begins its next delivery: by lane, past those that must wait, suspects a few at a time.

A message given back three times or more is a suspect: it may be what kills the process, and every message in hand is
given back once more at each death. So suspects wait for a moment, until those that come together are all there, and
then go their way in small groups drawn by chance, the next when the one before has found its fate. At each death about
half of a killer's neighbours have gone before it: of a thousand, one lives through twenty deaths, and the limit is a
hundred. In one order, or all at once, they would all be there to the end. A group is waited for as long as a client may
take, since one that hangs would else never be done before the killer's turn comes. Whatever is no suspect goes on
beside them, as if they were not there: at the worst it becomes one.

What the process has lived through does not count. Each loss of a lane's channel gives back all that came by it; were
that held against the messages, a broker that flaps would make all of them suspects, and a few at a time they would
not be done before the next loss, and the next, up to the limit. A process that has died knows of nothing it survived.

A large message waits in a line of its own, and few of them are at hand: what was read of one takes up to thirty times
its bytes in memory, and reading it holds the loop for milliseconds. One is opened at every third turn of the loop, so
that whoever asks something is answered in between, and only while few others are not durable yet. Whatever is small
goes past them.

A message whose next delivery finds the share of clients not proven yet full steps aside, to the back of its lane. Put
off instead, a person who signs out beside an event of thousands of new clients would come back after all of them.
"""

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from notifier.domain.delivery import Delivery
from notifier.domain.message import Lane
from notifier.pipeline.gate import Gate
from notifier.pipeline.held import Held, Shelf
from notifier.pipeline.intake import Intake
from notifier.pipeline.lanes import A_TURN, EFFORT, Turns
from notifier.pipeline.ports import Clock

GATHER = 0.5  # seconds that suspects wait for one another: the broker sends what it gave back within a tenth of that
PAUSE = 0.1  # seconds between two turns: an ack that is still with us when the process dies was never given
SHARE_OF_SUSPECTS = 8  # an eighth of those that wait is tried together: a thousand take fifty turns, not a thousand
LONGEST_TURN = 30.0  # seconds: who takes longer waits for the broker, not for a client
AT_HAND = 4  # large messages: enough that the broker's confirms are not waited for one by one
OPENED_EVERY = 3  # turns of the loop: an answer to a request takes as many
LOOKED_AT = 32  # messages of a lane that may step aside at one turn; the next turn goes on behind them


class Selection:
    """Chooses the held message whose next delivery begins.

    `without_fate` counts the deliveries in memory by lane, `steady` gives seconds.
    """

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
        self._survived = dict.fromkeys(Lane, 0)  # losses of the lane's channel in this process
        self._suspects: list[Held] = []
        self._tried: list[Held] = []  # suspects on their way
        self._large: deque[Held] = deque()
        self._at_hand: list[Held] = []  # large ones, of which one at most is not read yet
        self._turns_since = OPENED_EVERY  # since the last was opened
        self._next_turn = self._too_long = 0.0  # not before; not after, even if some of `_tried` have no fate yet

    def put(self, held: Held) -> None:
        """A message came."""
        self._shelves[held.lane].put(held)
        if held.message.delivery_count and self._survived[held.lane]:
            held.message = replace(held.message, survived=self._survived[held.lane])
        if held.message.suspect:
            if not self._suspects and not self._tried:
                self._next_turn = self._steady() + GATHER
            self._suspects.append(held)
        else:
            self._line_up(held)

    def _line_up(self, held: Held) -> None:
        (self._large if held.large else self._shelves[held.lane].waiting).append(held)

    def admit(self) -> bool:
        """A turn of the loop begins: another large message may be opened. Whether more may be at the next turns."""
        if not self._large:
            return False
        self._at_hand = [held for held in self._at_hand if held.at_hand]
        if len(self._at_hand) == AT_HAND or any(held.work is None for held in self._at_hand):
            return False
        self._turns_since += 1
        if self._turns_since >= OPENED_EVERY:
            self._turns_since = 0
            held = self._large.popleft()
            self._at_hand.append(held)
            self._shelves[held.lane].waiting.append(held)
        return bool(self._large)

    def lose(self, lane: Lane) -> None:
        """The lane's messages will come again."""
        self._survived[lane] += 1
        self._shelves[lane].lose()
        self._suspects = [held for held in self._suspects if held.lane is not lane]
        self._tried = [held for held in self._tried if held.lane is not lane]
        self._large = deque(held for held in self._large if held.lane is not lane)
        self._at_hand = [held for held in self._at_hand if held.lane is not lane]

    def give_back(self) -> None:
        """Let go of what was not begun. An event of which some clients were told is finished: none is told twice."""
        self._suspects.clear()
        self._large.clear()
        for shelf in self._shelves.values():
            for held in list(shelf.unopened()):
                shelf.waiting.remove(held)
                shelf.settled(held)

    @property
    def waiting(self) -> bool:
        """Whether any message has something left to begin."""
        return any(shelf.waiting for shelf in self._shelves.values())

    def next(self) -> Held | None:
        """The message whose turn it is, looked into; None where there is no room, or nothing to do.

        To be told of its turn by `turned`.
        """
        if self._suspects:
            self._try_some()
        lanes = [lane for lane, shelf in self._shelves.items() if shelf.waiting]
        while lanes and (lane := self._turns.next(lanes, self._gate.in_flight, self._without_fate)) is not None:
            if (held := self._first(lane)) is not None:
                return held
            lanes.remove(lane)
        return None

    def turned(self, held: Held) -> int:
        """It had its turn. Returns what that counts."""
        self._shelves[held.lane].turn(held)
        return A_TURN if held.large and held.given <= 1 else EFFORT[held.lane]

    def cramped(self) -> Held | None:
        """The message that would have its turn if there were more memory; None where it is not memory that lacks."""
        for lane, shelf in self._shelves.items():
            if shelf.waiting:
                cramped = self._turns.cramped(lane, self._gate.in_flight, self._without_fate)
                return shelf.waiting[0] if cramped else None
        return None

    def _try_some(self) -> None:
        """Let a group of the suspects go, where it is their turn."""
        now = self._steady()
        while self._tried and self._tried[-1].closed:
            self._tried.pop()
            self._next_turn = now + PAUSE
        if now < self._next_turn or (self._tried and now < self._too_long):
            return
        random.shuffle(self._suspects)
        group = max(1, len(self._suspects) // SHARE_OF_SUSPECTS)
        self._tried, self._suspects = self._suspects[:group], self._suspects[group:]
        for held in self._tried:
            self._line_up(held)
        self._too_long = now + LONGEST_TURN

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

"""The messages a worker holds: taken, and not yet acked. Keeps count, so that each is acked at the right moment.

A message is acked when it has given up its last delivery and every one of them has found its durable fate.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from notifier.domain.message import Lane, Message
from notifier.pipeline.facts import EventTaken
from notifier.pipeline.intake import Expand, Intake, Move, Step

# Deliveries that a message gives before the next one's turn: whoever signs out after an event of 5,000 clients, which
# comes as 50 messages of 100, waits for 500 of them at most. More would be unfair to a person; fewer would begin more
# messages at a time than a drain can finish.
TURN = 10
LARGE = 16 * 1024  # bytes, of which the worst take 2 ms to read; events of a hundred clients have 3,000


@dataclass(slots=True, eq=False)
class Held:
    """One message. `open` counts its deliveries without a fate, `joined` those that another copy had made or makes."""

    message: Message
    arrived: float
    work: Expand | Move | None = None
    ahead: Step | Move | None = None
    open: int = 0
    given: int = 0
    total: int = 0
    joined: int = 0
    closed: bool = False

    @property
    def lane(self) -> Lane:
        """Where it was taken from."""
        return self.message.lane

    @property
    def started(self) -> bool:
        """Whether any of its deliveries was begun."""
        return self.total > 0

    @property
    def large(self) -> bool:
        """Whether reading and planning it takes long enough to be done alone."""
        return len(self.message.body) > LARGE

    @property
    def at_hand(self) -> bool:
        """Whether it is not read yet, or what it becomes is still being made."""
        return self.work is None or (isinstance(self.work, Move) and not self.closed)

    @property
    def of_event(self) -> bool:
        """Whether it is an event, and not a delivery that has become a message of its own."""
        return isinstance(self.work, Expand) and self.work.event is not None

    def look(self, intake: Intake) -> None:
        """Open it, if that was not done, so that `ahead` holds what comes first (None: nothing at all)."""
        if self.work is None:
            self.work = intake.open(self.message)
            self.ahead = self.work if isinstance(self.work, Move) else intake.step(self.message, self.work.steps)

    def give(self, intake: Intake) -> Step | Move:
        """The next thing to do; `ahead` is None afterwards if it was the last."""
        step = self.ahead
        assert step is not None
        self.given += 1
        self.ahead = intake.step(self.message, self.work.steps) if isinstance(self.work, Expand) else None
        return step

    @property
    def done(self) -> bool:
        """Everything it asked for has a durable fate."""
        return self.work is not None and self.ahead is None and self.open == 0

    def told(self) -> EventTaken | None:
        """What observers hear of it at the end: only events are told, not single deliveries."""
        if not isinstance(self.work, Expand):
            return None if self.work is None else self.work.fact
        event = self.work.event
        if event is None:
            return None
        again = self.total > 0 and self.joined == self.total
        result: Literal["duplicate", "accepted"] = "duplicate" if again else "accepted"
        return EventTaken(
            result=result,
            event_id=event.id,
            iss=event.iss,
            publisher=event.publisher,
            deliveries=self.total,
            dated=event.ended_at is not None,
            reply_to=event.reply_to,
            trace=event.trace,
            arrived=self.arrived,
        )


class Shelf:
    """All held messages of one lane: those whose turn has not come, in order, and the age of the oldest unsettled."""

    def __init__(self) -> None:
        self.waiting: deque[Held] = deque()
        self._unsettled: dict[Held, float] = {}  # in order of arrival
        self._last_stamp: float | None = None

    def put(self, held: Held) -> None:
        """A message came."""
        stamp = held.message.timestamp
        self._last_stamp = held.arrived if stamp is None else stamp
        self._unsettled[held] = self._last_stamp

    def turn(self, held: Held) -> None:
        """The first in line had its turn: it goes if it has no more to give, and to the back after ten in a row."""
        if held.ahead is None:
            self.waiting.popleft()
        elif held.given % TURN == 0:
            self.waiting.rotate(-1)

    def settled(self, held: Held) -> None:
        """A message was acked."""
        self._unsettled.pop(held, None)

    def lose(self) -> None:
        """All of them will come again."""
        self.waiting.clear()
        self._unsettled.clear()

    def __len__(self) -> int:
        return len(self._unsettled)

    @property
    def oldest(self) -> float | None:
        """When the oldest held message was published (taken, where that is unknown); epoch seconds."""
        return next(iter(self._unsettled.values()), None)

    @property
    def last_taken(self) -> float | None:
        """The same of the message taken last."""
        return self._last_stamp

    def unopened(self) -> Iterator[Held]:
        """The waiting messages of which nothing was begun."""
        return (held for held in self.waiting if not held.started)

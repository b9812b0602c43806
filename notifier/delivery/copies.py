"""Recognises a copy of a delivery: a publisher sends again after a lost confirm, or a message is redelivered.

- The delivery is in flight: the copy waits until it ends.
- The delivery was made: the copy is done.
- This worker put the delivery off, and the retry is durable and cannot have come back to another worker yet: the retry
  stands for a copy that waited, and for a minute at most for a copy in an event. The retry itself has another stage,
  and is attempted.
- In all other cases the copy is attempted. So one worker tells nobody twice, and whoever sends an event again after its
  dead letter gets another attempt.

A worker remembers a bounded number of deliveries, in memory only. Only ids that a publisher gave mark a copy. A made-up
id is new at every reading, since a user may sign out twice with one body. Ids are kept in two generations, and the
older one is forgotten as a whole: to forget ids one by one takes twice the memory.
"""

import math
from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

from notifier.model.backoff import deferral_wait

Holder = TypeVar("Holder")

REMEMBERED = 25_000  # deliveries at least, and twice as many at most: 6 MB
LONGEST_STANDING = 60.0  # seconds for which a retry stands for its delivery at most


def stands_for(wait: float, *, alone: bool = False) -> float:
    """Return for how many seconds a retry that is due after `wait` stands for its delivery: its first delay at most.

    `alone`: no other worker can get it, so it stands until it is back.
    """
    return LONGEST_STANDING if alone else min(LONGEST_STANDING, deferral_wait(wait))


class Copies(Generic[Holder]):
    """Remembers the deliveries in flight, the holders of copies that wait for their end, and what became of others.

    Moments are seconds of a steady clock.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._newest: dict[str, float] = {}  # until when its retry stands for it; for ever if it was delivered
        self._older: dict[str, float] = {}
        self._in_flight: dict[str, tuple[Hashable, list[tuple[Hashable, Holder]]]] = {}

    def begin(
        self, delivery_id: str, stage: Hashable, holder: Holder, now: float, *, of_event: bool
    ) -> Literal["first", "waits", "done"]:
        """Begin this delivery for a holder. If the holder waits, `end` returns it. `of_event`: it is no retry."""
        until = self._newest.get(delivery_id) or self._older.get(delivery_id, -math.inf)
        if until == math.inf:
            return "done"
        if (flight := self._in_flight.get(delivery_id)) is not None:
            flight[1].append((stage, holder))
            return "waits"
        if of_event and now < until:
            return "done"
        self._in_flight[delivery_id] = (stage, [])
        return "first"

    def end(self, delivery_id: str, *, stands_until: float | None) -> list[tuple[Holder, bool]]:
        """Note that the delivery has a durable fate. Returns the holders of its copies, and whether each is done.

        `stands_until`: for ever if it was delivered, None if it was given up. What is not done begins once more.
        """
        stage, waiting = self._in_flight.pop(delivery_id)
        if stands_until is None:
            self._newest.pop(delivery_id, None)
            self._older.pop(delivery_id, None)
        else:
            self._newest[delivery_id] = stands_until
            if len(self._newest) >= self._remembered:
                self._newest, self._older = {}, self._newest
        delivered = stands_until == math.inf
        standing = stands_until is not None
        return [(holder, delivered or (standing and copy_stage == stage)) for copy_stage, holder in waiting]

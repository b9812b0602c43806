"""Recognises the same delivery coming twice: a publisher that resends after a lost confirm, a message redelivered.

Within one process only, and bounded: across processes a client is told again, which does no harm. Only ids that a
publisher gave mark a duplicate; a made-up id is new at every reading, since a user may sign out twice with one body.

A delivery's retry bears its id too, and may come back before its scheduling is confirmed here (a loop held for a
second is enough). It must not join what scheduled it, or it would be acked as settled and be lost: hence the stage.

Once a retry is durable it stands for the delivery, and a copy of the event has nothing left to do: attempted as well,
it could be accepted while the retry is at it, and the client would be told twice. Only what an event asks for is held
against this memory: the retry itself must go on, and so must a dead letter that is replayed as a delivery of its own.
What became a dead letter is forgotten: whoever sends its event again wants it tried again.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from notifier.domain.verdict import Defer, Done, RetryAt, Verdict

Holder = TypeVar("Holder")

REMEMBERED = 25_000  # deliveries at the least, and twice as many at most: 6 MB


class Fate(Enum):
    """What became of a delivery, as far as it matters to its copies."""

    DELIVERED = "delivered"
    POSTPONED = "postponed"
    GIVEN_UP = "given up"


def fate_of(verdict: Verdict) -> Fate:
    """What a verdict means once it is durable."""
    match verdict:
        case Done():
            return Fate.DELIVERED
        case RetryAt() | Defer():
            return Fate.POSTPONED
        case _:
            return Fate.GIVEN_UP


@dataclass(frozen=True, slots=True)
class First:
    """Nobody is at it: go on."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Another copy is in flight: this one shares its fate."""


@dataclass(frozen=True, slots=True)
class Known:
    """It was delivered a while ago, or a retry stands for it."""


class Duplicates(Generic[Holder]):
    """Which deliveries are in flight, with the holders that wait for their fate, and which had theirs lately.

    What they had is kept in two generations, the older of which is forgotten as a whole: one that forgets them singly
    takes twice as much memory.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._fates: dict[str, Fate] = {}
        self._older: dict[str, Fate] = {}
        self._in_flight: dict[tuple[str, Hashable], list[Holder]] = {}

    def begin(
        self, delivery_id: str, stage: Hashable, holder: Holder, *, of_event: bool = False
    ) -> First | Joined | Known:
        """A holder wants this delivery made. `stage` tells how far it has come: only equals are copies.

        `of_event`: an event asks for it, not a message of its own.
        """
        fate = self._fates.get(delivery_id) or self._older.get(delivery_id)
        if fate is Fate.DELIVERED or (of_event and fate is Fate.POSTPONED):
            return Known()
        others = self._in_flight.setdefault((delivery_id, stage), [])
        others.append(holder)
        return First() if len(others) == 1 else Joined()

    def end(self, delivery_id: str, stage: Hashable, fate: Fate) -> list[Holder]:
        """The delivery has a durable fate. Returns every holder that waited for it, the first one included."""
        known = self._fates.get(delivery_id) or self._older.get(delivery_id)
        if known is Fate.DELIVERED:  # a retry may end before what scheduled it does
            fate = known
        if fate is not Fate.GIVEN_UP:
            self._fates[delivery_id] = fate
            if len(self._fates) >= self._remembered:
                self._fates, self._older = {}, self._fates
        elif known is not None:
            self._fates.pop(delivery_id, None)
            self._older.pop(delivery_id, None)
        return self._in_flight.pop((delivery_id, stage), [])

"""Recognises the same delivery coming twice: a publisher that resends after a lost confirm, a message redelivered.

Within one process only, and bounded: across processes a client is told again, which does no harm. Only ids that a
publisher gave mark a duplicate; a made-up id is new at every reading, since a user may sign out twice with one body.

A delivery's retry bears its id too, and may come back before its scheduling is confirmed here (a loop held for a
second is enough). It must not join what scheduled it, or it would be acked as settled and be lost: hence the stage.

Once a retry is durable it stands for the delivery, and a copy of the event has nothing left to do: attempted as well,
it could be accepted while the retry is at it, and the client would be told twice. While the retry is being made here
the copy shares its fate. Only what an event asks for is held against this memory: the retry itself must go on, and so
must a dead letter that is replayed as a delivery of its own.

What became a dead letter is forgotten: whoever sends its event again wants it tried again. But another worker may have
taken the retry and given it up, unheard of here. So a retry stands for its delivery only until it can have come out of
its first delay queue, and for a minute at the most. A copy that comes right then waits for a moment: mostly the retry
comes here. Nor does a copy share the fate of one in flight whose dead letter, or whose retry's dead letter, may have
been seen before the copy was sent: it is attempted. Telling a client twice does no harm; not telling it does.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar, assert_never

from notifier.domain.backoff import deferral_wait
from notifier.domain.verdict import Dead, Defer, RetryAt

Holder = TypeVar("Holder")

REMEMBERED = 25_000  # deliveries at the least, and twice as many at most: 6 MB, of retries alone 7
LONGEST_STANDING = 60.0  # seconds that a retry stands for its delivery at the most
ARRIVAL = 2.0  # seconds that it may take from its delay queue to us; a copy waits for no longer than that


def stands_for(verdict: RetryAt | Defer | Dead, now: float) -> float:
    """Seconds for which nobody elsewhere can give the delivery up, from when the verdict is made durable.

    `now` in the verdict's time. A worker whose clock is ahead may take a retry after half of its wait.
    """
    match verdict:
        case RetryAt():
            return min(LONGEST_STANDING, deferral_wait(verdict.due - now))
        case Defer():
            return min(LONGEST_STANDING, deferral_wait(verdict.due - now, verdict.rounding))
        case Dead():
            return -math.inf
        case _:
            assert_never(verdict)


@dataclass(frozen=True, slots=True)
class First:
    """Nobody is at it: go on."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Another copy is in flight: this one shares its fate."""


@dataclass(frozen=True, slots=True)
class Known:
    """It was delivered a while ago, or a retry stands for it."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Another copy is in flight, whose fate may have been known when this one was sent: attempt it for itself."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Its retry is on its way to some worker, mostly to this one: begin it again at `until`."""

    until: float


class Duplicates(Generic[Holder]):
    """Which deliveries are in flight, with the holders that wait for their fate, and which had theirs lately.

    For each of the latter it knows until when that holds, in seconds of a steady clock: for ever, if it was delivered.
    They are kept in two generations, the older of which is forgotten as a whole: one that forgets them singly takes
    twice as much memory.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._until: dict[str, float] = {}
        self._older: dict[str, float] = {}
        self._in_flight: dict[tuple[str, Hashable], list[Holder]] = {}
        self._retries: dict[str, Hashable] = {}  # by id: the stage of what is in flight here and is not of an event

    def begin(
        self,
        delivery_id: str,
        stage: Hashable,
        holder: Holder,
        now: float,
        *,
        of_event: bool = False,
        redelivered: bool = False,
    ) -> First | Joined | Known | Apart | Expected:
        """A holder wants this delivery made. `stage` tells how far it has come: only equals are copies.

        `of_event`: an event asks for it, not a message of its own. `redelivered`: its message was given out before, so
        that it may be the very one that is in flight.
        """
        until = self._stands_until(delivery_id)
        if until == math.inf:
            return Known()
        if of_event:
            stage = self._retries.get(delivery_id, stage)
        lapsed = until is not None and until <= now
        if (others := self._in_flight.get((delivery_id, stage))) is not None:
            if lapsed and not redelivered:
                return Apart()
            others.append(holder)
            return Joined()
        if of_event and until is not None and now < until + ARRIVAL:
            return Expected(until + ARRIVAL) if lapsed else Known()
        if not of_event:
            self._retries[delivery_id] = stage
        if until is not None:  # it is in hand here again, and copies may share its fate
            self._until.pop(delivery_id, None)
            self._older.pop(delivery_id, None)
        self._in_flight[delivery_id, stage] = [holder]
        return First()

    def leaves(self, delivery_id: str, until: float) -> None:
        """What becomes of it is being made durable. Before `until` nobody elsewhere can give it up."""
        if self._stands_until(delivery_id) != math.inf:  # else a copy was delivered
            self._remember(delivery_id, until)

    def end(self, delivery_id: str, stage: Hashable, *, delivered: bool) -> list[Holder]:
        """The delivery has a durable fate. Returns every holder that waited for it, the first one included."""
        if delivered:
            self._remember(delivery_id, math.inf)
        if self._retries.get(delivery_id) == stage:
            del self._retries[delivery_id]
        return self._in_flight.pop((delivery_id, stage), [])

    def _stands_until(self, delivery_id: str) -> float | None:
        found = self._until.get(delivery_id)
        return self._older.get(delivery_id) if found is None else found

    def _remember(self, delivery_id: str, until: float) -> None:
        self._until[delivery_id] = until
        if len(self._until) >= self._remembered:
            self._until, self._older = {}, self._until

"""Recognises a delivery that comes twice: a publisher sends again after a lost confirm, or a message is redelivered.

It remembers within one process only, and a bounded number. Another process tells the client again, which does no harm.
Only ids that a publisher gave mark a duplicate. A made-up id is new at every reading, since a user may sign out twice
with one body.

A delivery's retry has its id too, and may come back before its scheduling is confirmed here (a loop held for a second
is enough). It must not join what scheduled it, or it would be acked as settled and be lost. Hence the stage: of two
stages of one delivery, the second waits until the first has its fate.

Once a retry is durable, it stands for the delivery, and a copy of the event has nothing left to do. If the copy were
attempted as well, the client might be told twice. While the retry is being made here, the copy shares its fate. Only
what an event asks for is compared with this memory: the retry itself must go on, and so must a dead letter that is
replayed as a delivery of its own.

A dead letter is forgotten: whoever sends its event again wants another try. But another worker may have taken the
retry and given it up, unknown here. So a retry stands for its delivery only until it can have left its first delay
queue, and for a minute at most. A copy that comes right then waits for a moment, since the retry mostly comes here.
A copy does not share the fate of one in flight if a dead letter may have been seen before the copy was sent. While that
one is being buried, the copy is attempted at once: telling a client twice does no harm, not telling it does. If it is
being parked, or its retry is due before the confirm is here, another worker may have given it up. Mostly none has, so
the copy waits for the confirm, and then for the retry as above.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar, assert_never

from notifier.domain.backoff import deferral_wait
from notifier.domain.verdict import Dead, Defer, Place, RetryAt

Holder = TypeVar("Holder")

REMEMBERED = 25_000  # deliveries at least, and twice as many at most: 6 MB, or 7 MB of retries only
LONGEST_STANDING = 60.0  # seconds that a retry stands for its delivery at most
ARRIVAL = 2.0  # seconds that a retry may take from its delay queue to us; a copy waits no longer


def stands_for(verdict: RetryAt | Defer | Dead, now: float) -> float:
    """Return for how many seconds no other worker can give the delivery up, once the verdict is durable.

    `now` is by the clock of the verdict. A worker whose clock is ahead may take a retry after half of its wait.
    """
    match verdict:
        case RetryAt(place=Place.PARKED) | Defer(place=Place.PARKED):
            return 0.0  # another worker may fetch it at once
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
    """No copy is known: go on."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Another copy is in flight: this one shares its fate."""


@dataclass(frozen=True, slots=True)
class Known:
    """It was delivered a while ago, or a retry stands for it."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Another copy is being buried, and its dead letter may have been seen when this one was sent: attempt it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Another message of the delivery is on its way here, or is in flight here: begin it again at `until`."""

    until: float


class Duplicates(Generic[Holder]):
    """Remembers the deliveries in flight, with the holders that wait for their fate, and those with a recent fate.

    A recent fate holds until a moment of a steady clock; for ever if the client was told. Fates are kept in two
    generations, and the older one is forgotten as a whole: to forget them one by one takes twice the memory.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._until: dict[str, float] = {}
        self._older: dict[str, float] = {}
        self._in_flight: dict[str, tuple[Hashable, list[Holder]]] = {}  # by id: its stage, and who waits for its fate

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
        """A holder wants this delivery made. `stage` says how far it has come: only equal stages are copies.

        `of_event`: an event asks for it, not a message of its own. `redelivered`: its message was given out before, so
        it may be the very one that is in flight.
        """
        until = self._stands_until(delivery_id)
        if until == math.inf:
            return Known()
        lapsed = until is not None and until <= now
        if (found := self._in_flight.get(delivery_id)) is not None:
            its_stage, others = found
            if not of_event and stage != its_stage:
                return Expected(now)
            if lapsed and not redelivered:
                return Apart() if until == -math.inf else Expected(now)
            others.append(holder)
            return Joined()
        if of_event and until is not None and now < until + ARRIVAL:
            return Expected(until + ARRIVAL) if lapsed else Known()
        if until is not None:  # it is here again, and copies may share its fate
            self._until.pop(delivery_id, None)
            self._older.pop(delivery_id, None)
        self._in_flight[delivery_id] = (stage, [holder])
        return First()

    def leaves(self, delivery_id: str, until: float) -> None:
        """Note that its verdict is being made durable. Before `until` no other worker can give it up."""
        if self._stands_until(delivery_id) != math.inf:  # otherwise a copy was delivered
            self._remember(delivery_id, until)

    def end(self, delivery_id: str, *, delivered: bool) -> list[Holder]:
        """Note that the delivery has a durable fate. Returns every holder that waited for it, the first included."""
        if delivered:
            self._remember(delivery_id, math.inf)
        _, holders = self._in_flight.pop(delivery_id)
        return holders

    def _stands_until(self, delivery_id: str) -> float | None:
        found = self._until.get(delivery_id)
        return self._older.get(delivery_id) if found is None else found

    def _remember(self, delivery_id: str, until: float) -> None:
        self._until[delivery_id] = until
        if len(self._until) >= self._remembered:
            self._until, self._older = {}, self._until

"""Recognises the same delivery coming twice: a publisher that resends after a lost confirm, a message redelivered.

Within one process only, and bounded: across processes a client is told again, which does no harm. Only ids that a
publisher gave mark a duplicate; a made-up id is new at every reading, since a user may sign out twice with one body.

A delivery's retry bears its id too, and may come back before its scheduling is confirmed here (a loop held for a
second is enough). It must not join what scheduled it, or it would be acked as settled and be lost: hence the stage.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Holder = TypeVar("Holder")

REMEMBERED = 50_000  # deliveries; about 8 MB


@dataclass(frozen=True, slots=True)
class First:
    """Nobody is at it: go on."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Another copy is in flight: this one shares its fate."""


@dataclass(frozen=True, slots=True)
class Known:
    """It was delivered a while ago."""


class Duplicates(Generic[Holder]):
    """Which deliveries are in flight, with the holders that wait for their fate, and which were delivered lately."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._delivered: OrderedDict[str, None] = OrderedDict()
        self._in_flight: dict[tuple[str, Hashable], list[Holder]] = {}

    def begin(self, delivery_id: str, stage: Hashable, holder: Holder) -> First | Joined | Known:
        """A holder wants this delivery made. `stage` tells how far it has come: only equals are copies."""
        if delivery_id in self._delivered:
            return Known()
        others = self._in_flight.setdefault((delivery_id, stage), [])
        others.append(holder)
        return First() if len(others) == 1 else Joined()

    def end(self, delivery_id: str, stage: Hashable, *, delivered: bool) -> list[Holder]:
        """The delivery has a durable fate. Returns every holder that waited for it, the first one included."""
        if delivered:
            self._delivered[delivery_id] = None
            if len(self._delivered) > self._remembered:
                self._delivered.popitem(last=False)
        return self._in_flight.pop((delivery_id, stage), [])

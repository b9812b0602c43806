"""Recognises a copy of a delivery: a publisher sends again after a lost confirm, or a message is redelivered.

In flight: the copy waits for its end. Delivered: it is done. Else it is attempted, whatever has become of the other.
So no copy is ever acked for the sake of a message that may be gone, and nobody is told twice by one worker. The price:
a copy of what was put off, or given up, may cost an attempt.

It remembers within one process only, and a bounded number. Only ids that a publisher gave mark a copy. A made-up id is
new at every reading, since a user may sign out twice with one body. Delivered ids are kept in two generations, and the
older one is forgotten as a whole: to forget them one by one takes twice the memory.
"""

from typing import Generic, Literal, TypeVar

Holder = TypeVar("Holder")

REMEMBERED = 25_000  # deliveries at least, and twice as many at most: 6 MB


class Copies(Generic[Holder]):
    """Remembers the deliveries in flight, with the holders of copies that wait for their end, and what was delivered."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._delivered: set[str] = set()
        self._older: set[str] = set()
        self._in_flight: dict[str, list[Holder]] = {}

    def begin(self, delivery_id: str, holder: Holder) -> Literal["first", "waits", "delivered"]:
        """A holder wants this delivery made. `end` returns one that waits."""
        if delivery_id in self._delivered or delivery_id in self._older:
            return "delivered"
        if (waiting := self._in_flight.get(delivery_id)) is not None:
            waiting.append(holder)
            return "waits"
        self._in_flight[delivery_id] = []
        return "first"

    def end(self, delivery_id: str, *, delivered: bool) -> list[Holder]:
        """Note that the delivery has a durable fate. Returns the holders of its copies, each to `begin` once more."""
        if delivered:
            self._delivered.add(delivery_id)
            if len(self._delivered) >= self._remembered:
                self._delivered, self._older = set(), self._delivered
        return self._in_flight.pop(delivery_id)

"""The books of a worker: which deliveries of which messages have no fate yet, and the ack when the last has found it.

Everything that a message asks for is opened here before it is begun and closed here when it is durable. A copy of a
delivery that is in flight, or has its fate already, is entered as well, and shares the first one's.
"""

from collections.abc import Mapping

from notifier.domain.delivery import Delivery
from notifier.domain.message import Lane
from notifier.pipeline.duplicates import Duplicates, Fate, First, Joined, Known
from notifier.pipeline.facts import Observer
from notifier.pipeline.held import Held, Shelf
from notifier.pipeline.ports import Acknowledger


class Ledger:
    """See the module. `without_fate` counts what exists in memory, by lane."""

    def __init__(self, acknowledger: Acknowledger, shelves: Mapping[Lane, Shelf], observe: Observer) -> None:
        self._acknowledger = acknowledger
        self._shelves = shelves
        self._observe = observe
        self._duplicates: Duplicates[Held] = Duplicates()
        self.without_fate = dict.fromkeys(Lane, 0)

    def open(self, held: Held) -> None:
        """Something of this message is begun."""
        held.open += 1
        held.total += 1
        self.without_fate[held.lane] += 1

    def open_delivery(self, held: Held, delivery: Delivery) -> bool:
        """A delivery of this message comes to its turn; whether it is to be made, and is no copy."""
        self.open(held)
        if not delivery.id_given:
            return True
        match self._duplicates.begin(delivery.id, delivery.stage, held, of_event=held.of_event):
            case First():
                return True
            case Joined():
                held.joined += 1
            case Known():
                held.joined += 1
                self.settle(held)
        return False

    def settle(self, held: Held) -> None:
        """Something of this message has its durable fate."""
        held.open -= 1
        self.without_fate[held.lane] -= 1
        self.close(held)

    def settle_delivery(self, held: Held, begun: Delivery, fate: Fate) -> None:
        """The delivery, as it was begun, has its durable fate, and so have its copies."""
        if not begun.id_given:
            self.settle(held)
            return
        for holder in self._duplicates.end(begun.id, begun.stage, fate):
            self.settle(holder)

    def close(self, held: Held) -> None:
        """Ack the message if all that it asked for has its fate."""
        if held.done and not held.closed:
            held.closed = True
            self._acknowledger.ack(held.message)
            self._shelves[held.lane].settled(held)
            if (fact := held.told()) is not None:
                self._observe(fact)

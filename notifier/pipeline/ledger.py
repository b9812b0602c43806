"""The books of a worker: which deliveries of which messages have no fate yet, and the ack when the last has found it.

Everything that a message asks for is opened here before it is begun and closed here when it is durable. A copy of a
delivery that is in flight, or has its fate already, is entered as well, and shares the first one's.
"""

from collections.abc import Iterator, Mapping

from notifier.domain.delivery import Delivery
from notifier.domain.frozen import replace
from notifier.domain.message import Lane
from notifier.domain.verdict import Dead, Defer, Done, RetryAt, Verdict
from notifier.pipeline.duplicates import Apart, Duplicates, Expected, First, Joined, Known, stands_for
from notifier.pipeline.facts import Observer
from notifier.pipeline.held import Held, Shelf
from notifier.pipeline.ports import Acknowledger, Clock


class Ledger:
    """Notes what has no fate yet, and acks a message when all that it asked for has one.

    `without_fate` counts what exists in memory, by lane.
    """

    def __init__(
        self,
        acknowledger: Acknowledger,
        shelves: Mapping[Lane, Shelf],
        observe: Observer,
        *,
        clock: Clock,
        steady: Clock,
    ) -> None:
        self._acknowledger = acknowledger
        self._shelves = shelves
        self._observe = observe
        self._clock = clock
        self._steady = steady
        self._duplicates: Duplicates[Held] = Duplicates()
        self._expecting: list[tuple[float, Held, Delivery]] = []
        self.without_fate = dict.fromkeys(Lane, 0)

    def open(self, held: Held) -> None:
        """Something of this message is begun."""
        held.open += 1
        held.total += 1
        self.without_fate[held.lane] += 1

    def open_delivery(self, held: Held, delivery: Delivery) -> Delivery | None:
        """A delivery of this message comes to its turn. Returns it as it is to be made; None where it is a copy."""
        self.open(held)
        return self._begin(held, delivery)

    def expected_in_vain(self) -> Iterator[tuple[Held, Delivery]]:
        """Copies that waited for a retry which did not come here. To be called many times a second."""
        now = self._steady()
        over = [waited for waited in self._expecting if waited[0] <= now]
        if over:
            self._expecting = [waits for waits in self._expecting if waits[0] > now]
        for _, held, delivery in over:
            if (begun := self._begin(held, delivery)) is not None:
                yield held, begun

    def _begin(self, held: Held, delivery: Delivery) -> Delivery | None:
        if not delivery.id_given:
            return delivery
        redelivered = held.message.delivery_count > 0
        match self._duplicates.begin(
            delivery.id, delivery.stage, held, self._steady(), of_event=held.of_event, redelivered=redelivered
        ):
            case First():
                return delivery
            case Apart():
                return replace(delivery, id_given=False)  # its end is not the other's
            case Expected(until=until):
                self._expecting.append((until, held, delivery))
            case Joined():
                held.joined += 1
            case Known():
                held.joined += 1
                self.settle(held)
        return None

    def settle(self, held: Held) -> None:
        """Something of this message has its durable fate."""
        held.open -= 1
        self.without_fate[held.lane] -= 1
        self.close(held)

    def leaves(self, begun: Delivery, verdict: Verdict) -> None:
        """What becomes of the delivery, as it was begun, is being made durable: others may soon see it."""
        if begun.id_given and isinstance(verdict, RetryAt | Defer | Dead):
            self._duplicates.leaves(begun.id, self._steady() + stands_for(verdict, self._clock()))

    def settle_delivery(self, held: Held, begun: Delivery, verdict: Verdict) -> None:
        """The delivery, as it was begun, has its durable fate, and so have its copies."""
        if not begun.id_given:
            self.settle(held)
            return
        for holder in self._duplicates.end(begun.id, begun.stage, delivered=isinstance(verdict, Done)):
            self.settle(holder)

    def close(self, held: Held) -> None:
        """Ack the message if all that it asked for has its fate."""
        if held.done and not held.closed:
            held.closed = True
            self._acknowledger.ack(held.message)
            self._shelves[held.lane].settled(held)
            if (fact := held.told()) is not None:
                self._observe(fact)

"""The one place that answers: may one more run?

The worker and its selection ask here and nowhere else. The gate answers:

- `has_room(lane)`: may another delivery of this lane be begun at all? Slots of the window and memory decide.
- `crowded(delivery)`: would it find all places of clients like its own taken? Then another message goes first.
- `ask(ticket)`: may this delivery be attempted? `Go` now; `Wait` in memory, until `ended` or `hand_out` returns it or
  `put_off` takes it out; or a `Defer`, with the moment to come back and the cause.
- `give_way(key)`: memory is full. Which waiting delivery leaves it for one of client `key`?

In return the gate is told how each attempt ended (`ended`). It owns what is known of clients: their circuits, pace,
pauses and who waits for them. What is behind it (`admission`, `client_standing`, `circuit`, `window`) can be replaced.

The gate keeps two clocks apart. Admission counts by a steady clock, so that a wall clock that jumps opens no circuit
and lets nobody in. Messages bear the time of the wall clock, since other workers read them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from notifier.domain.client import Client
from notifier.domain.delivery import Delivery
from notifier.domain.message import Lane
from notifier.domain.verdict import Defer, within_age
from notifier.pipeline.admission import Admission, Go, Later, Wait
from notifier.pipeline.attempt import AttemptResult, Tools
from notifier.pipeline.client_standing import CircuitChange
from notifier.pipeline.facts import CircuitChanged
from notifier.pipeline.ledger import HeldMessage
from notifier.pipeline.window import Window


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A delivery that wants an attempt, the message it came with, and its client as resolved for it."""

    held: HeldMessage
    delivery: Delivery
    client: Client


class Gate:
    """Says whether one more may run. `in_memory` counts the deliveries in memory, by lane.

    `workers` says over how many workers clients' limits are shared.
    """

    def __init__(
        self,
        tools: Tools,
        in_memory: Mapping[Lane, int],
        *,
        max_in_flight: int,
        slot_wait: float,
        workers: Callable[[], int],
    ) -> None:
        self._window = Window(max_in_flight)
        self._admission: Admission[Ticket] = Admission(
            self._window, slot_wait=slot_wait, workers=workers, circuit_changed=self._circuit_changed
        )
        self._tools = tools
        self._in_memory = in_memory

    @property
    def waiting(self) -> int:
        """How many deliveries wait in memory for their client."""
        return self._admission.waiting

    def has_room(self, lane: Lane) -> bool:
        """True if another delivery of the lane may be begun."""
        return self._window.has_slot(lane) and self._window.has_memory(lane, self._in_memory)

    def lacks_memory(self, lane: Lane) -> bool:
        """True if a slot is free for the lane, and only memory keeps it from another delivery."""
        return self._window.has_slot(lane) and not self._window.has_memory(lane, self._in_memory)

    def crowded(self, delivery: Delivery, lane: Lane) -> bool:
        """True if its client is not proven yet, and as many such clients as may be are being attempted."""
        return self._admission.crowded((delivery.iss, delivery.client_id), lane)

    def ask(self, ticket: Ticket) -> Go | Wait | Defer:
        """Say whether the delivery may be attempted now, waits in memory, or is put off."""
        reserved = ticket.delivery.reserved_until
        if reserved is not None:
            reserved -= self._ahead()
        answer = self._admission.ask(ticket.client, ticket.held.lane, ticket, self._tools.steady(), reserved)
        return self._deferral(ticket, answer, self._ahead()) if isinstance(answer, Later) else answer

    def ended(self, ticket: Ticket, result: AttemptResult) -> list[Ticket]:
        """Note how an attempt ended. Returns those that begin now in its place."""
        now = self._tools.steady()
        if result.pause is not None:
            self._admission.pause(ticket.client, now + result.pause)
        return self._admission.ended(ticket.client, ticket, result.mark, now)

    def hand_out(self) -> list[Ticket]:
        """Return those that waited and begin now, since attempts that hang have left the window."""
        return self._admission.hand_out(self._tools.steady())

    def put_off(self) -> Iterator[tuple[Ticket, Defer]]:
        """Return some of those that waited in memory and can wait no longer. Is called many times a second."""
        ahead = self._ahead()
        return (
            (ticket, self._deferral(ticket, later, ahead))
            for ticket, later in self._admission.put_off(self._tools.steady())
        )

    def give_way(self, key: tuple[str, str]) -> tuple[Ticket, Defer] | None:
        """Return the delivery that leaves memory for one of client `key`, if any does."""
        found = self._admission.give_way(key, self._tools.steady())
        return None if found is None else (found[0], self._deferral(*found, self._ahead()))

    def abandon(self) -> None:
        """Forget all that wait."""
        self._admission.abandon()

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, 1 half-open | 2 open) for each circuit that is not closed."""
        return self._admission.circuits()

    def lines(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return self._admission.lines()

    def _ahead(self) -> float:
        """Return the seconds from the steady clock to the wall clock."""
        return self._tools.clock() - self._tools.steady()

    def _circuit_changed(self, client: Client, change: CircuitChange) -> None:
        opened = change is CircuitChange.OPENED
        self._tools.observe(CircuitChanged(iss=client.iss, client_id=client.client_id, open=opened))

    def _deferral(self, ticket: Ticket, later: Later, ahead: float) -> Defer:
        """Return the deferral by the wall clock, due before the delivery's age ends."""
        defer = Defer(due=later.due + ahead, cause=later.cause, rounding=later.rounding)
        sid = self._tools.channel.names_session(ticket.delivery, ticket.client)
        return within_age(defer, ticket.delivery, ticket.client, carries_sid=sid, now=self._tools.clock())

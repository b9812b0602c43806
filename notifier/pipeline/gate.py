"""The worker's way into `admission`: tickets in, deferrals out, and two clocks kept apart.

Admission reckons by a steady clock, so that a wall clock that jumps opens no circuit and lets nobody in; what is
written into messages is the wall clock's, since another worker reads it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from notifier.domain.client import Client
from notifier.domain.delivery import Delivery
from notifier.domain.logout_token import carries_sid
from notifier.domain.message import Lane
from notifier.domain.verdict import Defer, within_age
from notifier.pipeline.admission import Admission, Go, Later, Wait
from notifier.pipeline.attempt import AttemptResult
from notifier.pipeline.facts import CircuitChanged, Observer
from notifier.pipeline.held import Held
from notifier.pipeline.limits import Limits
from notifier.pipeline.ports import Clock
from notifier.pipeline.standing import CircuitChange


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A delivery that wants an attempt, the message it came with, and its client as resolved for it."""

    held: Held
    delivery: Delivery
    client: Client


class Gate:
    """Asks `Admission` for the worker, and turns its answers into deferrals by the wall clock.

    `clock` and `steady` give seconds; `workers` over how many workers clients' limits are shared.
    """

    def __init__(
        self, limits: Limits, *, clock: Clock, steady: Clock, workers: Callable[[], int], observe: Observer
    ) -> None:
        self._admission: Admission[Ticket] = Admission(
            max_in_flight=limits.max_in_flight,
            slot_wait=limits.slot_wait,
            workers=workers,
            circuit_changed=self._circuit_changed,
        )
        self._clock = clock
        self._steady = steady
        self._observe = observe

    @property
    def in_flight(self) -> Mapping[Lane, int]:
        """Attempts in the window: those at suspects have slots of their own."""
        return self._admission.in_flight

    @property
    def waiting(self) -> int:
        """Deliveries that wait in memory."""
        return self._admission.waiting

    def crowded(self, delivery: Delivery, lane: Lane) -> bool:
        """Whether it must wait for others, since its client is not proven and as many such as may be are in flight."""
        return self._admission.crowded((delivery.iss, delivery.client_id), lane)

    def ask(self, ticket: Ticket) -> Go | Wait | Defer:
        """May it be attempted now?"""
        reserved = ticket.delivery.reserved_until
        if reserved is not None:
            reserved -= self._ahead()
        answer = self._admission.ask(ticket.client, ticket.held.lane, ticket, self._steady(), reserved)
        return self._deferral(ticket, answer, self._ahead()) if isinstance(answer, Later) else answer

    def ended(self, ticket: Ticket, result: AttemptResult) -> list[Ticket]:
        """Its attempt ended so. Returns those that begin now in its place."""
        now = self._steady()
        if result.pause is not None:
            self._admission.pause(ticket.client, now + result.pause)
        return self._admission.ended(ticket.client, ticket, result.mark, now)

    def hand_out(self) -> list[Ticket]:
        """Those that waited and begin now, since what hangs has left the window."""
        return self._admission.hand_out(self._steady())

    def put_off(self) -> Iterator[tuple[Ticket, Defer]]:
        """Some of those that waited in memory and can no more. To be called many times a second."""
        ahead = self._ahead()
        return (
            (ticket, self._deferral(ticket, later, ahead)) for ticket, later in self._admission.put_off(self._steady())
        )

    def give_way(self, key: tuple[str, str]) -> tuple[Ticket, Defer] | None:
        """Memory is full and a delivery for client `key` comes: who makes room for it, if anybody."""
        found = self._admission.give_way(key, self._steady())
        return None if found is None else (found[0], self._deferral(*found, self._ahead()))

    def abandon(self) -> None:
        """Forget all that wait."""
        self._admission.abandon()

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """(iss, client_id, 1 half-open | 2 open) of those not closed."""
        return self._admission.circuits()

    def lines(self) -> Iterable[tuple[str, str, int]]:
        """(iss, client_id, deliveries that wait in memory) of those who have any."""
        return self._admission.lines()

    def _ahead(self) -> float:
        """Seconds from the steady clock to the wall clock."""
        return self._clock() - self._steady()

    def _circuit_changed(self, client: Client, change: CircuitChange) -> None:
        self._observe(CircuitChanged(iss=client.iss, client_id=client.client_id, open=change is CircuitChange.OPENED))

    def _deferral(self, ticket: Ticket, later: Later, ahead: float) -> Defer:
        """In the wall clock's time, and due before the delivery's age ends."""
        defer = Defer(due=later.due + ahead, cause=later.cause, rounding=later.rounding)
        sid = carries_sid(ticket.delivery, ticket.client)
        return within_age(defer, ticket.delivery, ticket.client, carries_sid=sid, now=self._clock())

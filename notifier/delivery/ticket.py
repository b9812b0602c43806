"""The answers of the gate to a delivery that is offered: it starts, it waits in memory, or it is deferred."""

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from notifier.delivery.known_client import KnownClient
from notifier.delivery.verdict import Defer
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.message import Lane

Deferral: TypeAlias = tuple[Delivery, Defer]


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A delivery that holds a slot of its client or waits in memory for one, and the client as resolved for it.

    `pulled`: this worker fetched it from its bucket. `turn` is set by whoever waits: its result is the deferral, or
    None if the delivery starts.
    """

    delivery: Delivery
    client: Client
    lane: Lane
    pulled: bool = False
    turn: "asyncio.Future[Deferral | None] | None" = None
    opened_circuit: bool = False
    rotated: bool | None = None

    def call_up(self, deferred: Deferral | None = None) -> None:
        """End the wait, unless the process ends and has cancelled it."""
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(deferred)

    def on_circuit_opened(self) -> None:
        """Note that the failure of this attempt opened the client's circuit."""
        self.opened_circuit = True

    def on_rotation(self, *, rotated: bool) -> None:
        """Note whether another delivery became the probe after the failures of this one."""
        self.rotated = rotated


class StartNow(Ticket):
    """Attempt the delivery now."""

    __slots__ = ()


class Wait(Ticket):
    """The delivery waits in memory; `ended`, `hand_out`, `put_off` or `give_way` returns it."""

    __slots__ = ()


Known: TypeAlias = KnownClient[Ticket]

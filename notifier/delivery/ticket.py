"""A delivery that wants an attempt, as the gate and the worker hand it to each other."""

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from notifier.delivery.known_client import KnownClient
from notifier.delivery.ledger import HeldMessage
from notifier.delivery.verdict import Defer
from notifier.model.client import Client
from notifier.model.delivery import Delivery


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A delivery that wants an attempt, the message it came with, and its client as resolved for it.

    `pulled`: this worker took it out of its bucket, since its client can be called. `turn` is set if it waits in
    memory: its result is a deferral, or None if the delivery goes. `last`: its failure took the client down.
    `relieved`: after its fourth failure another delivery became the probe (True) or did not (False).
    """

    held: HeldMessage
    delivery: Delivery
    client: Client
    pulled: bool = False
    turn: "asyncio.Future[Defer | None] | None" = None
    last: bool = False
    relieved: bool | None = None

    def call_up(self, later: "Defer | None" = None) -> None:
        """End its wait in memory, unless the process ends and has cancelled it."""
        assert self.turn is not None
        if not self.turn.cancelled():
            self.turn.set_result(later)


Known: TypeAlias = KnownClient[Ticket]

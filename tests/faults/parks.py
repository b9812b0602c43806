"""Run the worker and kill it at a step of parking.

    python parks.py STEP:COUNT run -c …

The process kills itself when it reaches the step for the nth time:

- `parked`: a delivery is durable in its bucket, and its original message is not acked yet.
- `probe`: a probe is durable in its delay queue, and its original message is not acked yet.
- `fetched`: a delivery was fetched from its bucket, and not handled yet.
- `delivered`: the client has accepted a delivery from its bucket, which is not acked yet.
"""

import math
import os
import signal
import sys
from collections.abc import Callable

from notifier.cli import main
from notifier.delivery.ports import MessageOfDelivery
from notifier.delivery.settlement import Settlement
from notifier.delivery.verdict import Dead, Defer, RetryAt, WaitKind
from notifier.messages import worker as pipeline
from notifier.messages.ledger import HeldMessage, Ledger
from notifier.model.client import ClientKey
from notifier.model.delivery import Delivery
from notifier.model.message import Message

_settle = Settlement.settle
_on_delivery_settled = Ledger.on_delivery_settled
_take_parked: Callable[[pipeline.Worker, Message], ClientKey | None] = vars(pipeline.Worker)["_take_parked"]


def die_at(step: str, count: int) -> None:
    """Kill this process when it reaches the step for the nth time."""
    left = count
    fetched: set[str | None] = set()

    def reach(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def take_parked(self: pipeline.Worker, message: Message) -> ClientKey | None:
        reach("fetched")
        fetched.add(message.message_id)
        return _take_parked(self, message)

    async def settle(
        self: Settlement, delivery: Delivery, verdict: RetryAt | Defer | Dead, message: MessageOfDelivery
    ) -> bool:
        durable = await _settle(self, delivery, verdict, message)
        match verdict:
            case RetryAt(wait_kind=WaitKind.PARKED) | Defer(wait_kind=WaitKind.PARKED):
                reach("parked")
            case RetryAt(wait_kind=WaitKind.PROBE) | Defer(wait_kind=WaitKind.PROBE):
                reach("probe")
        return durable

    def on_delivery_settled(
        self: Ledger, held: HeldMessage, delivery: Delivery, *, covers_copies_until: float | None
    ) -> list[tuple[HeldMessage, Delivery]]:
        if covers_copies_until == math.inf and delivery.id in fetched:
            reach("delivered")
        return _on_delivery_settled(self, held, delivery, covers_copies_until=covers_copies_until)

    pipeline.Worker._take_parked = take_parked  # type: ignore[method-assign]
    Settlement.settle = settle  # type: ignore[method-assign]
    Ledger.on_delivery_settled = on_delivery_settled  # type: ignore[method-assign]


if __name__ == "__main__":
    step, _, count = sys.argv.pop(1).partition(":")
    die_at(step, int(count))
    main()

"""The worker as it ships, but for what tests of parking cannot wait for, or cannot hit from outside.

    python parks.py [overdue=2] [dies=STEP:COUNT] run -c …

`overdue`: the seconds that a traveller may be late, and those between two looks for such ones.
`dies`: the process kills itself when it has come to this step so often:

- `parked`: a delivery is durable in its bucket, and what it came with is not acked yet.
- `travels`: a traveller is durable in its delay queue, and what it came with is not acked yet.
- `fetched`: a delivery came out of its bucket, and nothing was done with it yet.
- `told`: the client has accepted a delivery that came out of its bucket, which is not acked yet.
"""

import math
import os
import signal
import sys

from notifier.cli import main
from notifier.delivery import client_buckets, pulls
from notifier.delivery import worker as pipeline
from notifier.delivery.ledger import HeldMessage, Ledger
from notifier.delivery.settlement import Settlement
from notifier.delivery.verdict import Dead, Defer, RetryAt, WaitsAs
from notifier.model.delivery import Delivery
from notifier.model.message import Message

_settle = Settlement.settle
_settle_delivery = Ledger.settle_delivery
_take_parked = vars(pipeline.Worker)["_take_parked"]


def die_at(step: str, count: int) -> None:
    """Have this process die when it has come to the step so often."""
    left = count
    fetched: set[str | None] = set()

    def comes_to(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def take_parked(self: pipeline.Worker, message: Message) -> bool:
        comes_to("fetched")
        fetched.add(message.message_id)
        return bool(_take_parked(self, message))

    async def settle(self: Settlement, delivery: Delivery, verdict: RetryAt | Defer | Dead, message: Message) -> bool:
        durable = await _settle(self, delivery, verdict, message)
        match verdict:
            case RetryAt(waits_as=WaitsAs.PARKED) | Defer(waits_as=WaitsAs.PARKED):
                comes_to("parked")
            case RetryAt(waits_as=WaitsAs.PROBE) | Defer(waits_as=WaitsAs.PROBE):
                comes_to("travels")
        return durable

    def settle_delivery(
        self: Ledger, held: HeldMessage, begun: Delivery, *, covers_copies_until: float | None
    ) -> list[tuple[HeldMessage, Delivery]]:
        if covers_copies_until == math.inf and begun.id in fetched:
            comes_to("told")
        return _settle_delivery(self, held, begun, covers_copies_until=covers_copies_until)

    pipeline.Worker._take_parked = take_parked  # type: ignore[method-assign]
    Settlement.settle = settle  # type: ignore[method-assign]
    Ledger.settle_delivery = settle_delivery  # type: ignore[method-assign]


def change(name: str, value: str) -> None:
    """Change one of the worker's times, or have it die."""
    match name:
        case "overdue":
            client_buckets.OVERDUE_SECONDS = pulls.COUNT_SECONDS = float(value)
        case "dies":
            step, _, count = value.partition(":")
            die_at(step, int(count))
        case _:
            sys.exit(f"parks.py knows no {name}")


if __name__ == "__main__":
    while len(sys.argv) > 1 and "=" in sys.argv[1]:
        change(*sys.argv.pop(1).split("=", 1))
    main()

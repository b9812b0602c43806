"""The worker as it ships, but for what tests of parking cannot wait for, or cannot hit from outside.

    python parks.py [audit_every=2] [dies=STEP:COUNT] run -c …

`audit_every`: the mean seconds between two looks at all buckets.
`dies`: the process kills itself when it has come to this step so often:

- `parked`: a delivery is durable in its bucket, and what it came with is not acked yet.
- `leashed`: a leash is durable in its delay queue, and what it came with is not acked yet.
- `fetched`: a delivery came out of its bucket, and nothing was done with it yet.
- `told`: the client has accepted a delivery that came out of its bucket, which is not acked yet.
"""

import os
import signal
import sys

from notifier.cli import main
from notifier.domain.delivery import Delivery
from notifier.domain.message import Message
from notifier.domain.verdict import Defer, Done, Place, RetryAt, Verdict
from notifier.pipeline import fetching
from notifier.pipeline import worker as pipeline
from notifier.pipeline.ledger import HeldMessage, Ledger

_settle = Ledger.settle_delivery
_take_parked = vars(pipeline.Worker)["_take_parked"]


def die_at(step: str, count: int) -> None:
    """Have this process die when it has come to the step so often."""
    left = count
    fetched: set[int] = set()

    def comes_to(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def take_parked(self: pipeline.Worker, message: Message) -> bool:
        comes_to("fetched")
        fetched.add(id(message))
        return bool(_take_parked(self, message))

    def settle(self: Ledger, held: HeldMessage, begun: Delivery, verdict: Verdict) -> None:
        match verdict:
            case RetryAt(place=Place.PARKED) | Defer(place=Place.PARKED):
                comes_to("parked")
            case RetryAt(place=Place.LEASH) | Defer(place=Place.LEASH):
                comes_to("leashed")
            case Done() if id(held.message) in fetched:
                comes_to("told")
        _settle(self, held, begun, verdict)

    pipeline.Worker._take_parked = take_parked  # type: ignore[method-assign]
    Ledger.settle_delivery = settle  # type: ignore[method-assign]


def change(name: str, value: str) -> None:
    """Change one of the worker's times, or have it die."""
    match name:
        case "audit_every":
            fetching.AUDIT_EVERY = float(value)
        case "dies":
            step, _, count = value.partition(":")
            die_at(step, int(count))
        case _:
            sys.exit(f"parks.py knows no {name}")


if __name__ == "__main__":
    while len(sys.argv) > 1 and "=" in sys.argv[1]:
        change(*sys.argv.pop(1).split("=", 1))
    main()

"""Dead letters for tests, and how to repair them without waiting."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from notifier.model.documents.dead_letter import DeadLetter, dead_letter_delivery, dump_dead_letter
from notifier.model.message import DEAD
from notifier.model.outcome import DeadReason
from notifier.model.progress import PastOutcome
from notifier.operators.deliveries.readmission import ReplayRules
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from tests.contract.queues import ready
from tests.support.deliveries import make_delivery

ISS = "https://id.example.com"
DELIVERY = make_delivery(
    id="", event_id="e-1", id_given=True, iss=ISS, client_id="shop", sub="alice", sid="s-1", attempts=2,
    first_taken_at=900.0,
    history=(PastOutcome(at=900.0, reason="server_error", status=500), PastOutcome(at=902.0, reason="dns")),
)  # fmt: skip
RULES = ReplayRules(registry=None, new_id=lambda: "made-up", max_event=128 * 1024)


def dead_letter(name: str, *, client_id: str = "shop", reason: DeadReason = DeadReason.REFUSED) -> DeadLetter:
    """A delivery given up."""
    return dead_letter_delivery(replace(DELIVERY, id=name, client_id=client_id), reason, "410 Gone", 1000.0)


async def store_dead_letters(queue: Queue, *dead_lettered: DeadLetter) -> None:
    """Put them among the dead, in this order, and see that the queue counts them."""
    before = (await queue.depths())[DEAD].ready
    for each in dead_lettered:
        await queue.publish(DEAD, dump_dead_letter(each))
    await ready(queue, DEAD, before + len(dead_lettered))


async def _no_pause(_seconds: float) -> None:
    return None


def course(
    *,
    stop: Callable[[], bool] = lambda: False,
    rate: float | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    pause: Callable[[float], Awaitable[None]] = _no_pause,
    monotonic: Callable[[], float] = time.monotonic,
) -> RepairOptions:
    """Return options of a repair at second 1000, by default without a limit."""
    return RepairOptions(
        clock=lambda: 1000.0, monotonic=monotonic, pause=pause, stop=stop, rate=rate, limit=limit, dry_run=dry_run
    )

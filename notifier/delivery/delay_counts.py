"""Counts the deliveries that wait in delay queues for each client, as far as this worker put them off.

Nobody tells this worker which worker gets a delivery when it is due. So each counts until it may be due, and no longer.
A worker that ends takes its counts with it. `notifier waiting list` looks into the queues instead.
"""

import math
from collections.abc import Callable, Iterator

from notifier.delivery.verdict import Defer, RetryAt, WaitsAs
from notifier.model.backoff import EARLY, Rounding, deferral_wait
from notifier.model.client import ClientKey


class DelayCounts:
    """The counts of one worker. `clock` gives epoch seconds. Memory is bounded by the number of different seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._dues: dict[ClientKey, dict[int, int]] = {}  # how many by the second in which they are due

    def put_off(self, key: ClientKey, verdict: RetryAt | Defer) -> None:
        """Count a delivery that is durable in a delay queue."""
        now = self._clock()
        wait = verdict.due - now
        if isinstance(verdict, Defer) and verdict.waits_as is WaitsAs.DELAYED:
            wait = deferral_wait(wait, verdict.rounding)
        else:
            wait = _least(wait, verdict.rounding)
        due, dues = math.ceil(now + wait), self._dues.setdefault(key, {})
        dues[due] = dues.get(due, 0) + 1

    def forget(self, key: ClientKey) -> None:
        """Count none for this client: somebody has taken them out of the delay queues."""
        self._dues.pop(key, None)

    def __iter__(self) -> Iterator[tuple[str, str, int, float]]:
        """Yield (iss, client_id, count, when the next is due) of each client that has any."""
        now = self._clock()
        for key, dues in [*self._dues.items()]:
            for due in [due for due in dues if due <= now]:
                del dues[due]
            if dues:
                yield (*key, sum(dues.values()), float(min(dues)))
            else:
                del self._dues[key]


def _least(wait: float, rounding: Rounding) -> float:
    """The seconds after which it may be there: RabbitMQ rounds."""
    return wait * EARLY if rounding == "down" else wait

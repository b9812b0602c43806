"""Counts the deliveries that wait in delay queues for each client, as far as this worker put them off.

Nobody tells this worker which worker gets a delivery when it is due. So each counts until it may be due, and no longer.
A worker that ends takes its counts with it. `notifier waiting list` looks into the queues instead.
"""

import math
from collections.abc import Callable, Iterator

from notifier.delivery.verdict import Defer, RetryAt, WaitsAs
from notifier.model.backoff import EARLY, Rounding, deferral_wait
from notifier.model.client import ClientKey

SHORT = 16.0  # seconds: what waits for less may come round soon, and would count twice until its second is over


class DelayCounts:
    """The counts of one worker. `clock` gives epoch seconds.

    They are kept by second, of short waits by eighths, and those of the past are forgotten. A dictionary for each of
    100,000 clients would take four times the memory.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._dues: dict[float, dict[ClientKey, int]] = {}  # how many by client, by the moment at which they are due

    def put_off(self, key: ClientKey, verdict: RetryAt | Defer) -> None:
        """Count a delivery that is durable in a delay queue."""
        now = self._clock()
        wait = verdict.due - now
        if isinstance(verdict, Defer) and verdict.waits_as is WaitsAs.DELAYED:
            wait = deferral_wait(wait, verdict.rounding)
        else:
            wait = _least(wait, verdict.rounding)
        steps = 8 if wait < SHORT else 1
        if (due := math.ceil((now + wait) * steps) / steps) not in self._dues:
            self._forget_past(now)  # nobody may ever ask for the counts
        counts = self._dues.setdefault(due, {})
        counts[key] = counts.get(key, 0) + 1

    def forget(self, key: ClientKey) -> None:
        """Count none for this client: somebody has taken them out of the delay queues."""
        for counts in self._dues.values():
            counts.pop(key, None)

    def __iter__(self) -> Iterator[tuple[str, str, int, float]]:
        """Yield (iss, client_id, count, when the next is due) of each client that has any."""
        self._forget_past(self._clock())
        found: dict[ClientKey, tuple[int, float]] = {}
        for due, counts in self._dues.items():
            for key, count in counts.items():
                others, first = found.get(key, (0, due))
                found[key] = others + count, min(first, due)
        return ((*key, count, first) for key, (count, first) in found.items())

    def _forget_past(self, now: float) -> None:
        self._dues = {due: counts for due, counts in self._dues.items() if due > now}


def _least(wait: float, rounding: Rounding) -> float:
    """The seconds after which it may be there: RabbitMQ rounds."""
    return wait * EARLY if rounding == "down" else wait

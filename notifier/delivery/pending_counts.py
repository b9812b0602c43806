"""Counts the deliveries that wait in queues for each client, as far as this worker put them there."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from notifier.delivery.verdict import Defer, RetryAt, queue_delay
from notifier.model.backoff import MIN_EARLY_FACTOR
from notifier.model.client import ClientKey

SHORT_WAIT_SECONDS = 16.0  # shorter waits are counted by eighths of a second: several may follow within a second


class BucketCounts:
    """Counts the deliveries parked for each client. `bucket` returns the name of a client's bucket.

    A worker adds each delivery that it parks, and subtracts each delivery that it receives from a bucket. So the count
    of one worker may be negative, and the sum over all workers is right. The counts of a worker that ends are lost:
    then the sum is wrong until the bucket is empty. The counts of a bucket that is empty twice in a row are forgotten.
    """

    def __init__(self, bucket: Callable[[ClientKey], str]) -> None:
        self._bucket = bucket
        self._counts: Counter[ClientKey] = Counter()
        self._empty: Collection[ClientKey] = ()  # clients whose buckets were empty at the last count

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Yield (iss, client_id, count) of each client whose count is not zero."""
        return ((*key, count) for key, count in self._counts.items() if count)

    def add(self, key: ClientKey, change: int) -> None:
        """Count a delivery that is durable in its bucket (+1), or that has left it (-1)."""
        self._counts[key] += change

    def forget_empty(self, filled: Collection[str]) -> None:
        """Forget the counts of buckets that are empty for the second time. `filled`: the buckets with messages."""
        empty = {key for key in self._counts if self._bucket(key) not in filled}
        forgotten = empty.intersection(self._empty)
        self._counts = Counter({key: count for key, count in self._counts.items() if count and key not in forgotten})
        self._empty = empty


class DelayCounts:
    """Counts the deliveries in delay queues for each client. `clock` gives epoch seconds.

    Any worker may receive a delivery once it is due. So a delivery counts only until the moment at which it is due at
    the earliest. The counts are kept by that moment, rounded up to a second, or to an eighth of a second for short
    waits. A dictionary for each of 100,000 clients would take four times the memory.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts_by_due: dict[float, dict[ClientKey, int]] = {}

    def add(self, key: ClientKey, verdict: RetryAt | Defer) -> None:
        """Count a delivery that is durable in a delay queue."""
        now = self._clock()
        wait, rounding = queue_delay(verdict, now)
        if rounding == "down":
            wait *= MIN_EARLY_FACTOR  # the delivery may return this early
        steps_per_second = 8 if wait < SHORT_WAIT_SECONDS else 1
        due = math.ceil((now + wait) * steps_per_second) / steps_per_second
        if due not in self._counts_by_due:
            self._forget_past(now)  # here, since the counts may never be requested
        counts = self._counts_by_due.setdefault(due, {})
        counts[key] = counts.get(key, 0) + 1

    def forget(self, key: ClientKey) -> None:
        """Forget the client's counts, since its deliveries were removed from the delay queues."""
        for counts in self._counts_by_due.values():
            counts.pop(key, None)

    def __iter__(self) -> Iterator[tuple[str, str, int, float]]:
        """Yield (iss, client_id, count, time at which the first is due) of each client that has any."""
        self._forget_past(self._clock())
        totals: dict[ClientKey, tuple[int, float]] = {}
        for due, counts in self._counts_by_due.items():
            for key, count in counts.items():
                total, first_due = totals.get(key, (0, due))
                totals[key] = total + count, min(first_due, due)
        return ((*key, total, first_due) for key, (total, first_due) in totals.items())

    def _forget_past(self, now: float) -> None:
        self._counts_by_due = {due: counts for due, counts in self._counts_by_due.items() if due > now}

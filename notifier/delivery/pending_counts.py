"""Counts the deliveries that wait in queues for each client, as far as this worker put them there."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from notifier.delivery.verdict import Defer, RetryAt, delay_of
from notifier.model.backoff import MIN_EARLY_FACTOR
from notifier.model.client import ClientKey

SHORT_WAIT_SECONDS = 16.0  # a shorter wait may end and begin again within its second, and count twice


class BucketCounts:
    """Counts the deliveries parked for each client. `bucket` names the bucket of a client.

    A worker adds each delivery that it parks, and subtracts each delivery that returns to it from a bucket. So the
    count of one worker may be below zero, and the sum over all workers is right. A worker that ends takes its counts
    with it: then the sum is wrong until the client's bucket is empty. The counts of a bucket that was empty twice are
    forgotten.
    """

    def __init__(self, bucket: Callable[[ClientKey], str]) -> None:
        self._bucket = bucket
        self._counts: Counter[ClientKey] = Counter()
        self._empty: Collection[ClientKey] = ()  # clients whose buckets were empty at the last count

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Yield (iss, client_id, count) of each client that has any."""
        return ((*key, count) for key, count in self._counts.items() if count)

    def add(self, key: ClientKey, change: int) -> None:
        """Count a delivery that is durable in its bucket (+1), or that has left it (-1)."""
        self._counts[key] += change

    def forget_empty(self, filled: Collection[str]) -> None:
        """Forget the counts of buckets that are empty for the second time. `filled`: non-empty buckets."""
        empty = {key for key in self._counts if self._bucket(key) not in filled}
        gone = empty.intersection(self._empty)
        self._counts = Counter({key: count for key, count in self._counts.items() if count and key not in gone})
        self._empty = empty


class DelayCounts:
    """Counts the deliveries in delay queues for each client. `clock` gives epoch seconds.

    Any worker may receive a delivery that is due. So each counts until it may be due, and no longer;
    `notifier waiting list` reads the queues instead. The counts are kept by second, of short waits by eighths, and
    those of the past are forgotten. A dictionary for each of 100,000 clients would take four times the memory.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._dues: dict[float, dict[ClientKey, int]] = {}  # how many by client, by the moment at which they are due

    def put_off(self, key: ClientKey, verdict: RetryAt | Defer) -> None:
        """Count a delivery that is durable in a delay queue."""
        now = self._clock()
        wait, rounding = delay_of(verdict, now)
        if rounding == "down":
            wait *= MIN_EARLY_FACTOR  # RabbitMQ rounds
        steps = 8 if wait < SHORT_WAIT_SECONDS else 1
        if (due := math.ceil((now + wait) * steps) / steps) not in self._dues:
            self._forget_past(now)  # the counts may never be requested
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

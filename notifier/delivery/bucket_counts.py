"""Counts the deliveries that wait in buckets for each client, as far as this worker knows.

A worker adds each delivery that it parks, and subtracts each one that comes back to it, whoever parked it. So the
count of one worker may be below zero, and the sum over all workers is right. A worker that ends takes its counts with
it: then the sum is wrong until the client's bucket is empty. The counts of a bucket that was empty twice are forgotten.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from notifier.model.client import ClientKey


class BucketCounts:
    """The counts of one worker. `bucket` names the bucket of a client."""

    def __init__(self, bucket: Callable[[ClientKey], str]) -> None:
        self._bucket = bucket
        self._counts: Counter[ClientKey] = Counter()
        self._empty: Collection[ClientKey] = ()  # those whose buckets were empty at the last look

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Yield (iss, client_id, count) of each client that has any."""
        return ((*key, count) for key, count in self._counts.items() if count)

    def add(self, key: ClientKey) -> None:
        """Count a delivery that is durable in its bucket."""
        self._counts[key] += 1

    def remove(self, key: ClientKey) -> None:
        """Count a delivery that has left its bucket."""
        self._counts[key] -= 1

    def forget_empty(self, filled: Collection[str]) -> None:
        """Forget the counts of buckets that are empty for the second time. `filled`: those that hold anything now."""
        empty = {key for key in self._counts if self._bucket(key) not in filled}
        gone = empty.intersection(self._empty)
        self._counts = Counter({key: count for key, count in self._counts.items() if count and key not in gone})
        self._empty = empty

"""Counts the deliveries that wait in buckets for each client, as far as this worker knows.

A worker counts what it parks, and takes off whatever comes back to it, no matter who parked that. So the count of one
worker may be below zero, and the sum over all workers is right. A worker that ends takes its counts with it: then the
sum is wrong until the client's bucket is empty. What is counted for a bucket that was empty twice is forgotten.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from notifier.model.client import ClientKey


class BucketCounts:
    """`bucket` names the bucket of a client."""

    def __init__(self, bucket: Callable[[ClientKey], str]) -> None:
        self._bucket = bucket
        self._counts: Counter[ClientKey] = Counter()
        self._filled: Collection[str] = ()

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Yield (iss, client_id, count) of each client that has any."""
        return ((*key, count) for key, count in self._counts.items() if count)

    def add(self, key: ClientKey) -> None:
        """Count one that is durable in its bucket."""
        self._counts[key] += 1

    def remove(self, key: ClientKey) -> None:
        """Count one that has left its bucket."""
        self._counts[key] -= 1

    def seen(self, filled: Collection[str]) -> None:
        """Note which buckets hold anything now."""
        kept = {*filled, *self._filled}
        self._counts = Counter(
            {key: count for key, count in self._counts.items() if count and self._bucket(key) in kept}
        )
        self._filled = filled

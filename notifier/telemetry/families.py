"""Builds metric families of prometheus-client for a scrape, such as the numbers of messages in the queues."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from notifier.model.message import SOURCE, Depth, Lane, Unsettled


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge named `notifier_<name>`."""
    return GaugeMetricFamily(f"notifier_{name}", text, value=float(value))


def plain_counter(name: str, text: str, value: float) -> Metric:
    """Return a counter named `notifier_<name>`."""
    return CounterMetricFamily(f"notifier_{name}", text, value=value)


def labelled_family(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: Mapping[str, float] | Mapping[tuple[str, str], float] | Mapping[tuple[str, str, str], float],
) -> Metric:
    """Return a family named `notifier_<name>`, with one series per key of `values`."""
    metric = family(f"notifier_{name}", text, labels=labels)
    for key, value in values.items():
        metric.add_metric((key,) if isinstance(key, str) else key, float(value))
    return metric


class Histogram:
    """Counts values by bucket, in the form that prometheus-client accepts. `bounds`: the buckets' upper bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> int:
        """Count a value. Return the index of its bucket."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self.sum += value
        return bucket

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound with the number of all values up to it."""
        return list(zip((*map(str, self._bounds), "+Inf"), accumulate(self._counts), strict=True))


class WaitingMessages:
    """The numbers and ages of the messages in the queues, by the counts of the broker and of this worker."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._depths: Mapping[str, Depth] = {}
        self._began_at = clock()
        self._empty_at: dict[str, float] = {}

    def set_depths(self, depths: Mapping[str, Depth]) -> None:
        """Set the depths that the broker reports (names without prefix)."""
        self._depths = dict(depths)
        now = self._clock()
        for queue, depth in depths.items():
            if depth.ready == 0:
                self._empty_at[queue] = now

    def families(self, unsettled: Mapping[str, Unsettled]) -> Iterator[Metric]:
        """Yield the metrics of queues. `unsettled`: the unacked messages of this worker, by queue."""
        ready = {queue: depth.ready for queue, depth in self._depths.items()}
        consumers = {queue: depth.consumers for queue, depth in self._depths.items()}
        source_queues = (queue for queue in ready if queue.startswith(SOURCE))
        consumed = dict.fromkeys((*map(str, Lane), *unsettled, *source_queues))
        own = {queue: unsettled.get(queue, Unsettled()) for queue in consumed}
        unsettled_counts = {queue: each.messages for queue, each in own.items()}
        set_aside_counts = {queue: each.set_aside for queue, each in own.items()}
        ages = {queue: self._oldest_seconds(queue, each) for queue, each in own.items()}
        for name, text, values in (
            ("queue_messages", "Ready messages, as counted by the broker.", ready),
            ("queue_consumers", "Consumers, as counted by the broker.", consumers),
            ("queue_unsettled", "Messages this worker holds.", unsettled_counts),
            ("queue_set_aside", "Late messages among them, which do not use the prefetch.", set_aside_counts),
            ("queue_oldest_seconds", "Age of the oldest message that is not late, or is stuck.", ages),
        ):
            yield labelled_family(GaugeMetricFamily, name, text, ("queue",), values)

    def _oldest_seconds(self, queue: str, unsettled: Unsettled) -> float:
        """Return the age of the oldest message of the queue in seconds; 0 if there is none.

        Without an unsettled message the age is an upper bound: a queue delivers in order, so its messages are younger
        than the last message that this worker took. They also arrived after the queue was last empty. Without
        this bound the first event after a quiet hour would seem an hour old.
        """
        now = self._clock()
        if unsettled.oldest is not None:
            return max(0.0, now - unsettled.oldest)
        depth = self._depths.get(queue)
        if depth is None or depth.ready == 0:
            return 0.0
        oldest_at = max(self._empty_at.get(queue, self._began_at), unsettled.last_taken or 0.0)
        return max(0.0, now - oldest_at)

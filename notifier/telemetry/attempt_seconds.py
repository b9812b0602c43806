"""Keeps the histogram of how long attempts took, with an exemplar in each bucket for OpenMetrics."""

from bisect import bisect_left

from prometheus_client import Metric
from prometheus_client.core import Exemplar, HistogramMetricFamily

from notifier.delivery.facts import Attempted

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class AttemptSeconds:
    """Counts attempts by their length. Keeps the last attempt of each bucket as its fact, which costs nothing."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._latest: list[Attempted | None] = [None] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, fact: Attempted) -> None:
        """Count an attempt."""
        bucket = bisect_left(BUCKETS, fact.seconds)
        self._counts[bucket] += 1
        self._latest[bucket] = fact
        self._sum += fact.seconds

    def family(self, *, exemplars: bool) -> Metric:
        """Return the histogram for prometheus-client. The text format 0.0.4 has no exemplars."""
        total = 0
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        bounds = (*map(str, BUCKETS), "+Inf")
        for bound, count, latest in zip(bounds, self._counts, self._latest, strict=True):
            total += count
            example = _exemplar(latest) if exemplars else None
            buckets.append((bound, total) if example is None else (bound, total, example))
        return HistogramMetricFamily(
            "notifier_attempt_seconds", "How long attempts took.", buckets=buckets, sum_value=self._sum
        )


def _exemplar(fact: Attempted | None) -> Exemplar | None:
    """Return the attempt's trace; without one its token's `jti`, which the client's log has too."""
    if fact is None or not fact.jti:
        return None
    trace = fact.delivery.trace
    label = {"jti": fact.jti} if trace is None else {"trace_id": trace.split("-")[1]}
    return Exemplar(label, fact.seconds, fact.at)

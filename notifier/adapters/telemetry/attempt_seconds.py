"""The histogram of how long attempts took, with an example in each bucket for whoever asks for OpenMetrics."""

from bisect import bisect_left

from prometheus_client import Metric
from prometheus_client.core import Exemplar, HistogramMetricFamily

from notifier.pipeline.facts import Attempted

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class AttemptSeconds:
    """Its counts. Of each bucket the last attempt is kept, by its fact: that costs an attempt nothing."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._latest: list[Attempted | None] = [None] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, fact: Attempted) -> None:
        """One more attempt."""
        bucket = bisect_left(BUCKETS, fact.seconds)
        self._counts[bucket] += 1
        self._latest[bucket] = fact
        self._sum += fact.seconds

    def family(self, *, exemplars: bool) -> Metric:
        """As prometheus-client has it; the text format 0.0.4 knows no exemplars."""
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
    """The trace that the attempt belongs to; its token's `jti`, which the client's log has too, where there is none."""
    if fact is None or not fact.jti:
        return None
    trace = fact.delivery.trace
    label = {"jti": fact.jti} if trace is None else {"trace_id": trace.split("-")[1]}
    return Exemplar(label, fact.seconds, fact.at)

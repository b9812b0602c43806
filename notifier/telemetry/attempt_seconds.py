"""Keeps the histogram of how long attempts took, with an exemplar in each bucket for OpenMetrics."""

from prometheus_client import Metric
from prometheus_client.core import Exemplar, HistogramMetricFamily

from notifier.delivery.facts import Attempted
from notifier.telemetry.families import Histogram

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class AttemptSeconds:
    """Counts attempts by their length. Keeps the last attempt of each bucket as its fact, which costs nothing."""

    def __init__(self) -> None:
        self._seconds = Histogram(BUCKETS)
        self._latest: list[Attempted | None] = [None] * (len(BUCKETS) + 1)

    def add(self, fact: Attempted) -> None:
        """Count an attempt."""
        self._latest[self._seconds.add(fact.seconds)] = fact

    def family(self, *, exemplars: bool) -> Metric:
        """Return the histogram for prometheus-client. The text format 0.0.4 has no exemplars."""
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for bucket, latest in zip(self._seconds.buckets, self._latest, strict=True):
            example = _exemplar(latest) if exemplars else None
            buckets.append(bucket if example is None else (*bucket, example))
        return HistogramMetricFamily(
            "notifier_attempt_seconds", "How long attempts took.", buckets=buckets, sum_value=self._seconds.sum
        )


def _exemplar(fact: Attempted | None) -> Exemplar | None:
    """Return the attempt's trace; without one its token's `jti`, which the client's log has too."""
    if fact is None or not fact.jti:
        return None
    trace = fact.delivery.trace
    label = {"jti": fact.jti} if trace is None else {"trace_id": trace.split("-")[1]}
    return Exemplar(label, fact.seconds, fact.at)

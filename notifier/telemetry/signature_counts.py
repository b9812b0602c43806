"""Counts the signatures of keys that are in places of their own, by the kind of place, and how long they took."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from notifier.telemetry.families import labelled
from notifier.tokens.signature import SignatureResult

SIGNATURE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class SignatureCounts:
    """The counters of signers. Each series of a kind that is configured starts at zero."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def know(self, kinds: Iterable[str]) -> None:
        """Begin the series of these kinds."""
        for kind in kinds:
            self._buckets.setdefault(kind, [0] * (len(SIGNATURE_BUCKETS) + 1))
            self._sums.setdefault(kind, 0.0)
            for result in SignatureResult:
                self._results.setdefault((kind, result.value), 0)

    def count(self, kind: str, result: SignatureResult, seconds: float) -> None:
        """Count what became of asking a place. Only signatures have a length."""
        self.know((kind,))
        self._results[kind, result.value] += 1
        if result is SignatureResult.OK:
            self._buckets[kind][bisect_left(SIGNATURE_BUCKETS, seconds)] += 1
            self._sums[kind] += seconds

    def families(self) -> Iterator[Metric]:
        """The families for a scrape."""
        text = "Requests to places that keep keys, by what became of them."
        yield labelled(CounterMetricFamily, "signatures_total", text, ("signer", "result"), self._results)
        text = "How long signatures took that a place of keys made."
        seconds = HistogramMetricFamily("notifier_signature_seconds", text, labels=("signer",))
        bounds = (*map(str, SIGNATURE_BUCKETS), "+Inf")
        for kind, counts in self._buckets.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            seconds.add_metric((kind,), buckets=buckets, sum_value=self._sums[kind])
        yield seconds

"""Counts the signatures of keys that are in places of their own, by the kind of place, and how long they took."""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from notifier.telemetry.families import Histogram, labelled
from notifier.tokens.signature import SignatureResult

SIGNATURE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class SignatureCounts:
    """The counters of signers. Each series of a kind that is configured starts at zero."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, Histogram] = {}

    def know(self, kinds: Iterable[str]) -> None:
        """Begin the series of these kinds."""
        for kind in kinds:
            self._seconds.setdefault(kind, Histogram(SIGNATURE_BUCKETS))
            for result in SignatureResult:
                self._results.setdefault((kind, result.value), 0)

    def count(self, kind: str, result: SignatureResult, seconds: float) -> None:
        """Count what became of asking a place. Only signatures have a length."""
        self.know((kind,))
        self._results[kind, result.value] += 1
        if result is SignatureResult.OK:
            self._seconds[kind].add(seconds)

    def families(self) -> Iterator[Metric]:
        """The families for a scrape."""
        text = "Requests to places that keep keys, by what became of them."
        yield labelled(CounterMetricFamily, "signatures_total", text, ("signer", "result"), self._results)
        text = "How long signatures took that a place of keys made."
        seconds = HistogramMetricFamily("notifier_signature_seconds", text, labels=("signer",))
        for kind, histogram in self._seconds.items():
            seconds.add_metric((kind,), buckets=histogram.buckets, sum_value=histogram.sum)
        yield seconds

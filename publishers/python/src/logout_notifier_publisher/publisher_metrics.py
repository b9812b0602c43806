"""The counters and pending events of a publisher: a snapshot, and a collector for prometheus_client."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from logout_notifier_publisher.event_transport import FailureReason

if TYPE_CHECKING:
    from prometheus_client import Metric


@dataclass(slots=True)
class PublisherCounters:
    """Counters of one publisher since its start."""

    on_disk: int = 0
    in_memory: int = 0
    published: int = 0
    lost: int = 0
    refused: int = 0
    expired: int = 0
    failures: dict[FailureReason, int] = field(default_factory=lambda: dict.fromkeys(FailureReason, 0))

    def on_stored(self, *, on_disk: bool) -> None:
        """Count an event that was stored."""
        if on_disk:
            self.on_disk += 1
        else:
            self.in_memory += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherState:
    """A snapshot. The first members count since the start; the last four are current values.

    `written`: events stored on disk. `written_in_memory`: events stored in memory, because the disk failed or is full.
    `refused`, `expired`: events set aside. `failures`: failed attempts by reason. `waiting`: pending events.
    `oldest_age`: age of the oldest pending event in seconds, 0 if there is none.
    """

    written: int = 0
    written_in_memory: int = 0
    published: int = 0
    lost: int = 0
    refused: int = 0
    expired: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    waiting_in_memory: int = 0
    oldest_age: float = 0.0
    connected: bool = False


class PublisherCollector:
    """Exports the state to prometheus_client: `REGISTRY.register(PublisherCollector(lambda: publisher.state))`."""

    def __init__(self, state: Callable[[], PublisherState]) -> None:
        self._state = state

    def collect(self) -> Iterable["Metric"]:
        """Return the metrics for prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415  optional

        state = self._state()
        name = "notifier_publisher"
        written = CounterMetricFamily(f"{name}_written", "Events kept, by where.", labels=["kept"])
        written.add_metric(["disk"], state.written)
        written.add_metric(["memory"], state.written_in_memory)
        yield written
        yield CounterMetricFamily(f"{name}_published", "Events confirmed.", value=state.published)
        yield CounterMetricFamily(f"{name}_lost", "Events lost: no client is notified.", value=state.lost)
        aside = CounterMetricFamily(f"{name}_refused", "Events set aside, by why.", labels=["why"])
        aside.add_metric(["refused"], state.refused)
        aside.add_metric(["expired"], state.expired)
        yield aside
        failures = CounterMetricFamily(f"{name}_failures", "Failed tries to publish.", labels=["reason"])
        for reason, count in state.failures.items():
            failures.add_metric([reason], count)
        yield failures
        yield GaugeMetricFamily(f"{name}_waiting", "Events that wait.", value=state.waiting)
        yield GaugeMetricFamily(
            f"{name}_waiting_in_memory", "Events that wait and are not on disk.", value=state.waiting_in_memory
        )
        yield GaugeMetricFamily(
            f"{name}_oldest_age_seconds", "How long the oldest event has waited.", value=state.oldest_age
        )

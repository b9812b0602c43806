"""How each client fares at this worker, and how fast the worker goes: counted from facts, told to who asks.

An attempt costs a look-up and a few numbers. Of at most 10,000 clients something is kept; the one longest known goes
for a new one.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from notifier.domain import outcome
from notifier.pipeline.facts import Attempted, Buried, Deferred, Delivered, Fact, RetryScheduled
from notifier.pipeline.ports import Clock

KEPT = 10_000  # clients
SAMPLES = 13  # of five seconds: the rates are those of the last minute


@dataclass(slots=True)
class ClientRecord:
    """What one client did here. Moments in epoch seconds; `put_off` counts retries and deferrals."""

    delivered: int = 0
    dead: int = 0
    put_off: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    reason: str = ""
    status: int | None = None
    next_due: float | None = None


class HealthObserver:
    """The observer. `sample` is to be called every five seconds, for the rates."""

    def __init__(self, *, clock: Clock, steady: Clock) -> None:
        self._clock = clock
        self._steady = steady
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=SAMPLES)
        self._note: Mapping[type[Fact], Callable[[Fact], None]] = {
            Attempted: self._attempted,
            Delivered: self._delivered,
            RetryScheduled: self._retry,
            Deferred: self._deferred,
            Buried: self._buried,
        }
        self.clients: dict[tuple[str, str], ClientRecord] = {}
        self.counts = {"attempts": 0, "delivered": 0, "retried": 0, "deferred": 0, "dead": 0}
        self.sample()

    def observe(self, fact: Fact) -> None:
        """Count it. Never waits."""
        if (note := self._note.get(type(fact))) is not None:
            note(fact)

    def sample(self) -> None:
        """Note how much was done so far."""
        self._samples.append((self._steady(), MappingProxyType(dict(self.counts))))

    def rates(self) -> dict[str, float]:
        """A second, over the last minute or the life of the worker, whichever is shorter."""
        since, before = self._samples[0]
        seconds = max(1.0, self._steady() - since)
        return {name: round((count - before[name]) / seconds, 2) for name, count in self.counts.items()}

    def _seen(self, key: tuple[str, str]) -> ClientRecord:
        seen = self.clients.get(key)
        if seen is None:
            if len(self.clients) >= KEPT:
                del self.clients[next(iter(self.clients))]
            seen = self.clients[key] = ClientRecord()
        return seen

    def _attempted(self, fact: Fact) -> None:
        assert isinstance(fact, Attempted)
        self.counts["attempts"] += 1
        seen = self._seen(fact.delivery.key)
        if isinstance(fact.outcome, outcome.Delivered):
            seen.last_success = fact.at
        else:
            seen.last_failure = fact.at
            seen.reason, seen.status = fact.outcome.reason.value, fact.outcome.status

    def _delivered(self, fact: Fact) -> None:
        assert isinstance(fact, Delivered)
        self.counts["delivered"] += 1
        self._seen(fact.delivery.key).delivered += 1

    def _retry(self, fact: Fact) -> None:
        assert isinstance(fact, RetryScheduled)
        self.counts["retried"] += 1
        self._put_off(fact.delivery.key, fact.due)

    def _deferred(self, fact: Fact) -> None:
        assert isinstance(fact, Deferred)
        self.counts["deferred"] += 1
        if fact.client_id:
            self._put_off((fact.iss, fact.client_id), fact.due)

    def _put_off(self, key: tuple[str, str], due: float) -> None:
        seen = self._seen(key)
        seen.put_off += 1
        seen.next_due = due

    def _buried(self, fact: Fact) -> None:
        assert isinstance(fact, Buried)
        self.counts["dead"] += 1
        if not fact.client_id:
            return
        seen = self._seen((fact.iss, fact.client_id))
        seen.dead += 1
        if fact.delivery is None or not fact.delivery.attempts:  # no attempt has told its reason
            seen.last_failure = self._clock()
            seen.reason, seen.status = fact.reason.value, None

"""Counts whole events that became dead letters, so that `notifier status` begins with them: no client was notified.

An issuer that nobody knows may be made up, so the counts are bounded: those beyond have no issuer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from notifier.delivery.facts import Buried, FactHandlers
from notifier.model.moment import Clock
from notifier.model.outcome import DeadReason
from notifier.model.trouble import Trouble, TroubleKind

MAX_COUNTS = 50  # pairs of issuer and reason
KEPT_SECONDS = 3600.0  # after the last refusal, as the alert NotifierEventsRefused does


@dataclass(slots=True)
class _Refusals:
    since: float
    last_at: float = 0.0
    count: int = 0
    text: str = ""


class RefusedEvents:
    """The events that were refused within the last hour, by issuer and reason."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals: dict[tuple[str, DeadReason], _Refusals] = {}
        self.observe = FactHandlers({Buried: self._buried})
        """Counts an event that became a dead letter."""

    def _buried(self, fact: Buried) -> None:
        if fact.client_id:
            return
        now, key = self._clock(), (fact.iss, fact.reason)
        if key not in self._refusals and len(self._refusals) >= MAX_COUNTS:
            self._forget(now)
            key = key if len(self._refusals) < MAX_COUNTS else ("", fact.reason)
        refusals = self._refusals.setdefault(key, _Refusals(since=now))
        refusals.count += 1
        # What a malformed event contains may name a user.
        text = "" if fact.reason is DeadReason.MALFORMED_EVENT else f": {fact.text}"
        refusals.last_at, refusals.text = now, text

    def troubles(self) -> Iterator[Trouble]:
        """Yield what was refused within the last hour. `count` is of events."""
        self._forget(self._clock())
        for (iss, reason), refusals in self._refusals.items():
            text = f"no client was notified of them{refusals.text}; `notifier dead-letters list --reason {reason}`"
            yield Trouble(
                kind=TroubleKind.EVENTS_REFUSED, text=text,
                since=refusals.since, iss=iss, subject=reason, count=refusals.count,
            )  # fmt: skip

    def _forget(self, now: float) -> None:
        for key in [key for key, refusals in self._refusals.items() if refusals.last_at + KEPT_SECONDS < now]:
            del self._refusals[key]

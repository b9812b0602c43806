"""Finds clients that a worker has only skipped for `session_only` for a day: nothing notifies them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from notifier.delivery.facts import FactHandlers, Skipped
from notifier.model.client import ClientKey
from notifier.model.moment import Clock
from notifier.model.notice import SkipReason
from notifier.model.registry import CurrentRegistry
from notifier.model.trouble import Trouble, TroubleKind

REPORT_SECONDS = 86_400.0
_TEXT = (
    "it was notified of nothing for a day: its channel ends all sessions of a user, and each event named one session;"
    " publish events without sid for it, or write sessions: true in its channel"
)


@dataclass(slots=True)
class _Skips:
    since: float
    count: int = 0


class SessionOnlyWatch:
    """Counts the skips of each client since its last result. Only files can register such clients, so they are few.

    `last_activity_at` returns when the client last had a result or a deferral, in epoch seconds; 0 without any. So a
    delivered logout costs nothing here.
    """

    def __init__(self, registry: CurrentRegistry, last_activity_at: Callable[[ClientKey], float], clock: Clock) -> None:
        self._registry = registry
        self._last_activity_at = last_activity_at
        self._clock = clock
        self._skips: dict[ClientKey, _Skips] = {}
        self.observe = FactHandlers({Skipped: self._on_skipped})
        """Count a skipped client."""

    def _on_skipped(self, fact: Skipped) -> None:
        if fact.reason is not SkipReason.SESSION_ONLY:
            return
        key = (fact.iss, fact.client_id)
        skips = self._skips.get(key)
        if skips is None or self._last_activity_at(key) > skips.since:
            skips = self._skips[key] = _Skips(since=self._clock())
        skips.count += 1

    def troubles(self) -> Iterator[Trouble]:
        """Yield a trouble for each client of the registry that was only skipped, for a day or longer."""
        now = self._clock()
        for key, skips in list(self._skips.items()):
            iss, client_id = key
            client = self._registry().clients_of(iss).get(client_id)
            if client is None or client.channel is None or not client.channel.ends_all:
                del self._skips[key]
            elif now - skips.since >= REPORT_SECONDS and self._last_activity_at(key) <= skips.since:
                yield Trouble(
                    kind=TroubleKind.SESSION_ONLY, text=_TEXT, since=skips.since, iss=iss, client_id=client_id,
                    count=skips.count,
                )  # fmt: skip

"""Finds clients that answer a logout with a web page: their address may lead to an application's start page.

Such a delivery counts as delivered, since some receivers answer so. But a single-page application answers 200 with HTML
to everything, and then no session ends.
"""

from collections.abc import Callable, Iterator

import structlog

from notifier.delivery.facts import Attempted
from notifier.model.client import ClientKey
from notifier.model.moment import Clock
from notifier.model.outcome import Reason
from notifier.model.registry import CurrentRegistry
from notifier.model.shared_resources import shared_bound
from notifier.model.trouble import Trouble, TroubleKind

MAX_CLIENTS = shared_bound(100)  # that are named: an event may name any number of addresses
TEXT = "it answers with a web page; is its address its logout endpoint?"


class WebPageWatch:
    """Records clients whose last answer is a web page, and logs each client once.

    `last_activity_at` returns 0 for a client that is not registered and had no result for an hour: it is forgotten.
    """

    def __init__(self, registry: CurrentRegistry, last_activity_at: Callable[[ClientKey], float], clock: Clock) -> None:
        self._registry = registry
        self._last_activity_at = last_activity_at
        self._clock = clock
        self.since: dict[ClientKey, float | None] = {}  # in epoch seconds; None: it has answered otherwise since
        self._log = structlog.get_logger()

    def on_attempt(self, fact: Attempted) -> None:
        """Record the answer of an attempt. It may be omitted if that is no web page, and `since` is empty."""
        outcome, key = fact.outcome, fact.delivery.key
        if outcome.is_web_page:
            self._on_web_page(key)
        elif key in self.since and outcome.status is not None and outcome.reason is not Reason.INTERCEPTED:
            self.since[key] = None

    def _on_web_page(self, key: ClientKey) -> None:
        if key not in self.since:
            if len(self.since) >= MAX_CLIENTS and not self._make_room(key):
                return
            command = f"notifier explain {TroubleKind.WEB_PAGE.section}"
            self._log.warning("answer_is_web_page", iss=key[0], client_id=key[1], hint=TEXT, help=command)
        self.since[key] = self.since.get(key) or self._clock()

    def _make_room(self, key: ClientKey) -> bool:
        """Forget a client that has answered otherwise or is gone. Return False if there is none.

        A registered client takes the place of one that is not: events may name any number of those.
        """
        forgotten = next((each for each, since in self.since.items() if since is None or self._is_gone(*each)), None)
        if forgotten is None and self._is_registered(*key):
            forgotten = next((each for each in self.since if not self._is_registered(*each)), None)
        if forgotten is not None:
            del self.since[forgotten]
        return forgotten is not None

    def _is_registered(self, iss: str, client_id: str) -> bool:
        return client_id in self._registry().clients_of(iss)

    def _is_gone(self, iss: str, client_id: str) -> bool:
        return not self._is_registered(iss, client_id) and not self._last_activity_at((iss, client_id))

    def troubles(self) -> Iterator[Trouble]:
        """Yield a trouble for each client whose last answer is a web page."""
        for (iss, client_id), since in self.since.items():
            if since is not None and not self._is_gone(iss, client_id):
                yield Trouble(kind=TroubleKind.WEB_PAGE, text=TEXT, since=since, iss=iss, client_id=client_id)

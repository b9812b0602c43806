"""Check the front-channel addresses in events and contexts. Refused addresses are counted and logged.

An address is used only for clients that are not registered. For an event, `registry.inline` decides whose addresses are
accepted, as for back-channel addresses. For a context, it must be sealed by the issuer's own key: a holder of keys
that several issuers share could supply addresses for each of them.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.model.front_channel import FrontChannelContext, LeftOut, Unbrought, judged
from notifier.model.printable import counted, excerpt
from notifier.model.registry import CurrentRegistry
from notifier.model.session_ended import SessionEnded

_NAMED = 3  # clients of one reason in a note
_TOLD_EVERY = 60.0  # seconds between equal log lines of an issuer
WAYS: Mapping[Unbrought, str] = {
    Unbrought.REGISTERED: "what is registered wins: write frontchannel_logout_uri there, or front_channel: off",
    Unbrought.DENIED: "registry.inline is deny: register them",
    Unbrought.SPEAKER: "an event's address counts from the identity server alone (registry.inline): name its user or"
    " API token under publishers of the issuer, or register them",
    Unbrought.SHARED_KEY: "the page's key is not the issuer's own: use web.issuers.<iss>.keys_file, or register them",
    Unbrought.ADDRESS: "a page cannot ask there: correct the address, or change egress",
    Unbrought.OWN_HOST: "browsers would send the issuer's own cookies along: write such a client into registry.file",
}
"""What to do, by why a client is left out."""


class BroughtAddresses:
    """Checks contexts. `hosts` are the issuer's own; `speak` returns whether its pages are sealed by its own keys."""

    def __init__(
        self,
        counts: FrontChannelCounts,
        registry: CurrentRegistry,
        hosts: Callable[[str], Collection[str]],
        speak: Callable[[str], bool],
    ) -> None:
        self._counts = counts
        self._registry = registry
        self._hosts = hosts
        self._speak = speak
        self._logged_at: dict[tuple[str, Unbrought], float] = {}

    def of_context(self, context: FrontChannelContext, *, own_key: bool, told: bool) -> FrontChannelContext:
        """Return the context of a page with its accepted addresses. `told`: count and log the refused ones.

        `own_key`: the key that sealed it belongs to this issuer only.
        """
        unheard = None if own_key else Unbrought.SHARED_KEY
        judgement, left_out = judged(context, self._registry(), self._hosts(context.iss), unheard)
        if told:
            self._tell(context.iss, left_out, None)
        return judgement

    def of_event(self, context: FrontChannelContext, event: SessionEnded) -> tuple[FrontChannelContext, str | None]:
        """Return the context of an event likewise, and a note about the omitted clients, or None."""
        registry = self._registry()
        unheard = None if self._speak(event.iss) else Unbrought.SHARED_KEY
        if not registry.hears(event.iss, event.publisher, vouched=event.vouched):
            unheard = Unbrought.SPEAKER
        judgement, left_out = judged(context, registry, self._hosts(event.iss), unheard)
        self._tell(event.iss, left_out, event.publisher)
        return judgement, _note(left_out) if left_out else None

    def _tell(self, iss: str, left_out: Sequence[LeftOut], publisher: str | None) -> None:
        now = time.monotonic()
        for reason, count in Counter(client.reason for client in left_out).items():
            self._counts.left_out(reason, count)
            if now - self._logged_at.get((iss, reason), float("-inf")) < _TOLD_EVERY:
                continue
            self._logged_at[iss, reason] = now
            first = next(client for client in left_out if client.reason is reason)
            structlog.get_logger().warning(
                "front_channel_left_out", iss=iss, publisher=publisher, reason=reason, clients=count,
                client_id=excerpt(first.client_id), error=first.text or None, hint=WAYS[reason],
            )  # fmt: skip


def _note(left_out: Sequence[LeftOut]) -> str:
    reasons = dict.fromkeys(client.reason for client in left_out)
    parts = "; ".join(_part([client for client in left_out if client.reason is reason]) for reason in reasons)
    return f"the page leaves out {counted(len(left_out), 'client')} whose address does not count {parts}"


def _part(alike: Sequence[LeftOut]) -> str:
    first = alike[0]
    names = ", ".join(excerpt(client.client_id) for client in alike[:_NAMED])
    more = f" and {len(alike) - _NAMED:,} more" if len(alike) > _NAMED else ""
    return f"({names}{more}): {f'it {first.text}; ' if first.text else ''}{WAYS[first.reason]}"

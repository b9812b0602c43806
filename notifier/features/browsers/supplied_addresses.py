"""Check the front-channel addresses in events and contexts. Refused addresses are counted and logged.

An address is used only for unregistered clients. In an event, `registry.inline` decides whose addresses are accepted,
as for back-channel addresses. A context must be sealed by the issuer's own key: the holder of a key that several
issuers share could supply addresses for each of them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.model.front_channel import AddressRefusal, FrontChannelContext, OmittedClient, check_addresses
from notifier.model.moment import MinuteLimit
from notifier.model.printable import counted, excerpt
from notifier.model.registry import CurrentRegistry
from notifier.model.session_ended import SessionEnded

_MAX_NAMED_CLIENTS = 3  # per reason in a note
REMEDIES: Mapping[AddressRefusal, str] = {
    AddressRefusal.REGISTERED: "what is registered wins: write frontchannel_logout_uri there, or front_channel: off",
    AddressRefusal.DENIED: "registry.inline is deny: register them",
    AddressRefusal.SPEAKER: "an event's address counts from the identity server alone (registry.inline): name its user"
    " or API token under publishers of the issuer, or register them",
    AddressRefusal.SHARED_KEY: "the page's key is not the issuer's own: use web.issuers.<iss>.keys_file, or register"
    " them",
    AddressRefusal.ADDRESS: "a page cannot ask there: correct the address, or change egress",
    AddressRefusal.OWN_HOST: "browsers would send the issuer's own cookies along: write such a client into"
    " registry.file",
}
"""The remedies, by the reason for which a client is left out."""


class SuppliedAddresses:
    """Checks contexts. `hosts` are the issuer's own; `has_exclusive_keys`: no other issuer has its keys."""

    def __init__(
        self,
        counts: FrontChannelCounts,
        registry: CurrentRegistry,
        hosts: Callable[[str], Collection[str]],
        has_exclusive_keys: Callable[[str], bool],
    ) -> None:
        self._counts = counts
        self._registry = registry
        self._hosts = hosts
        self._has_exclusive_keys = has_exclusive_keys
        self._log_limit = MinuteLimit()

    def check_context(self, context: FrontChannelContext, *, exclusive_key: bool, record: bool) -> FrontChannelContext:
        """Return the context of a page with its accepted addresses. `record`: count and log the refused ones.

        `exclusive_key`: no other issuer has the key that sealed it.
        """
        refusal = None if exclusive_key else AddressRefusal.SHARED_KEY
        checked, omitted = check_addresses(context, self._registry(), self._hosts(context.iss), refusal)
        if record:
            self._record(context.iss, omitted, None)
        return checked

    def check_event(self, context: FrontChannelContext, event: SessionEnded) -> tuple[FrontChannelContext, str | None]:
        """Return the context of an event with its accepted addresses, and a note on omitted clients, or None."""
        registry = self._registry()
        refusal = None if self._has_exclusive_keys(event.iss) else AddressRefusal.SHARED_KEY
        if not registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched):
            refusal = AddressRefusal.SPEAKER
        checked, omitted = check_addresses(context, registry, self._hosts(event.iss), refusal)
        self._record(event.iss, omitted, event.publisher)
        return checked, _format_note(omitted) if omitted else None

    def _record(self, iss: str, omitted: Sequence[OmittedClient], publisher: str | None) -> None:
        for reason, count in Counter(client.reason for client in omitted).items():
            self._counts.on_clients_omitted(reason, count)
            if not self._log_limit.allows(iss, reason):
                continue
            first = next(client for client in omitted if client.reason is reason)
            structlog.get_logger().warning(
                "front_channel_left_out", iss=iss, publisher=publisher, reason=reason, clients=count,
                client_id=excerpt(first.client_id), error=first.text or None, hint=REMEDIES[reason],
            )  # fmt: skip


def _format_note(omitted: Sequence[OmittedClient]) -> str:
    reasons = dict.fromkeys(client.reason for client in omitted)
    parts = "; ".join(_format_reason([client for client in omitted if client.reason is reason]) for reason in reasons)
    return f"the page leaves out {counted(len(omitted), 'client')} whose address does not count {parts}"


def _format_reason(clients: Sequence[OmittedClient]) -> str:
    first = clients[0]
    names = ", ".join(excerpt(client.client_id) for client in clients[:_MAX_NAMED_CLIENTS])
    more = f" and {len(clients) - _MAX_NAMED_CLIENTS:,} more" if len(clients) > _MAX_NAMED_CLIENTS else ""
    return f"({names}{more}): {f'it {first.text}; ' if first.text else ''}{REMEDIES[first.reason]}"

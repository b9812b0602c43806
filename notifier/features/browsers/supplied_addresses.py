"""Check supplied addresses: the `frontchannel_logout_uri` of clients in events and contexts instead of the registry.

A supplied address is used only for an unregistered client. The setting `registry.inline` decides which publishers'
events may supply addresses, as for back-channel logout. A context may supply addresses only if it is sealed by a key
that no other issuer has: the holder of a shared key could act for each issuer. Refused addresses are counted and
logged.
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

_MAX_NAMED_CLIENTS = 3  # for each reason in a note
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
"""The explanation and remedy for each reason to refuse an address."""


class SuppliedAddresses:
    """Checks the supplied addresses of contexts.

    `hosts_of` returns the hosts of an issuer. `has_exclusive_keys` returns whether no other issuer has its page keys.
    """

    def __init__(
        self,
        counts: FrontChannelCounts,
        registry: CurrentRegistry,
        hosts_of: Callable[[str], Collection[str]],
        has_exclusive_keys: Callable[[str], bool],
    ) -> None:
        self._counts = counts
        self._registry = registry
        self._hosts_of = hosts_of
        self._has_exclusive_keys = has_exclusive_keys
        self._log_limit = MinuteLimit()

    def check_context(self, context: FrontChannelContext, *, exclusive_key: bool, record: bool) -> FrontChannelContext:
        """Return a page's context without the clients whose address is refused.

        `exclusive_key`: no other issuer has the key that sealed the context. `record`: count and log refused addresses.
        """
        refusal = None if exclusive_key else AddressRefusal.SHARED_KEY
        checked, omitted = check_addresses(context, self._registry(), self._hosts_of(context.iss), refusal)
        if record:
            self._record_omitted(context.iss, omitted, None)
        return checked

    def check_event(self, context: FrontChannelContext, event: SessionEnded) -> tuple[FrontChannelContext, str | None]:
        """Return an event's context without the clients whose address is refused, and a note on these or None."""
        registry = self._registry()
        refusal = None if self._has_exclusive_keys(event.iss) else AddressRefusal.SHARED_KEY
        if not registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched):
            refusal = AddressRefusal.SPEAKER
        checked, omitted = check_addresses(context, registry, self._hosts_of(event.iss), refusal)
        self._record_omitted(event.iss, omitted, event.publisher)
        return checked, _format_note(omitted) if omitted else None

    def _record_omitted(self, iss: str, omitted: Sequence[OmittedClient], publisher: str | None) -> None:
        """Count the omitted clients by reason, and log the first of each reason at most once a minute."""
        for reason, count in Counter(client.reason for client in omitted).items():
            self._counts.on_clients_omitted(reason, count)
            if not self._log_limit.allows(iss, reason):
                continue
            self._log_limit.on_logged(iss, reason)
            first = next(client for client in omitted if client.reason is reason)
            structlog.get_logger().warning(
                "front_channel_left_out", iss=iss, publisher=publisher, reason=reason, clients=count,
                client_id=excerpt(first.client_id), error=first.text or None, hint=REMEDIES[reason],
            )  # fmt: skip


def _format_note(omitted: Sequence[OmittedClient]) -> str:
    by_reason: dict[AddressRefusal, list[OmittedClient]] = {}
    for client in omitted:
        by_reason.setdefault(client.reason, []).append(client)
    reasons = "; ".join(_format_reason(clients) for clients in by_reason.values())
    return f"the page leaves out {counted(len(omitted), 'client')} whose address does not count {reasons}"


def _format_reason(clients: Sequence[OmittedClient]) -> str:
    """Return the names of clients with the same reason, the first client's error, and the remedy."""
    first = clients[0]
    names = ", ".join(excerpt(client.client_id) for client in clients[:_MAX_NAMED_CLIENTS])
    if len(clients) > _MAX_NAMED_CLIENTS:
        names += f" and {len(clients) - _MAX_NAMED_CLIENTS:,} more"
    error = f"it {first.text}; " if first.text else ""
    return f"({names}): {error}{REMEDIES[first.reason]}"

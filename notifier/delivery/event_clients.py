"""Reads which clients an event names: entries, aliases and `"*"`, what distinguishes them, which overrides count.

Everything is lazy, so that an event of 5,000 clients takes no more memory at once than its message. A large event is
split into parts.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import get_args

from notifier.delivery.facts import IgnoredOverrides, Override
from notifier.model.client import Client
from notifier.model.delivery import ClientOverrides, DeliveryIds
from notifier.model.frozen import replace
from notifier.model.outcome import DeadReason
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import ClientEntry, Identity, SessionEnded

PART_CLIENTS = 100  # clients; an event with more is split, so that no message takes long
OVERRIDES: Sequence[Override] = get_args(Override)
NAMED_CLIENTS = 5  # whose members an `IgnoredOverrides` names


def publisher_objection(event: SessionEnded, issuer: Issuer) -> tuple[DeadReason, str] | None:
    """Return why the event is not for notifier, or its publisher may not publish for the issuer. None if it may.

    `claimed_publisher` does not count: anybody can write it.
    """
    if issuer.publishers is not None and event.publisher not in issuer.publishers:
        publisher = "an unnamed publisher" if event.publisher is None else f"publisher {event.publisher!a}"
        text = f"{publisher} may not speak for this issuer; issuers.<iss>.publishers lists who may"
        return DeadReason.PUBLISHER_NOT_ALLOWED, text
    if issuer.event_types is not None and event.type is not None and event.type not in issuer.event_types:
        text = f"CloudEvents type {event.type[:100]!a} is not among issuers.<iss>.event_types"
        return DeadReason.MALFORMED_EVENT, text
    return None


def ignored_overrides(event: SessionEnded, registry: Registry) -> IgnoredOverrides | None:
    """Return the overrides of registered clients that do not count. Unknown clients have deferrals and dead letters."""
    entries = [entry for entry in event.clients if isinstance(entry, ClientEntry)]
    if not entries or registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched):
        return None
    registered = registry.clients_of(event.iss)
    members_of: dict[str, list[Override]] = {}
    for entry in entries:
        if (client := registered.get(entry.client_id)) is not None:
            members = [name for name in OVERRIDES if getattr(entry, name) not in (None, _registered(client, name))]
            if members:
                members_of[entry.client_id] = members
    if not members_of:
        return None
    return IgnoredOverrides(
        iss=event.iss, event_id=event.id, publisher=event.publisher, clients=len(members_of),
        members=dict(islice(members_of.items(), NAMED_CLIENTS)), denied=registry.inline == "deny",
    )  # fmt: skip


def _registered(client: Client, name: Override) -> object:
    return client.token.alg if name == "id_token_signed_response_alg" else getattr(client, name)


def count_notices(event: SessionEnded, registry: Registry, steady: float) -> int:
    """Return the number of final notices: one for each delivery and each skipped client."""
    if event.clients == "*":
        return sum(1 for _ in _all_clients(event.iss, registry, steady))
    brings = may_override(event, registry, steady)

    def result_of(entry: str | ClientEntry) -> Identity | str:
        identity = event.identity_of(entry, brings=brings)
        return identity[0] if is_skipped(event, entry, registry, steady, brings=brings) else identity

    names = {entry for entry in event.clients if isinstance(entry, str)}  # 20,000 get no more than this
    entries = [entry for entry in event.clients if isinstance(entry, ClientEntry)]
    of_names = {result_of(entry.client_id) for entry in entries if entry.client_id in names}
    return len(names) + len({result_of(entry) for entry in entries} - of_names)


def by_client_id(event: SessionEnded, registry: Registry) -> SessionEnded:
    """Return the event with each client by its `client_id` where it names one by an alias of the registry."""
    aliases = registry.aliases.get(event.iss)
    if not aliases or event.clients == "*":
        return event
    registered = registry.clients_of(event.iss)

    def with_own_name(entry: str | ClientEntry) -> str | ClientEntry:
        name = name_of(entry)
        if name in registered or (client_id := aliases.get(name)) is None:
            return entry
        return client_id if isinstance(entry, str) else replace(entry, client_id=client_id)

    return replace(event, clients=tuple(map(with_own_name, event.clients)))


def digest_of(event: SessionEnded) -> str:
    """Return a digest that the parts of the event have in common, and share with no other event."""
    spoken_by = (event.publisher, event.source)
    return DeliveryIds(iss=event.iss, spoken_by=spoken_by, event_id=event.id).of("*", None, None)


def split(event: SessionEnded, registry: Registry, steady: float) -> Iterator[SessionEnded]:
    """Yield the event in parts of at most 100 named clients. Each client is in one part only.

    The clients of the registry replace `"*"`: all clients that have an address now or lost it less than
    `registry.grace` ago. If there are none, there is no part.
    """
    brings = may_override(event, registry, steady)
    entries = _all_clients(event.iss, registry, steady) if event.clients == "*" else _distinct(event, brings=brings)
    while part := tuple(islice(entries, PART_CLIENTS)):
        yield replace(event, clients=part)


def _all_clients(iss: str, registry: Registry, steady: float) -> Iterator[str]:
    """Yield the clients that `"*"` means."""
    for client in registry.clients_of(iss).values():
        if client.logout_uri is not None:
            yield client.client_id
    for client_id in registry.lost_at.get(iss, ()):
        if registry.has_just_lost(iss, client_id, steady):
            yield client_id


def _distinct(event: SessionEnded, *, brings: bool) -> Iterator[str | ClientEntry]:
    identities: set[Identity] = set()
    for entry in event.clients:
        if (identity := event.identity_of(entry, brings=brings)) not in identities:
            identities.add(identity)
            yield entry


def name_of(entry: str | ClientEntry) -> str:
    """Return the name of the client in an event."""
    return entry if isinstance(entry, str) else entry.client_id


def may_override(event: SessionEnded, registry: Registry, steady: float) -> bool:
    """Return True if the overrides of the event count, or did until lately."""
    accepted = registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched)
    return accepted or registry.has_just_narrowed(steady)


def is_skipped(
    event: SessionEnded, entry: str | ClientEntry, registry: Registry, steady: float, *, brings: bool
) -> bool:
    """Return True if neither the registry nor the event has an address, nor had the registry one until lately.

    `brings`: the address of the event counts, or did until lately.
    """
    client_id = name_of(entry)
    client = registry.clients_of(event.iss).get(client_id)
    if client is None:
        skipped = isinstance(entry, ClientEntry) and entry.no_address
    else:
        brought = entry.backchannel_logout_uri if brings and isinstance(entry, ClientEntry) else None
        skipped = client.logout_uri is None and brought is None
    return skipped and not registry.has_just_lost(event.iss, client_id, steady)


def ignored_inline(event: SessionEnded, entry: ClientEntry) -> ClientOverrides | None:
    """Return the overrides of the entry that do not count. The event vouches for them when they count later."""
    inline = entry.overrides
    return replace(inline, vouched=True) if inline is not None and event.vouched else inline

"""Determines the clients of an event for `intake`: entries, aliases, `"*"`, duplicates, followers, and overrides.

An *override* is a member of an entry that replaces one of the client's registration, such as its address. An event of
more than 100 clients is split into parts, lazily, so that it takes no more memory than its message.

A part names the followers of its clients or of those in other parts, and its reader adds none. So no address is lost if
the part's reader has other followers than its writer. All other events are stored as published.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar, get_args

from notifier.delivery.facts import IgnoredOverrides, Override, Skipped
from notifier.messages.replacements import Replacement, postpone_event
from notifier.model.client import Client
from notifier.model.delivery import ClientOverrides, Delivery, DeliveryIds
from notifier.model.documents.documents import EventDocument
from notifier.model.notice import SkipReason
from notifier.model.outcome import DeadReason
from notifier.model.record import copy_record
from notifier.model.registry import ENDLESS_SECONDS, Followers, Issuer, Registry
from notifier.model.session_ended import ClientEntry, Identity, SessionEnded

StepT = TypeVar("StepT")
PART_CLIENTS = 100  # an event with more clients is split, so that no message takes long
OVERRIDES: Sequence[Override] = get_args(Override)
NAMED_CLIENTS = 5  # the number of clients that an `IgnoredOverrides` names


def find_publisher_objection(event: SessionEnded, issuer: Issuer) -> tuple[DeadReason, str] | None:
    """Return the reason and text for rejecting the event, by its publisher or its CloudEvents type; None if accepted.

    `claimed_publisher` does not count, since any publisher can write any name there.
    """
    if issuer.publishers is not None and event.publisher not in issuer.publishers:
        publisher = "an unnamed publisher" if event.publisher is None else f"publisher {event.publisher!a}"
        text = f"{publisher} may not speak for this issuer; issuers.<iss>.publishers lists who may"
        return DeadReason.PUBLISHER_NOT_ALLOWED, text
    if issuer.event_types is not None and event.type is not None and event.type not in issuer.event_types:
        text = f"CloudEvents type {event.type[:100]!a} is not among issuers.<iss>.event_types"
        return DeadReason.MALFORMED_EVENT, text
    return None


def find_ignored_overrides(event: SessionEnded, registry: Registry) -> IgnoredOverrides | None:
    """Return the overrides of registered clients that do not count; None if there are none.

    The event's `email` is one of them at a client whose channel needs it: it counts from the same publishers. Unknown
    clients are omitted: their deferrals and dead letters report the ignored address.
    """
    entries = [entry for entry in event.clients if isinstance(entry, ClientEntry)]
    if not (entries or event.email) or registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched):
        return None
    registered = registry.clients_of(event.iss)
    members_of: dict[str, list[str]] = {}
    for entry in entries:
        if (client := registered.get(entry.client_id)) is None:
            continue
        differing = [name for name in OVERRIDES if getattr(entry, name) not in (None, _registered_value(client, name))]
        if differing:
            members_of[entry.client_id] = list(differing)
    for client_id in dict.fromkeys(map(name_of, event.clients if event.email else ())):
        client = registered.get(client_id)
        if client is not None and client.channel is not None and client.channel.needs_email:
            members_of.setdefault(client_id, []).append("email")
    if not members_of:
        return None
    return IgnoredOverrides(
        iss=event.iss, event_id=event.id, publisher=event.publisher, clients=len(members_of),
        members=dict(islice(members_of.items(), NAMED_CLIENTS)), denied=registry.inline == "deny",
    )  # fmt: skip


def _registered_value(client: Client, name: Override) -> object:
    return client.token.alg if name == "id_token_signed_response_alg" else getattr(client, name)


def count_notices(event: SessionEnded, registry: Registry, monotonic: float) -> int:
    """Return the number of final notices of an event: one for each delivery and each skipped client.

    Duplicate entries count once. `event` has its followers. `monotonic`: the present moment by the clock of
    `Registry.lost_at`.
    """
    if event.clients == "*":
        return sum(1 for _ in _all_clients(event.iss, registry, monotonic))
    use_overrides = may_use_overrides(event, registry, monotonic)

    def notice_key(entry: str | ClientEntry) -> Identity | str:
        identity = identify(event, entry, registry, use_overrides=use_overrides)
        skipped = find_skip(event, entry, registry, monotonic, use_overrides=use_overrides)
        return identity if skipped is None else identity[0]

    names = {entry for entry in event.clients if isinstance(entry, str)}  # without more work: there may be 20,000
    objects = [entry for entry in event.clients if isinstance(entry, ClientEntry)]
    keys_of_names = {notice_key(entry.client_id) for entry in objects if entry.client_id in names}
    return len(names) + len({notice_key(entry) for entry in objects} - keys_of_names)


def resolve_aliases(event: SessionEnded, registry: Registry, *, part: bool = False) -> SessionEnded:
    """Return the event with each alias of the registry replaced by the `client_id` of its client.

    In a part of an event, followers of such a client are added: its writer did not know the client.
    """
    aliases = registry.aliases.get(event.iss)
    if not aliases or event.clients == "*":
        return event
    registered, followers = registry.clients_of(event.iss), registry.followers.get(event.iss)
    entries: list[str | ClientEntry] = []
    for entry in event.clients:
        name = name_of(entry)
        client_id = None if name in registered else aliases.get(name)
        if client_id is None:
            entries.append(entry)
            continue
        resolved = client_id if isinstance(entry, str) else copy_record(entry, client_id=client_id)
        entries += _spread_to_followers([resolved], followers) if part and followers is not None else [resolved]
    return copy_record(event, clients=tuple(entries))


def add_followers(event: SessionEnded, registry: Registry) -> SessionEnded:
    """Return the event with an entry for each follower after the entry of its leader, and without equal entries.

    `"*"` is unchanged, since followers are clients.
    """
    followers = registry.followers.get(event.iss)
    if followers is None or event.clients == "*":
        return event
    return copy_record(event, clients=tuple(dict.fromkeys(_spread_to_followers(event.clients, followers))))


def _spread_to_followers(entries: Iterable[str | ClientEntry], followers: Followers) -> Iterator[str | ClientEntry]:
    """Yield the entries and those of their followers: with the `sub` and `sid` of the leader's, without its address."""
    for entry in entries:
        yield entry
        for follower in followers.of.get(name_of(entry), ()):
            if isinstance(entry, str):
                yield follower
            else:
                yield ClientEntry(client_id=follower, sub=entry.sub, sid=entry.sid)


def postpone_unread(
    document: EventDocument, steps: Iterator[StepT], registry: Registry, problem: str, now: float
) -> Iterator[StepT | Replacement]:
    """Yield the steps, but postpone clients without address as a part of the event, and skip none of them.

    `problem`: why the registry is incomplete. Once all of it is read, it may have the addresses of these clients.
    Unknown names are postponed too if clients have followers, since each may be an alias of such a client.
    """
    event, postponed = document.event, set[str]()
    followers = registry.followers.get(event.iss)
    for step in steps:
        if (isinstance(step, Skipped) and step.reason is SkipReason.NO_URI) or (
            isinstance(step, Delivery)
            and followers is not None
            and not (step.client_id in followers.of or step.client_id in followers.leaders)
            and registry.client_of(step) is None
        ):
            postponed.add(step.client_id)
        else:
            yield step
    if postponed:
        entries = tuple(entry for entry in event.clients if name_of(entry) in postponed)
        final_reason = DeadReason.UNKNOWN_CLIENT, f"{problem}; correct it, then replay"
        later = copy_record(document, event=copy_record(event, clients=entries), part=True)
        yield postpone_event(later, problem, final_reason, ENDLESS_SECONDS, now)


def digest_event(event: SessionEnded) -> str:
    """Return a digest that is the same for all parts of the event, and different for any other event."""
    sent_by = (event.publisher, event.source)
    return DeliveryIds(iss=event.iss, sent_by=sent_by, event_id=event.id).of("*", None, None)


def split_event(event: SessionEnded, registry: Registry, monotonic: float) -> Iterator[SessionEnded]:
    """Yield the event in parts of at most 100 named clients, without duplicates. No part if it has no clients.

    `"*"` is replaced by the clients of the registry that have an address, or lost it less than `registry.grace` ago.
    """
    entries: Iterator[str | ClientEntry]
    if event.clients == "*":
        entries = _all_clients(event.iss, registry, monotonic)
    else:
        entries = _distinct_entries(event, registry, use_overrides=may_use_overrides(event, registry, monotonic))
    while part := tuple(islice(entries, PART_CLIENTS)):
        yield copy_record(event, clients=part)


def _all_clients(iss: str, registry: Registry, monotonic: float) -> Iterator[str]:
    """Yield the ids of the clients that `"*"` stands for, with followers.

    A follower that is not among the clients of the registry is included, so that its delivery waits.
    """
    registered, followers = registry.clients_of(iss), registry.followers.get(iss)
    for client in registered.values():
        if client.logout_uri is not None:
            yield client.client_id
    waiting = [each for each in registry.lost_at.get(iss, ()) if registry.has_just_lost(iss, each, monotonic)]
    if followers is not None:
        waiting += [follower for follower in followers.leaders if follower not in registered]
    yield from dict.fromkeys(waiting)


def _distinct_entries(event: SessionEnded, registry: Registry, *, use_overrides: bool) -> Iterator[str | ClientEntry]:
    identities: set[Identity] = set()
    for entry in event.clients:
        if (identity := identify(event, entry, registry, use_overrides=use_overrides)) not in identities:
            identities.add(identity)
            yield entry


def identify(event: SessionEnded, entry: str | ClientEntry, registry: Registry, *, use_overrides: bool) -> Identity:
    """Return the identity of an entry, without overrides that change nothing of its client as registered now."""
    identity = event.identity_of(entry, use_overrides=use_overrides)
    return identity if identity[3] is None else omit_void_overrides(identity, registry.clients_of(event.iss))


def omit_void_overrides(identity: Identity, registered: Mapping[str, Client]) -> Identity:
    """Return the identity without overrides that repeat the registration, or that the client's channel ignores."""
    client_id, sub, sid, inline = identity
    client = registered.get(client_id)
    if inline is None or client is None:
        return identity
    is_void = client.channel is not None or all(
        getattr(inline, name) in (None, _registered_value(client, name)) for name in OVERRIDES
    )
    return (client_id, sub, sid, None) if is_void else identity


def name_of(entry: str | ClientEntry) -> str:
    """Return the `client_id` or alias of an entry."""
    return entry if isinstance(entry, str) else entry.client_id


def may_use_overrides(event: SessionEnded, registry: Registry, monotonic: float) -> bool:
    """Return True if the overrides of the event count, or counted less than `registry.grace` ago."""
    accepted = registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched)
    return accepted or registry.has_just_narrowed(monotonic)


def find_skip(
    event: SessionEnded, entry: str | ClientEntry, registry: Registry, monotonic: float, *, use_overrides: bool
) -> Skipped | None:
    """Return the fact that the client is skipped; None if it is notified.

    It has no address, neither in the registry, now or recently, nor in the event. Or one session ended, and its channel
    ends all sessions of a user. `use_overrides`: see `may_use_overrides`; without it an address in the event does not
    count.
    """
    client_id = name_of(entry)
    client = registry.clients_of(event.iss).get(client_id)
    reason = SkipReason.NO_URI
    if client is not None and client.channel is not None:
        sid = event.sid if isinstance(entry, str) or entry.sid is None else entry.sid
        skipped, reason = client.channel.ends_all and sid is not None, SkipReason.SESSION_ONLY
    elif client is None:
        skipped = isinstance(entry, ClientEntry) and entry.no_address
    else:
        inline_uri = entry.backchannel_logout_uri if use_overrides and isinstance(entry, ClientEntry) else None
        skipped = client.logout_uri is None and inline_uri is None
    if skipped and not registry.has_just_lost(event.iss, client_id, monotonic):
        return Skipped(iss=event.iss, client_id=client_id, event_id=event.id, reply_to=event.reply_to, reason=reason)
    return None


def to_ignored_overrides(event: SessionEnded, entry: ClientEntry) -> ClientOverrides | None:
    """Return the overrides of an entry, to be stored as ignored. They keep whether the event was vouched for."""
    inline = entry.overrides
    return copy_record(inline, vouched=True) if inline is not None and event.vouched else inline

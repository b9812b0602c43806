"""Plans an event: a delivery for each client, and the clients that are skipped. Splits a large event into smaller ones.

Everything is lazy, so that an event of 5,000 clients takes no more memory at once than its message.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, TypeAlias, get_args

from notifier.model.client import Client
from notifier.model.delivery import Delivery, DeliveryIds, Inline
from notifier.model.frozen import frozen, replace
from notifier.model.outcome import DeadReason
from notifier.model.registry import Issuer, Registry
from notifier.model.reply import ReplyTo
from notifier.model.session_ended import ClientEntry, SessionEnded

PART = 100  # clients; an event with more is split, so that no message takes long

Overriding: TypeAlias = Literal[
    "backchannel_logout_uri", "backchannel_logout_session_required", "id_token_signed_response_alg"
]
"""A member of an event's entry that overrides what is registered, if it counts."""
OVERRIDING: Sequence[Overriding] = get_args(Overriding)
NAMED = 5  # clients of whom an `Unheard` says which members

Identity: TypeAlias = tuple[str, str | None, str | None, Inline | None]


@frozen
class Skipped:
    """A client that is not notified: neither its registration nor the event has an address, nor had any of late."""

    iss: str
    client_id: str
    event_id: str
    reply_to: ReplyTo | None = None


@frozen
class Unheard:
    """Members of an event's entries that do not count (`registry.inline`): their clients are told as registered.

    `members` names them for the first few clients, by `client_id`; `clients` is the number of all such clients. A
    member that says what is registered anyway is not among them. `denied`: it would count from nobody.
    """

    iss: str
    event_id: str
    publisher: str | None
    clients: int
    members: Mapping[str, Sequence[Overriding]]
    denied: bool
    source: str | None = None


@frozen
class Objection:
    """Why nobody is told of an event."""

    reason: DeadReason
    text: str


def may_speak(event: SessionEnded, issuer: Issuer) -> Objection | None:
    """Check that the event is meant for us and that its publisher may publish for the issuer. None if so.

    `claimed_publisher` does not count: anybody can write it.
    """
    if issuer.publishers is not None and event.publisher not in issuer.publishers:
        publisher = "an unnamed publisher" if event.publisher is None else f"publisher {event.publisher!a}"
        return Objection(
            reason=DeadReason.PUBLISHER_NOT_ALLOWED,
            text=f"{publisher} may not speak for this issuer; issuers.<iss>.publishers lists who may",
        )
    if issuer.event_types is not None and event.type is not None and event.type not in issuer.event_types:
        return Objection(
            reason=DeadReason.MALFORMED_EVENT,
            text=f"CloudEvents type {event.type[:100]!a} is not among issuers.<iss>.event_types",
        )
    return None


def deliveries(event: SessionEnded, registry: Registry, steady: float) -> Iterator[Delivery | Skipped]:
    """Yield one delivery for each client, in the event's order. Wrong entries of a document are left to the caller.

    An unknown client gets its delivery too: the registry may know it by the time of the attempt. So does a client that
    lost its address less than `registry.grace` ago. `steady` is the moment by the clock of `Registry.lost_at`.
    """
    registered = registry.clients_of(event.iss)
    heard = registry.hears(event.iss, event.publisher, vouched=event.vouched)
    brings = heard or registry.has_just_narrowed(steady)
    ids = DeliveryIds(iss=event.iss, spoken_by=(event.publisher, event.source), event_id=event.id)
    for member in _members(event, registry, steady, brings=brings):
        if isinstance(member, str):
            entry = _NAME_ALONE
            identity: Identity = (member, event.sub, event.sid, None)
        else:
            entry, identity = member, _identity(event, member, brings=brings)
        client_id = identity[0]
        if (
            _is_skipped(registered.get(client_id), entry, brings=brings)
            and not registry.has_just_lost(event.iss, client_id, steady)
        ):  # fmt: skip
            yield Skipped(iss=event.iss, client_id=client_id, event_id=event.id, reply_to=event.reply_to)
        else:
            id_, ignored = ids.of(*identity), None
            if not heard and entry is not _NAME_ALONE:
                identity, ignored = (*identity[:3], None), _ignored(event, entry)
            yield _delivery(event, id_, identity, entry, ignored)


def unheard(event: SessionEnded, registry: Registry) -> Unheard | None:
    """Return what the event says of registered clients in vain. Unknown ones have their deferrals and dead letters."""
    entries = [entry for entry in event.clients if isinstance(entry, ClientEntry)]
    if not entries or _is_heard(event, registry):
        return None
    registered = registry.clients_of(event.iss)
    members_of: dict[str, list[Overriding]] = {}
    for entry in entries:
        if (client := registered.get(entry.client_id)) is not None:
            members = [name for name in OVERRIDING if getattr(entry, name) not in (None, _registered(client, name))]
            if members:
                members_of[entry.client_id] = members
    if not members_of:
        return None
    return Unheard(
        iss=event.iss, event_id=event.id, publisher=event.publisher, clients=len(members_of),
        members=dict(islice(members_of.items(), NAMED)), denied=registry.inline == "deny",
    )  # fmt: skip


def _registered(client: Client, name: Overriding) -> object:
    return client.token.alg if name == "id_token_signed_response_alg" else getattr(client, name)


def fates_of(event: SessionEnded, registry: Registry, steady: float) -> int:
    """The number of fates to report: one for each delivery and each skipped client."""
    if event.clients == "*":
        return sum(1 for _ in _all_clients(event.iss, registry, steady))
    registered = registry.clients_of(event.iss)
    brings = _is_heard(event, registry) or registry.has_just_narrowed(steady)

    def fate_of(entry: ClientEntry) -> tuple[str, str] | Identity:
        skipped = _is_skipped(registered.get(entry.client_id), entry, brings=brings) and not registry.has_just_lost(
            event.iss, entry.client_id, steady
        )
        return (entry.client_id, "skipped") if skipped else _identity(event, entry, brings=brings)

    names = {entry for entry in event.clients if isinstance(entry, str)}
    fates: set[tuple[str, str] | Identity] = set()
    for entry in event.clients:
        if isinstance(entry, ClientEntry):
            fate = fate_of(entry)
            if entry.client_id not in names or fate != fate_of(ClientEntry(client_id=entry.client_id)):
                fates.add(fate)
    return len(names) + len(fates)  # 20,000 names get no more than this, which would hold the loop


def by_client_id(event: SessionEnded, registry: Registry) -> SessionEnded:
    """The event with each client by its `client_id`, where it names one by an alias that the registry knows."""
    aliases = registry.aliases.get(event.iss)
    if not aliases or event.clients == "*":
        return event
    registered = registry.clients_of(event.iss)
    clients: list[str | ClientEntry] = []
    for entry in event.clients:
        name = entry if isinstance(entry, str) else entry.client_id
        client_id = None if name in registered else aliases.get(name)
        if client_id is None:
            clients.append(entry)
        else:
            clients.append(client_id if isinstance(entry, str) else replace(entry, client_id=client_id))
    return replace(event, clients=tuple(clients))


def needs_split(event: SessionEnded) -> bool:
    """True if the event must be published again in parts: it has more than 100 clients, or `"*"`."""
    return event.clients == "*" or len(event.clients) > PART


def digest_of(event: SessionEnded) -> str:
    """Return what the parts of the event have in common, and share with no other event."""
    spoken_by = (event.publisher, event.source)
    return DeliveryIds(iss=event.iss, spoken_by=spoken_by, event_id=event.id).of("*", None, None)


def split(event: SessionEnded, registry: Registry, steady: float) -> Iterator[SessionEnded]:
    """Yield the event in parts of at most 100 named clients. Each client is in one part only.

    The clients of the registry replace `"*"`: those that have an address now, and those that lost theirs less than
    `registry.grace` ago. If there are none, there is no part.
    """
    part: list[str | ClientEntry] = []
    brings = _is_heard(event, registry) or registry.has_just_narrowed(steady)
    for entry in _members(event, registry, steady, brings=brings):
        part.append(entry)
        if len(part) == PART:
            yield replace(event, clients=tuple(part))
            part = []
    if part:
        yield replace(event, clients=tuple(part))


def _all_clients(iss: str, registry: Registry, steady: float) -> Iterator[str]:
    """Yield the clients that `"*"` means."""
    for client in registry.clients_of(iss).values():
        if client.told_at is not None:
            yield client.client_id
    for client_id in registry.lost_at.get(iss, ()):
        if registry.has_just_lost(iss, client_id, steady):
            yield client_id


def _members(event: SessionEnded, registry: Registry, steady: float, *, brings: bool) -> Iterator[str | ClientEntry]:
    """The event's entries, without those that would make the same delivery twice."""
    if event.clients == "*":
        yield from _all_clients(event.iss, registry, steady)
        return
    if len(event.clients) == 1:
        yield event.clients[0]
        return
    identities: set[Identity] = set()
    for entry in event.clients:
        identity = (
            (entry, event.sub, event.sid, None) if isinstance(entry, str) else _identity(event, entry, brings=brings)
        )
        if identity not in identities:
            identities.add(identity)
            yield entry


def _is_heard(event: SessionEnded, registry: Registry) -> bool:
    """Whether what the event says of its clients counts."""
    return registry.hears(event.iss, event.publisher, vouched=event.vouched)


def _is_skipped(client: Client | None, entry: ClientEntry, *, brings: bool) -> bool:
    """Return True if neither the registry nor the event has an address. `brings`: that of the event counts, or did."""
    if client is None:
        return entry.no_address
    if client.told_at is not None:
        return False
    return entry.backchannel_logout_uri is None or not brings


def _identity(event: SessionEnded, entry: ClientEntry, *, brings: bool) -> Identity:
    """What distinguishes the delivery of this entry from the others of the event, and its id from theirs.

    Every member of the entry counts, not only its URI. If two entries differ, notifier cannot choose between them, and
    to tell a client twice does no harm. What does not count distinguishes nothing, unless it did of late (`brings`).
    """
    sub = event.sub if entry.sub is None else entry.sub
    sid = event.sid if entry.sid is None else entry.sid
    return (entry.client_id, sub, sid, _inline(entry) if brings else None)


def _inline(entry: ClientEntry) -> Inline | None:
    if (
        entry.backchannel_logout_uri is None
        and entry.backchannel_logout_session_required is None
        and entry.id_token_signed_response_alg is None
    ):
        return None
    return Inline(
        backchannel_logout_uri=entry.backchannel_logout_uri,
        backchannel_logout_session_required=entry.backchannel_logout_session_required,
        id_token_signed_response_alg=entry.id_token_signed_response_alg,
    )


def _ignored(event: SessionEnded, entry: ClientEntry) -> Inline | None:
    """What the entry says in vain. Once it counts, it does so by the event's word, too."""
    inline = _inline(entry)
    return replace(inline, vouched=True) if inline is not None and event.vouched else inline


_NAME_ALONE = ClientEntry(client_id="")  # the members of an entry that has a name only


def _delivery(
    event: SessionEnded, id_: str, identity: Identity, entry: ClientEntry, ignored: Inline | None
) -> Delivery:
    client_id, sub, sid, inline = identity
    return Delivery(
        id=id_,
        event_id=event.id,
        id_given=event.id_given,
        iss=event.iss,
        client_id=client_id,
        sub=sub,
        sid=sid,
        entry_sub=entry.sub is not None,
        inline=inline,
        ignored=ignored,
        ended_at=event.ended_at,
        not_after=event.not_after,
        reason=event.reason,
        source=event.source,
        publisher=event.publisher,
        claimed_publisher=event.claimed_publisher,
        trace=event.trace,
        reply_to=event.reply_to,
    )

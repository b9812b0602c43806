"""What an event becomes: one delivery a client, and those that are skipped; or, where it is large, smaller events.

Everything is lazy, so that an event of 5,000 clients costs no more memory at once than its message does.
"""

from collections.abc import Iterator
from typing import TypeAlias

from notifier.domain.client import Client
from notifier.domain.delivery import Delivery, Inline, delivery_id
from notifier.domain.frozen import frozen, replace
from notifier.domain.outcome import DeadReason
from notifier.domain.registry import Issuer, Registry
from notifier.domain.reply import ReplyTo
from notifier.domain.session_ended import ClientEntry, SessionEnded, WrongEntry

PART = 100  # clients; an event of more is split, so that no message is long in the making

Identity: TypeAlias = tuple[str, str | None, str | None, Inline | None]


@frozen
class Skipped:
    """A registered client that has no `backchannel_logout_uri`, and the event gives none: it need not be told."""

    iss: str
    client_id: str
    event_id: str
    reply_to: ReplyTo | None = None


@frozen
class Objection:
    """Why an event is not served at all."""

    reason: DeadReason
    text: str


def may_speak(event: SessionEnded, issuer: Issuer) -> Objection | None:
    """Whether this event is meant for us and its publisher may speak for the issuer; None where all is well.

    `claimed_publisher` counts for nothing: anyone may write it.
    """
    if issuer.publishers is not None and event.publisher not in issuer.publishers:
        who = "an unnamed publisher" if event.publisher is None else f"publisher {event.publisher!a}"
        return Objection(
            reason=DeadReason.PUBLISHER_NOT_ALLOWED,
            text=f"{who} may not speak for this issuer; issuers.<iss>.publishers lists who may",
        )
    if issuer.event_types is not None and event.type is not None and event.type not in issuer.event_types:
        return Objection(
            reason=DeadReason.MALFORMED_EVENT,
            text=f"CloudEvents type {event.type[:100]!a} is not among issuers.<iss>.event_types",
        )
    return None


def deliveries(event: SessionEnded, registry: Registry) -> Iterator[Delivery | Skipped]:
    """One delivery a client, each once, in the event's order; wrong entries of a document are left to the caller.

    A client that nobody knows gets its delivery too: whether it is still unknown shows at the attempt.
    """
    registered = registry.clients_of(event.iss)
    for each in _members(event, registry):
        entry = ClientEntry(client_id=each) if isinstance(each, str) else each
        client = registered.get(entry.client_id)
        if _is_skipped(client, entry, registry):
            yield Skipped(iss=event.iss, client_id=entry.client_id, event_id=event.id, reply_to=event.reply_to)
        else:
            yield _delivery(event, entry, registry)


def fates_of(event: SessionEnded, registry: Registry) -> int:
    """How many fates there will be to tell: one a delivery and one a skipped client."""
    registered = registry.clients_of(event.iss)
    if event.clients == "*":
        return sum(client.backchannel_logout_uri is not None for client in registered.values())
    names = {entry for entry in event.clients if isinstance(entry, str)}
    fates: set[tuple[str, str] | Identity] = set()
    for entry in event.clients:
        if isinstance(entry, ClientEntry):
            client = registered.get(entry.client_id)
            fate = _fate(event, entry, client, registry)
            alone = ClientEntry(client_id=entry.client_id)
            if entry.client_id not in names or fate != _fate(event, alone, client, registry):
                fates.add(fate)
    return len(names) + len(fates)  # of 20,000 names no more is made than this: it would hold the loop


def _fate(
    event: SessionEnded, entry: ClientEntry, client: Client | None, registry: Registry
) -> tuple[str, str] | Identity:
    """What tells one fate from another."""
    return (entry.client_id, "skipped") if _is_skipped(client, entry, registry) else _identity(event, entry, registry)


def wrong_entries(event: SessionEnded) -> tuple[WrongEntry, ...]:
    """Those of a document that an earlier release wrote."""
    if event.clients == "*":
        return ()
    return tuple(entry for entry in event.clients if isinstance(entry, WrongEntry))


def needs_split(event: SessionEnded) -> bool:
    """Whether the event is to be published again in parts: it has more than 100 clients, or all of them."""
    return event.clients == "*" or len(event.clients) > PART


def split(event: SessionEnded, registry: Registry) -> Iterator[SessionEnded]:
    """The same event in parts of at most 100 named clients, each client in one of them alone.

    `"*"` is spelled out by the registry as it stands now; where that knows nobody there is no part.
    """
    part: list[str | ClientEntry] = []
    for entry in _members(event, registry):
        part.append(entry)
        if len(part) == PART:
            yield replace(event, clients=tuple(part))
            part = []
    if part:
        yield replace(event, clients=tuple(part))


def _members(event: SessionEnded, registry: Registry) -> Iterator[str | ClientEntry]:
    """The event's entries: each that makes a delivery of its own once."""
    if event.clients == "*":
        for client in registry.clients_of(event.iss).values():
            if client.backchannel_logout_uri is not None:
                yield client.client_id
        return
    if len(event.clients) == 1 and not isinstance(event.clients[0], WrongEntry):
        yield event.clients[0]
        return
    seen: set[Identity] = set()
    for entry in event.clients:
        if isinstance(entry, WrongEntry):
            continue
        identity = (entry, event.sub, event.sid, None) if isinstance(entry, str) else _identity(event, entry, registry)
        if identity not in seen:
            seen.add(identity)
            yield entry


def _is_skipped(client: Client | None, entry: ClientEntry, registry: Registry) -> bool:
    if client is None or client.backchannel_logout_uri is not None:
        return False
    return entry.backchannel_logout_uri is None or not registry.inline_allowed


def _identity(event: SessionEnded, entry: ClientEntry, registry: Registry) -> Identity:
    """What tells its delivery from the others of the event, and its id from theirs.

    All that the entry says of the client counts, not its URI alone: of two that say something different it is not for
    us to choose one, and to tell a client twice does no harm. Where `registry.inline` is `deny`, nothing of it counts.
    """
    return (entry.client_id, *_whom(event, entry), _inline(entry) if registry.inline_allowed else None)


def _whom(event: SessionEnded, entry: ClientEntry) -> tuple[str | None, str | None]:
    """`sub` and `sid` of one client's delivery: the entry's own before the event's."""
    return (
        event.sub if entry.sub is None else entry.sub,
        event.sid if entry.sid is None else entry.sid,
    )


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


def _delivery(event: SessionEnded, entry: ClientEntry, registry: Registry) -> Delivery:
    client_id, sub, sid, counts = _identity(event, entry, registry)
    identity = delivery_id(
        iss=event.iss,
        spoken_by=(event.publisher, event.source),
        event_id=event.id,
        client_id=client_id,
        sub=sub,
        sid=sid,
        inline=counts,
    )
    return Delivery(
        id=identity,
        event_id=event.id,
        id_given=event.id_given,
        iss=event.iss,
        client_id=client_id,
        sub=sub,
        sid=sid,
        entry_sub=entry.sub is not None,
        inline=_inline(entry),
        ended_at=event.ended_at,
        not_after=event.not_after,
        reason=event.reason,
        source=event.source,
        publisher=event.publisher,
        claimed_publisher=event.claimed_publisher,
        trace=event.trace,
        reply_to=event.reply_to,
    )

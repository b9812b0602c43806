"""Reads a message when its turn comes and plans what it requests: the deliveries of an event, one for each client.

A message becomes an `Expand`: deliveries that are made one by one as there is room. Or it becomes a `Move`: messages
that must be durable elsewhere before the message is acked (see `replacements`). At the first reading the wrong entries
of an event become one dead letter, made from the message as it came. The event is then written with its good entries
only. Nothing here waits; the worker acts.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TypeAlias, assert_never

from notifier.delivery import event_clients, replacements
from notifier.delivery.event_clients import PART_CLIENTS
from notifier.delivery.facts import IgnoredOverrides, Skipped
from notifier.delivery.ports import SourceReader
from notifier.delivery.replacements import TRIAL_DELAY_SECONDS, Move, Send, send_dead_letter
from notifier.model.delivery import Delivery, DeliveryIds
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.event_document import parse_event
from notifier.model.documents.sourced import ONLY_HEADER, reader_name_of, to_kept, to_received
from notifier.model.errors import InputIssue, MalformedEvent, UnknownSource, UnknownVersion
from notifier.model.frozen import frozen, replace
from notifier.model.message import MIN_SUSPECT_CRASHES, PART_OF_HEADER, Kind, Lane, Message, NewerKind
from notifier.model.moment import Clock
from notifier.model.outcome import DeadReason
from notifier.model.printable import excerpt
from notifier.model.registry import ENDLESS_SECONDS, CurrentRegistry, Registry
from notifier.model.session_ended import ClientEntry, Identity, SessionEnded

_UNROUTED = (
    "written past all exchanges into the queue of source {source}, so no permission of the broker speaks for who wrote "
    "it; publish to an exchange that the source binds"
)

Step: TypeAlias = Delivery | Skipped | IgnoredOverrides | Move


@frozen
class Expand:
    """Steps to take in order, as there is room. `event` is None for a message of a single delivery.

    `source` is the name of the source that the message came from.
    """

    steps: Iterator[Step]
    event: SessionEnded | None
    source: str | None = None


class Intake:
    """Reads messages. `max_event`: bytes. `new_id` makes ids for events without one. `readers` are by name.

    `steady`: the clock of `Registry.lost_at`.
    """

    def __init__(
        self,
        registry: CurrentRegistry,
        *,
        clock: Clock,
        steady: Clock,
        new_id: Callable[[], str],
        max_event: int,
        readers: Mapping[str, SourceReader] = MappingProxyType({}),
    ) -> None:
        self._registry = registry
        self._readers = readers
        self._clock = clock
        self._steady = steady
        self._new_id = new_id
        self._max_event = max_event

    def open(self, message: Message) -> Expand | Move:
        """Return what the message requests. Never raises: an unreadable message becomes a dead letter."""
        only, taken = None, message
        try:
            message, only = self._split_positions(message)
            return self._open(message, only)
        except UnknownSource as unknown:
            grace, now = self._registry().grace, self._clock()
            return replacements.postpone_unknown_source(message, only, taken, unknown, grace, self._new_id(), now)
        except MalformedEvent as malformed:
            return replacements.reject_unreadable(message, malformed.mistakes, malformed.data, only, self._clock())
        except UnknownVersion as newer:
            return replacements.postpone_newer(message, newer, self._clock())
        except Exception as error:  # noqa: BLE001  around one message: whatever a parser does, the worker goes on
            return self._reject_broken(message, error, only)

    def step(self, message: Message, steps: Iterator[Step]) -> Step | None:
        """Return the next step of the message, None after the last. Never raises."""
        try:
            return next(steps, None)
        except Exception as error:  # noqa: BLE001  as above; a generator that raised gives nothing more
            came, only = self._split_positions(message)
            return self._reject_broken(came, error, only)

    def _reject_broken(self, message: Message, error: Exception, only: str | None) -> Move:
        mistake = InputIssue("", f"reading it failed with {type(error).__name__}")
        return replacements.reject_unreadable(message, (mistake,), None, only, self._clock())

    def _split_positions(self, message: Message) -> tuple[Message, str | None]:
        if message.source is None and message.kind is not Kind.SOURCED:
            return message, None
        only = None
        if message.kind is Kind.SOURCED:
            named = message.headers.get(ONLY_HEADER)
            only = named if isinstance(named, str) else None
            message = to_received(message)
        reader = self._readers.get(reader_name_of(message.source))
        return to_kept(message) if reader is None else reader.received(message), only

    def _open(self, message: Message, only: str | None) -> Expand | Move:
        now = self._clock()
        if message.unrouted:
            raise MalformedEvent((InputIssue("", _UNROUTED.format(source=message.source)),))
        if message.at_delivery_limit and (last := replacements.reject_crashing(message, only, now)) is not None:
            return last
        match message.kind:
            case None if message.source is not None:
                return self._open_source_message(message, only, now)
            case None:
                understood = parse_event(message, max_bytes=self._max_event, new_id=self._new_id, now=now)
                letter = None
                if understood.wrong is not None:
                    letter = dead_letter.dead_letter_entries(message, understood.event, understood.wrong, now)
                return self._open_event(message, documents.EventDocument(event=understood.event), letter, now)
            case Kind.EVENT:
                return self._open_event(message, documents.load_event(message.body), None, now)
            case Kind.DELIVERY if message.delivery_count and message.suspect:
                return replacements.write_trial(message.body, message.message_id or "", message.crashes, now)
            case Kind.DELIVERY:
                return Expand(steps=iter((_end_wait(documents.load_delivery(message.body), now),)), event=None)
            case Kind.SOURCED:
                raise AssertionError("it was made one of its source")
            case Kind.DEAD_LETTER | Kind.UNREADABLE:
                raise MalformedEvent((InputIssue("", "a dead letter is replayed by `notifier dead-letters replay`"),))
            case NewerKind():
                raise UnknownVersion(f"a message of type {excerpt(message.kind)}, which this release does not know")
            case _:
                assert_never(message.kind)

    def _open_source_message(self, message: Message, only: str | None, now: float) -> Expand | Move:
        """Read a message of a source through its reader. `only`: positions of the events to read, None for all."""
        reader = self._readers.get(reader_name_of(message.source))
        if reader is None:
            raise UnknownSource((InputIssue("", f"nothing here reads messages of the source {message.source}"),))
        opened = reader.open(message, only, now, now + TRIAL_DELAY_SECONDS if message.suspect else None)
        if isinstance(opened, Move):
            return opened
        work = self._open_event(message, documents.EventDocument(event=opened.event), opened.dead_letter, now)
        if isinstance(work, Expand) or work.fact is None:
            return work
        return replace(work, fact=replace(work.fact, source=message.source))

    def _open_event(
        self, message: Message, document: documents.EventDocument, letter: DeadLetter | None, now: float
    ) -> Expand | Move:
        """Open an event. `letter` has its wrong entries, and is made durable before anything else."""
        if message.lane is Lane.BULK:
            document = replace(document, bulk=True)
        event, registry = document.event, self._registry()
        if event.iss in registry.issuers and event.reply_to is not None and event.reply_to.of is None:
            of = event_clients.count_notices(event, registry, self._steady()) + (letter is not None)
            event = replace(event, reply_to=replace(event.reply_to, of=of))  # so that the publisher knows the last one
            document = replace(document, event=event)
        work = self._open_good_entries(message, document, registry, now)
        if letter is None:
            return work
        entries_letter = (send_dead_letter(letter, event.reply_to),)
        if isinstance(work, Expand):
            return replace(work, steps=chain((Move(sends=entries_letter),), work.steps))
        return replace(work, sends=chain(entries_letter, work.sends))

    def _open_good_entries(
        self, message: Message, document: documents.EventDocument, registry: Registry, now: float
    ) -> Expand | Move:
        event = document.event
        issuer = registry.issuers.get(event.iss)
        if issuer is None:
            dead_reason = DeadReason.UNKNOWN_ISSUER, f"{event.iss} is not one of `issuers`; add it, then replay"
            return replacements.postpone_event(document, "not one of `issuers` (yet)", dead_reason, registry.grace, now)
        if event.clients == "*" and (why := registry.incomplete.get(event.iss)) is not None:
            dead_reason = DeadReason.UNKNOWN_CLIENT, f"{why}; correct it, or set empty: true there, then replay"
            return replacements.postpone_event(document, why, dead_reason, registry.grace, now)
        if registry.aliases:
            event = event_clients.by_client_id(event, registry)
            document = replace(document, event=event)
        restricted = issuer.publishers is not None or issuer.event_types is not None
        if restricted and (objection := event_clients.publisher_objection(event, issuer)) is not None:
            return replacements.reject_event(event, *objection, now)
        if event.clients == "*" or len(event.clients) > PART_CLIENTS:
            due = now + TRIAL_DELAY_SECONDS if message.suspect else None
            return Move(sends=self._parts(document, registry, due), fact=replacements.to_event_taken(event, "split"))
        steps: Iterator[Step]
        if message.delivery_count and message.suspect:
            steps = _write_trials(event, registry, self._steady(), message.crashes, now)
        elif message.delivery_count >= MIN_SUSPECT_CRASHES and not event.id_given:
            return replacements.rewrite_with_id(event, bulk=document.bulk)
        else:
            steps = deliveries(event, registry, self._steady())
        if registry.grace == ENDLESS_SECONDS and (why := registry.incomplete.get(event.iss)) is not None:
            steps = _defer_skipped(document, steps, why, now)
        if ClientEntry in map(type, event.clients) and (ignored := event_clients.ignored_overrides(event, registry)):
            steps = chain((replace(ignored, source=message.source),), steps)
        return Expand(steps=steps, event=event, source=message.source)

    def _parts(self, document: documents.EventDocument, registry: Registry, due: float | None) -> Iterator[Send]:
        """Write the parts as messages with separate ids: with one id they would be confirmed one by one."""
        event, lane = document.event, Lane.BULK if document.bulk else Lane.EVENTS
        headers = {PART_OF_HEADER: event_clients.digest_of(event)}
        for part in event_clients.split(replace(event, id_given=True, unread=()), registry, self._steady()):
            message = replacements.event_message(part, bulk=document.bulk)
            yield Send(queue=lane, due=due, message=replace(message, message_id=self._new_id(), headers=headers))


def deliveries(event: SessionEnded, registry: Registry, steady: float) -> Iterator[Delivery | Skipped]:
    """Yield one delivery for each named client, in the event's order. An event for `"*"` is split before.

    An unknown client has its delivery too: the registry may contain it by the time of the attempt. So does a client
    that lost its address less than `registry.grace` ago. `steady` is the moment by the clock of `Registry.lost_at`.
    """
    registered = registry.clients_of(event.iss)
    trusted = registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched)
    brings = trusted or registry.has_just_narrowed(steady)
    ids = DeliveryIds(iss=event.iss, spoken_by=(event.publisher, event.source), event_id=event.id)
    identities: set[Identity] = set()
    for entry in event.clients:
        if (identity := event.identity_of(entry, brings=brings)) in identities:
            continue
        identities.add(identity)
        client_id, sub, sid, inline = identity
        client = registered.get(client_id)
        has_address = client is not None and client.logout_uri is not None
        if not has_address and event_clients.is_skipped(event, entry, registry, steady, brings=brings):
            yield Skipped(iss=event.iss, client_id=client_id, event_id=event.id, reply_to=event.reply_to)
            continue
        yield Delivery(
            id=ids.of(client_id, sub, sid, inline), event_id=event.id, id_given=event.id_given, iss=event.iss,
            client_id=client_id, sub=sub, sid=sid, entry_sub=isinstance(entry, ClientEntry) and entry.sub is not None,
            inline=inline if trusted else None,
            ignored=None if trusted or isinstance(entry, str) else event_clients.ignored_inline(event, entry),
            ended_at=event.ended_at, not_after=event.not_after, reason=event.reason, source=event.source,
            publisher=event.publisher, claimed_publisher=event.claimed_publisher,
            trace=event.trace, reply_to=event.reply_to,
        )  # fmt: skip


def _write_trials(event: SessionEnded, registry: Registry, steady: float, crashes: int, now: float) -> Iterator[Step]:
    """Write the event as trials, one for each delivery, so that a crash is counted for the delivery that ran."""
    for step in deliveries(replace(event, id_given=True), registry, steady):
        if isinstance(step, Delivery):
            yield replacements.write_trial(documents.dump_delivery(step), step.id, crashes, now)
        else:
            yield step


def _defer_skipped(document: documents.EventDocument, steps: Iterator[Step], why: str, now: float) -> Iterator[Step]:
    """Defer the clients to be skipped as a separate event: the source to be read may have their address."""
    event, skipped = document.event, set[str]()
    for step in steps:
        if isinstance(step, Skipped):
            skipped.add(step.client_id)
        else:
            yield step
    if skipped:
        left = tuple(entry for entry in event.clients if event_clients.name_of(entry) in skipped)
        dead_reason = DeadReason.UNKNOWN_CLIENT, f"{why}; correct it, then replay"
        later = replace(document, event=replace(event, clients=left))
        yield replacements.postpone_event(later, why, dead_reason, ENDLESS_SECONDS, now)


def _end_wait(delivery: Delivery, now: float) -> Delivery:
    """Return the delivery with its wait recorded. A future `charged_at` is dropped: the clock was set back."""
    charged_at = delivery.charged_at
    return replace(
        delivery,
        waits=delivery.waits.end_wait(now, parked=delivery.parked),
        charged_at=None if charged_at is None or charged_at > now else charged_at,
    )

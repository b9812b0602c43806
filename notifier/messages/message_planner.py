"""Reads a message and plans its deliveries, one for each client of an event. Nothing here waits; the worker acts.

The plan is `DeliverySteps`: deliveries, which are made one by one as there is room. Or it is a `Replacement`: messages
that must be durable before the message is acked (see `replacements`). The invalid entries of an event become one dead
letter at the first reading; if the event is written again, it has its valid entries only.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TypeAlias, assert_never

from notifier.delivery.facts import IgnoredOverrides, Observer, Skipped
from notifier.delivery.settlement import OutgoingMessage, to_dead_letter_message
from notifier.messages import event_clients, replacements
from notifier.messages.event_clients import PART_CLIENTS
from notifier.messages.replacements import TRIAL_DELAY_SECONDS, Replacement, SourceReader
from notifier.model.delivery import Delivery, DeliveryIds
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.event_document import parse_event
from notifier.model.documents.sourced import ONLY_HEADER, reader_name_of, to_kept, to_received
from notifier.model.errors import InputIssue, MalformedEvent, UnknownSource, UnknownVersion, describe_error
from notifier.model.message import MIN_SUSPECT_CRASHES, PART_OF_HEADER, Kind, Lane, Message, NewerKind
from notifier.model.moment import Clock
from notifier.model.outcome import DeadReason
from notifier.model.printable import excerpt
from notifier.model.progress import NO_PROGRESS
from notifier.model.record import copy_record, record
from notifier.model.registry import ENDLESS_SECONDS, CurrentRegistry, Registry
from notifier.model.session_ended import ClientEntry, Identity, SessionEnded

_UNROUTED = (
    "written past all exchanges into the queue of source {source}, so no permission of the broker speaks for who wrote "
    "it; publish to an exchange that the source binds"
)

Step: TypeAlias = Delivery | Skipped | IgnoredOverrides | Replacement


@record
class DeliverySteps:
    """The steps of a message, to be taken in order as there is room.

    `event` is None for a message of a single delivery. `source` names the source that the message came from.
    """

    steps: Iterator[Step]
    event: SessionEnded | None
    source: str | None = None


class MessagePlanner:
    """Plans the deliveries of messages.

    `max_event` is in bytes. `new_id` generates ids for events without one. `monotonic`: the clock of
    `Registry.lost_at`.
    """

    def __init__(
        self,
        registry: CurrentRegistry,
        *,
        clock: Clock,
        monotonic: Clock,
        new_id: Callable[[], str],
        max_event: int,
        readers: Mapping[str, SourceReader] = MappingProxyType({}),
        observe: Observer = lambda _: None,
    ) -> None:
        self._registry = registry
        self._readers = readers
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._max_event = max_event
        self._observe = observe

    def plan(self, message: Message) -> DeliverySteps | Replacement:
        """Return the steps of the message, or the messages that replace it. Never raises.

        An unreadable message becomes a dead letter. A message that another worker may be able to read is postponed.
        """
        positions, received = None, message
        try:
            message, positions = self._split_positions(message)
            return self._plan(message, positions)
        except UnknownSource as error:
            grace, now = self._registry().grace, self._clock()
            return replacements.postpone_unknown_source(message, positions, received, error, grace, self._new_id(), now)
        except MalformedEvent as error:
            return replacements.reject_unreadable(message, error.mistakes, error.data, positions, self._clock())
        except UnknownVersion as error:
            return replacements.postpone_newer(message, error, self._clock())
        except Exception as error:  # noqa: BLE001  around one message: whatever a parser does, the worker goes on
            return self._reject_broken(message, error, positions)

    def next_step(self, message: Message, steps: Iterator[Step]) -> Step | None:
        """Return the next step of the message; None after the last. Never raises: an error becomes a dead letter."""
        try:
            return next(steps, None)
        except Exception as error:  # noqa: BLE001  as in `plan`; a generator that raised yields no more steps
            original, positions = self._split_positions(message)
            return self._reject_broken(original, error, positions)

    def _reject_broken(self, message: Message, error: Exception, positions: str | None) -> Replacement:
        mistake = InputIssue("", f"reading it failed: {describe_error(error)}")
        return replacements.reject_unreadable(message, (mistake,), None, positions, self._clock())

    def _split_positions(self, message: Message) -> tuple[Message, str | None]:
        """Return a source's message as received, without secrets, and which of its events to read (None: all)."""
        if message.source is None and message.kind is not Kind.SOURCED:
            return message, None
        positions = None
        if message.kind is Kind.SOURCED:
            named = message.headers.get(ONLY_HEADER)
            positions = named if isinstance(named, str) else None
            message = to_received(message)
        reader = self._readers.get(reader_name_of(message.source))
        return to_kept(message) if reader is None else reader.without_secrets(message), positions

    def _plan(self, message: Message, positions: str | None) -> DeliverySteps | Replacement:
        """Return the plan by the kind of the message. Raises MalformedEvent, UnknownSource or UnknownVersion."""
        now = self._clock()
        if message.unrouted:
            raise MalformedEvent((InputIssue("", _UNROUTED.format(source=message.source)),))
        if message.at_delivery_limit and (move := replacements.reject_crashing(message, positions, now)) is not None:
            return move
        match message.kind:
            case None if message.source is not None:
                return self._plan_source_message(message, positions, now)
            case None:
                parsed = parse_event(message, max_bytes=self._max_event, new_id=self._new_id, now=now)
                entries_letter = None
                if parsed.wrong is not None:
                    entries_letter = dead_letter.dead_letter_entries(message, parsed.event, parsed.wrong, now)
                return self._plan_event(message, documents.EventDocument(event=parsed.event), entries_letter, now)
            case Kind.EVENT:
                return self._plan_event(message, documents.load_event(message.body), None, now)
            case Kind.DELIVERY if message.delivery_count and message.suspect:
                return replacements.replace_by_trial(message.body, message.message_id or "", message.crashes, now)
            case Kind.DELIVERY:
                return DeliverySteps(steps=iter((_end_wait(documents.load_delivery(message.body), now),)), event=None)
            case Kind.SOURCED:
                raise AssertionError("`_split_positions` returns the original message, which has no kind")
            case Kind.DEAD_LETTER | Kind.UNREADABLE:
                raise MalformedEvent((InputIssue("", "a dead letter is replayed by `notifier dead-letters replay`"),))
            case NewerKind():
                raise UnknownVersion(f"a message of type {excerpt(message.kind)}, which this release does not know")
            case _:
                assert_never(message.kind)

    def _plan_source_message(self, message: Message, positions: str | None, now: float) -> DeliverySteps | Replacement:
        """Return the plan of a source's message. `positions` limits the events to read; None reads all."""
        if (reader := self._readers.get(reader_name_of(message.source))) is None:
            raise UnknownSource((InputIssue("", f"nothing here reads messages of the source {message.source}"),))
        due = now + TRIAL_DELAY_SECONDS if message.suspect else None
        content = reader.open(message, positions, now, due)
        if isinstance(content, Replacement):
            return content
        plan = self._plan_event(message, documents.EventDocument(event=content.event), content.dead_letter, now)
        if isinstance(plan, DeliverySteps) or plan.fact is None:
            return plan
        return copy_record(plan, fact=copy_record(plan.fact, source=message.source))

    def _plan_event(
        self, message: Message, document: documents.EventDocument, entries_letter: DeadLetter | None, now: float
    ) -> DeliverySteps | Replacement:
        """Return the plan of an event. Its first step makes `entries_letter` durable: the event's invalid entries.

        If the publisher requested notices, their number is noted, so that it recognises the last one.
        """
        if message.lane is Lane.BULK:
            document = copy_record(document, bulk=True)
        registry = self._registry()
        if registry.aliases:
            event = event_clients.resolve_aliases(document.event, registry, part=document.part)
            document = copy_record(document, event=event)
        event = document.event
        if event.misspelt:
            self._observe(replacements.to_members_misspelt(event, message.source))
        if event.iss in registry.issuers and event.reply_to is not None and event.reply_to.of is None:
            whole = event_clients.add_followers(event, registry)
            notice_count = event_clients.count_notices(whole, registry, self._monotonic()) + (
                entries_letter is not None
            )
            event = copy_record(event, reply_to=copy_record(event.reply_to, of=notice_count))
            document = copy_record(document, event=event)
        plan = self._plan_valid_entries(message, document, registry, now)
        if entries_letter is None:
            return plan
        messages = (to_dead_letter_message(entries_letter, event.reply_to),)
        if isinstance(plan, DeliverySteps):
            return copy_record(plan, steps=chain((Replacement(messages=messages),), plan.steps))
        return copy_record(plan, messages=chain(messages, plan.messages))

    def _plan_valid_entries(
        self, message: Message, document: documents.EventDocument, registry: Registry, now: float
    ) -> DeliverySteps | Replacement:
        """Return the steps of the event, or its replacement: postponed, dead-lettered or split."""
        event = document.event
        if (issuer := registry.issuers.get(event.iss)) is None:
            final_reason = DeadReason.UNKNOWN_ISSUER, f"{event.iss} is not one of `issuers`; add it, then replay"
            text = "not one of `issuers` (yet)"
            return replacements.postpone_event(document, text, final_reason, registry.grace, now)
        if event.clients == "*" and (problem := registry.incomplete.get(event.iss)) is not None:
            final_reason = DeadReason.UNKNOWN_CLIENT, f"{problem}; correct it, or set empty: true there, then replay"
            return replacements.postpone_event(document, problem, final_reason, registry.grace, now)
        is_restricted = issuer.publishers is not None or issuer.event_types is not None
        if is_restricted and (objection := event_clients.find_publisher_objection(event, issuer)) is not None:
            return replacements.reject_event(event, *objection, now)
        if registry.followers and not document.part:
            document = copy_record(document, event=event_clients.add_followers(event, registry))
        whole = document.event
        if whole.clients == "*" or len(whole.clients) > PART_CLIENTS:
            due = now + TRIAL_DELAY_SECONDS if message.suspect else None
            messages = self._split_event(document, registry, due)
            return Replacement(messages=messages, fact=replacements.to_event_taken(event, "split"))
        steps: Iterator[Step]
        if message.delivery_count and message.suspect:
            steps = _replace_by_trials(whole, registry, self._monotonic(), message.crashes, now)
        elif message.delivery_count >= MIN_SUSPECT_CRASHES and not event.id_given:
            return replacements.rewrite_with_id(event, bulk=document.bulk)
        else:
            steps = make_deliveries(whole, registry, self._monotonic())
        if registry.grace == ENDLESS_SECONDS and (problem := registry.incomplete.get(event.iss)) is not None:
            steps = event_clients.postpone_unread(document, steps, registry, problem, now)
        if event.email is not None or ClientEntry in map(type, event.clients):
            ignored = event_clients.find_ignored_overrides(whole, registry)
            if ignored is not None:
                steps = chain((copy_record(ignored, source=message.source),), steps)
        return DeliverySteps(steps=steps, event=event, source=message.source)

    def _split_event(
        self, document: documents.EventDocument, registry: Registry, due: float | None
    ) -> Iterator[OutgoingMessage]:
        """Yield the messages of the event's parts. Each has another id: with one id they are confirmed one by one."""
        event, lane = document.event, Lane.BULK if document.bulk else Lane.EVENTS
        headers = {PART_OF_HEADER: event_clients.digest_event(event)}
        for part in event_clients.split_event(
            copy_record(event, id_given=True, unread=()), registry, self._monotonic()
        ):
            message = replacements.to_event_message(part, bulk=document.bulk, part=True)
            yield OutgoingMessage(
                queue=lane, due=due, message=copy_record(message, message_id=self._new_id(), headers=headers)
            )


def make_deliveries(event: SessionEnded, registry: Registry, monotonic: float) -> Iterator[Delivery | Skipped]:
    """Yield one delivery per different entry of the event, in order.

    `Skipped` is yielded with its reason for a client that is not notified.

    A client that lost its address less than `registry.grace` ago, or is unknown, has a delivery, too; an unknown one
    only if its entry does not state that it has no address. `monotonic`: now by the clock of `Registry.lost_at`.
    """
    registered = registry.clients_of(event.iss)
    accepted = registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched)
    use_overrides = accepted or registry.has_just_narrowed(monotonic)
    ids = DeliveryIds(iss=event.iss, sent_by=(event.publisher, event.source), event_id=event.id)
    progress = NO_PROGRESS if event.received_at is None else NO_PROGRESS.after_take(event.received_at)
    identities: set[Identity] = set()
    for entry in event.clients:
        client_id, sub, sid, inline = identity = event.identity_of(entry, use_overrides=use_overrides)
        if inline is not None:
            identity = event_clients.omit_void_overrides(identity, registered)
        if identity in identities:
            continue
        identities.add(identity)
        client = registered.get(client_id)
        if client is None or client.channel is not None or client.logout_uri is None:
            skipped = event_clients.find_skip(event, entry, registry, monotonic, use_overrides=use_overrides)
            if skipped is not None:
                yield skipped
                continue
        yield Delivery(
            id=ids.of(client_id, sub, sid, inline), event_id=event.id, id_given=event.id_given, iss=event.iss,
            client_id=client_id, sub=sub, sid=sid, entry_sub=isinstance(entry, ClientEntry) and entry.sub is not None,
            inline=inline if accepted else None, email=event.email if accepted else None,
            ignored=None if accepted or isinstance(entry, str) else event_clients.to_ignored_overrides(event, entry),
            ended_at=event.ended_at, not_after=event.not_after, reason=event.reason, source=event.source,
            publisher=event.publisher, claimed_publisher=event.claimed_publisher,
            trace=event.trace, reply_to=event.reply_to, progress=progress,
        )  # fmt: skip


def _replace_by_trials(
    event: SessionEnded, registry: Registry, monotonic: float, crashes: int, now: float
) -> Iterator[Step]:
    """Yield a replacement by a trial for each delivery of the event, so that crashes are counted by delivery."""
    for step in make_deliveries(copy_record(event, id_given=True), registry, monotonic):
        if isinstance(step, Delivery):
            yield replacements.replace_by_trial(documents.dump_delivery(step), step.id, crashes, now)
        else:
            yield step


def _end_wait(delivery: Delivery, now: float) -> Delivery:
    return copy_record(delivery, progress=delivery.progress.after_receipt(now))

"""Opens a message when its turn comes: reads it, and says what is to be done. Nothing here waits; the worker acts.

A message becomes an `Expand`: deliveries that are made one by one as there is room. Or it becomes a `Move`: messages
that must be durable elsewhere before this one is acked (the parts of an event, a delay that goes on, a dead letter, an
event of an unknown issuer). At the first reading the wrong entries of an event become one dead letter, made from the
message as it came. Whatever is written of the event afterwards has only its good entries.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Protocol, TypeAlias, assert_never

from notifier.delivery import plan
from notifier.delivery.facts import Deferred, EventTaken
from notifier.delivery.last_chance import event_taken, limited, worn_out
from notifier.delivery.plan import Skipped, Unheard
from notifier.delivery.settlement import Send, buried
from notifier.delivery.verdict import grace_left, our_fault_wait
from notifier.model.backoff import SOON, deferral_wait
from notifier.model.delivery import Delivery
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.event_document import understand
from notifier.model.documents.sourced import ONLY, as_kept, as_received, as_sourced, reader_of
from notifier.model.errors import MalformedEvent, Mistake, UnknownSource, UnknownVersion
from notifier.model.frozen import frozen, replace
from notifier.model.message import PART_OF, SUSPECT, Kind, Lane, Message, NewerKind, Outgoing, crash_headers
from notifier.model.moment import Clock
from notifier.model.outcome import Cause, DeadReason
from notifier.model.printable import excerpt
from notifier.model.registry import ENDLESS, CurrentRegistry, Registry
from notifier.model.session_ended import SessionEnded

LONGEST_GRACE = 86400.0  # seconds that an event waits for its issuer, or for the list of all clients
# Seconds that a message of a later release rests, again and again, until a worker that knows it takes it. Short at
# first, since during an upgrade the next worker may be of that release. The longest is what a rollback costs: 400
# passes a second for 100,000 messages. It never becomes a dead letter: nothing is wrong with it.
NEWER_WAITS = tuple(2**power for power in range(2, 9))
# Seconds that the messages written in place of a suspect rest first. Taken at once, one could kill the process before
# the suspect's ack is with the broker. Then the next process would rewrite the suspect again: one more at each death.
REST = SOON
_UNROUTED = (
    "written past all exchanges into the queue of source {source}, so no permission of the broker speaks for who wrote "
    "it; publish to an exchange that the source binds"
)
PASSES = "passes"  # the header that counts how often it has rested; we cannot change its body


@frozen
class Move:
    """Messages to make durable before this one is acked. Observers are told `fact` at the end.

    With `look_up`, the messages are known only once it has been awaited. It never raises.
    """

    sends: Iterable[Send] = ()
    fact: EventTaken | None = None
    look_up: Callable[[], Awaitable[Iterable[Send]]] | None = None


@frozen
class Alone:
    """The only event of a message of a source, and the dead letter of the rest of that message."""

    event: SessionEnded
    letter: DeadLetter | None


class SourceReader(Protocol):
    """Reads the messages of the sources whose name begins with its name and a slash, or of those without a slash."""

    def received(self, message: Message) -> Message:
        """Return the message without what may not be kept. Never raises."""

    def open(self, message: Message, only: str | None, now: float, rest_until: float | None) -> Move | Alone:
        """Read the message; of its events only those that `only` names. Its replacements rest until `rest_until`.

        Raises MalformedEvent, and UnknownSource if the source is not configured.
        """


Step: TypeAlias = Delivery | Skipped | Unheard | Send


@frozen
class Expand:
    """Steps to take in order, as there is room. `event` is None for a message of a single delivery.

    `source` is the name of the source that the message came from.
    """

    steps: Iterator[Step]
    event: SessionEnded | None
    source: str | None = None


class Intake:
    """Opens messages. `max_event`: bytes. `new_id` makes ids for events without one. `readers` are by name.

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
        """Return what the message asks for. Never raises: an unreadable message becomes a dead letter."""
        only, taken = None, message
        try:
            message, only = self._as_came(message)
            return self._open(message, only)
        except UnknownSource as unknown:
            return self._postpone_unknown(message, only, taken, unknown)
        except MalformedEvent as malformed:
            return self._bury_malformed(message, malformed.mistakes, malformed.data, only)
        except UnknownVersion as newer:
            return self._postpone_newer(message, newer)
        except Exception as error:  # noqa: BLE001  around one message: whatever a parser does, the worker goes on
            return self._bury_broken(message, error, only)

    def step(self, message: Message, steps: Iterator[Step]) -> Step | Move | None:
        """Return the next step of the message, None after the last. Never raises."""
        try:
            return next(steps, None)
        except Exception as error:  # noqa: BLE001  as above; a generator that raised gives nothing more
            came, only = self._as_came(message)
            return self._bury_broken(came, error, only)

    def _as_came(self, message: Message) -> tuple[Message, str | None]:
        if message.source is None and message.kind is not Kind.SOURCED:
            return message, None
        only = None
        if message.kind is Kind.SOURCED:
            named = message.headers.get(ONLY)
            only = named if isinstance(named, str) else None
            message = as_received(message)
        reader = self._readers.get(reader_of(message.source))
        return as_kept(message) if reader is None else reader.received(message), only

    def _bury_broken(self, message: Message, error: Exception, only: str | None = None) -> Move:
        return self._bury_malformed(
            message, (Mistake("", f"reading it failed with {type(error).__name__}"),), None, only
        )

    def _open(self, message: Message, only: str | None) -> Expand | Move:
        now = self._clock()
        if message.unrouted:
            raise MalformedEvent((Mistake("", _UNROUTED.format(source=message.source)),))
        if message.worn_out and (last := worn_out(message, only, now)) is not None:
            return Move(sends=(last[0],), fact=last[1])
        match message.kind:
            case None if message.source is not None:
                return self._sourced(message, only, now)
            case None:
                understood = understand(message, max_bytes=self._max_event, new_id=self._new_id, now=now)
                letter = None
                if understood.wrong is not None:
                    letter = dead_letter.bury_entries(message, understood.event, understood.wrong, now)
                return self._event(message, documents.EventDocument(event=understood.event), letter, now)
            case Kind.EVENT:
                return self._event(message, documents.load_event(message.body), None, now)
            case Kind.DELIVERY if message.delivery_count and message.suspect:
                return Move(sends=(_trial(message.body, message.message_id or "", message.crashes, now),))
            case Kind.DELIVERY:
                return Expand(steps=iter((_returned(documents.load_delivery(message.body), now),)), event=None)
            case Kind.SOURCED:
                raise AssertionError("it was made one of its source")
            case Kind.DEAD_LETTER | Kind.UNREADABLE:
                raise MalformedEvent((Mistake("", "a dead letter is replayed by `notifier dead-letters replay`"),))
            case NewerKind():
                raise UnknownVersion(f"a message of type {excerpt(message.kind)}, which this release does not know")
            case _:
                assert_never(message.kind)

    def _sourced(self, message: Message, only: str | None, now: float) -> Expand | Move:
        rest_until = now + REST if message.suspect else None
        reader = self._readers.get(reader_of(message.source))
        if reader is None:
            raise UnknownSource((Mistake("", f"nothing here reads messages of the source {message.source}"),))
        opened = reader.open(message, only, now, rest_until)
        if isinstance(opened, Move):
            return opened
        work = self._event(message, documents.EventDocument(event=opened.event), opened.letter, now)
        if isinstance(work, Expand):
            return replace(work, source=message.source)
        return work if work.fact is None else replace(work, fact=replace(work.fact, source=message.source))

    def _event(
        self, message: Message, document: documents.EventDocument, letter: DeadLetter | None, now: float
    ) -> Expand | Move:
        """Open an event. `letter` has its wrong entries, and is made durable before anything else."""
        if message.lane is Lane.BULK:
            document = replace(document, bulk=True)
        event, registry = document.event, self._registry()
        if event.iss in registry.issuers and event.reply_to is not None and event.reply_to.of is None:
            of = plan.fates_of(event, registry, self._steady()) + (letter is not None)
            event = replace(event, reply_to=replace(event.reply_to, of=of))  # so that who waits knows the last one
            document = replace(document, event=event)
        work = self._open_good_entries(message, document, registry, now)
        if letter is None:
            return work
        entries_letter = (buried(letter, event.reply_to),)
        if isinstance(work, Expand):
            return replace(work, steps=chain(entries_letter, work.steps))
        return replace(work, sends=chain(entries_letter, work.sends))

    def _open_good_entries(
        self, message: Message, document: documents.EventDocument, registry: Registry, now: float
    ) -> Expand | Move:
        event = document.event
        issuer = registry.issuers.get(event.iss)
        if issuer is None:
            way_out = f"{event.iss} is not one of `issuers`; add it, then replay"
            never = DeadReason.UNKNOWN_ISSUER, way_out
            grace = min(registry.grace, LONGEST_GRACE)
            return self._put_off_event(document, "not one of `issuers` (yet)", never, grace, now)
        if event.clients == "*" and (why := registry.unsure.get(event.iss)) is not None:
            never = DeadReason.UNKNOWN_CLIENT, f"{why}; mend it, or set empty: true there, then replay"
            return self._put_off_event(document, why, never, min(registry.grace, LONGEST_GRACE), now)
        if registry.aliases:
            event = plan.by_client_id(event, registry)
            document = replace(document, event=event)
        if (objection := plan.may_speak(event, issuer)) is not None:
            return self._bury_event(event, objection.reason, objection.text, now)
        if plan.needs_split(event):
            parts = self._event_parts(document, registry, due=now + REST if message.suspect else None)
            return Move(sends=parts, fact=event_taken(event, "split"))
        steps: Iterator[Step]
        if message.delivery_count and message.suspect:
            steps = _trials(event, registry, self._steady(), message.crashes, now)
        elif message.delivery_count >= SUSPECT and not event.id_given:
            return Move(sends=(_event_with_id(document),))
        else:
            steps = plan.deliveries(event, registry, self._steady())
        if registry.grace == ENDLESS and (why := registry.unsure.get(event.iss)) is not None:
            steps = self._without_skipped(document, steps, why, now)
        if (unheard := plan.unheard(event, registry)) is not None:
            steps = chain((replace(unheard, source=message.source),), steps)
        return Expand(steps=steps, event=event)

    def _without_skipped(
        self, document: documents.EventDocument, steps: Iterator[Step], why: str, now: float
    ) -> Iterator[Step]:
        """Put off the clients to be skipped as an event of their own: the source to be read may have their address."""
        event, skipped = document.event, set[str]()
        for step in steps:
            if isinstance(step, Skipped):
                skipped.add(step.client_id)
            else:
                yield step
        if skipped:
            named = ((entry, entry if isinstance(entry, str) else entry.client_id) for entry in event.clients)
            left = tuple(entry for entry, name in named if name in skipped)
            never = DeadReason.UNKNOWN_CLIENT, f"{why}; mend it, then replay"
            later = replace(document, event=replace(event, clients=left))
            yield from self._put_off_event(later, why, never, LONGEST_GRACE, now).sends

    def _event_parts(
        self, document: documents.EventDocument, registry: Registry, *, due: float | None
    ) -> Iterator[Send]:
        """Write the parts as messages with ids of their own: with one id they would be confirmed one by one."""
        lane = Lane.BULK if document.bulk else Lane.EVENTS
        digest = plan.digest_of(document.event)
        for part in plan.split(replace(document.event, id_given=True, unread=()), registry, self._steady()):
            body = documents.dump_event(documents.EventDocument(event=part, bulk=document.bulk))
            message = Outgoing(kind=Kind.EVENT, body=body, message_id=self._new_id(), headers={PART_OF: digest})
            yield Send(queue=lane, due=due, message=message)

    def _put_off_event(
        self,
        document: documents.EventDocument,
        why: str,
        never: tuple[DeadReason, str],
        grace: float,
        now: float,
    ) -> Move:
        """Put off a whole event, as long as nobody knows whom to tell. After `grace` it is given up for `never`."""
        event = document.event
        since = now if document.unknown_since is None else document.unknown_since
        time_left = grace_left(document.unknown_since, document.deferrals, grace, now)
        if time_left <= 0:
            return self._bury_event(event, *never, now)
        wait = min(time_left, our_fault_wait(document.deferrals))
        later = replace(
            document, event=replace(event, id_given=True), unknown_since=since, deferrals=document.deferrals + 1
        )
        fact = Deferred(
            iss=event.iss, client_id="", event_id=event.id, cause=Cause.UNKNOWN, due=now + wait,
            text=why, reply_to=event.reply_to, publisher=event.publisher,
            again=document.deferrals > 0,
        )  # fmt: skip
        return Move(sends=_postponed_event(later, now + deferral_wait(wait), fact))

    def _bury_event(self, event: SessionEnded, reason: DeadReason, text: str, now: float) -> Move:
        letter = dead_letter.bury_event(event, reason, text, now)
        return Move(sends=(buried(letter, event.reply_to),), fact=event_taken(event, "accepted"))

    def _bury_malformed(
        self,
        message: Message,
        mistakes: tuple[Mistake, ...],
        data: Mapping[str, object] | None = None,
        only: str | None = None,
    ) -> Move:
        letter = limited(dead_letter.bury_raw(message, mistakes, self._clock(), data), only)
        fact = EventTaken(
            result="malformed", event_id=letter.event_id, iss=letter.iss, publisher=letter.publisher, deliveries=0,
            dated=message.timestamp is not None, source=message.source,
        )  # fmt: skip
        return Move(sends=(buried(letter, message.reply_to),), fact=fact)

    def _postpone_newer(self, message: Message, newer: Exception) -> Move:
        """Put off what a worker of a later release wrote: during an upgrade there is one that can read it."""
        assert message.kind is not None
        passes = _passes(message)
        wait = NEWER_WAITS[min(passes, len(NEWER_WAITS) - 1)]
        fact = Deferred(
            iss="", client_id="", event_id=message.message_id or "", cause=Cause.UNKNOWN,
            due=self._clock() + wait, text=str(newer), again=passes > 0,
        )  # fmt: skip
        # Headers are never copied: a copied `x-death` makes the broker drop it.
        same = Outgoing(
            kind=message.kind, body=message.body, message_id=message.message_id or "",
            headers={PASSES: str(passes + 1)},
        )  # fmt: skip
        return Move(sends=(Send(due=fact.due, rounding="up", message=same, fact=fact),))

    def _postpone_unknown(self, message: Message, only: str | None, taken: Message, unknown: UnknownSource) -> Move:
        """Put off the message of a source that is not configured: during an update another worker may have it.

        `taken` is the message as it was taken. After `registry.grace`, counted by passes, it becomes a dead letter.
        """
        passes, now = _passes(taken), self._clock()
        left = grace_left(-math.inf, passes, min(self._registry().grace, LONGEST_GRACE), now)
        if left <= 0:
            return self._bury_malformed(message, unknown.mistakes, unknown.data, only)
        wait = min(left, our_fault_wait(passes))
        fact = Deferred(
            iss="", client_id="", event_id=message.message_id or "", cause=Cause.UNKNOWN, due=now + wait,
            text=f"the source {message.source} is not configured (yet)", again=passes > 0,
        )  # fmt: skip
        own_id = taken.message_id if taken.kind is Kind.SOURCED else None
        again = as_sourced(message, own_id or self._new_id(), only)
        again = replace(again, headers={**again.headers, PASSES: str(passes + 1)})
        return Move(sends=(Send(due=now + deferral_wait(wait), rounding="up", message=again, fact=fact),))


def _postponed_event(later: documents.EventDocument, look_again: float, fact: Deferred) -> Iterator[Send]:
    """Write the event in a round of the loop of its own: reading 20,000 names has taken a whole one."""
    body = documents.dump_event(later, due=fact.due)
    message = Outgoing(kind=Kind.EVENT, body=body, message_id=later.event.id)
    yield Send(due=look_again, rounding="up", message=message, fact=fact)


def _trials(event: SessionEnded, registry: Registry, steady: float, crashes: int, now: float) -> Iterator[Step]:
    """Write the event as trials, one for each delivery, so that a crash is counted for the delivery that ran."""
    for step in plan.deliveries(replace(event, id_given=True), registry, steady):
        if isinstance(step, Delivery):
            yield _trial(documents.dump_delivery(step), step.id, crashes, now)
        else:
            yield step


def _trial(body: bytes, message_id: str, crashes: int, now: float) -> Send:
    """Write a suspect delivery as a trial: the message from which it runs, once, and whose return counts."""
    headers = crash_headers(crashes)
    message = Outgoing(kind=Kind.DELIVERY, body=body, message_id=message_id, headers=headers)
    return Send(due=now + REST, message=message)


def _event_with_id(document: documents.EventDocument) -> Send:
    """Write the event with the id that it was given here.

    A made-up id is new at every reading, so an event without an id is new whenever it comes again. If connections are
    shorter than a client's answer, the client would be told again on each one, and the ack would come too late each
    time, up to the delivery limit. With an id the second copy joins the first.
    """
    lane = Lane.BULK if document.bulk else Lane.EVENTS
    return Send(queue=lane, message=event_message(replace(document.event, id_given=True), bulk=document.bulk))


def _returned(delivery: Delivery, now: float) -> Delivery:
    """Return the delivery after its wait, with the wait recorded. Moments of the future are of a clock set back."""
    charged_at = delivery.charged_at
    return replace(
        delivery,
        waits=delivery.waits.ended(now, parked=delivery.parked),
        charged_at=None if charged_at is None or charged_at > now else charged_at,
    )


def _passes(message: Message) -> int:
    counted = str(message.headers.get(PASSES, ""))
    return int(counted) if counted.isdecimal() and len(counted) < 5 else 0


def event_message(event: SessionEnded, *, bulk: bool = False) -> Outgoing:
    """Return the event as a message of notifier's own, with its publisher and its id."""
    body = documents.dump_event(documents.EventDocument(event=event, bulk=bulk))
    return Outgoing(kind=Kind.EVENT, body=body, message_id=event.id)

"""Makes the messages that replace a taken message, which is acked once they are durable.

A replacement is a dead letter, the same message postponed, the parts of a large event, or a *trial*: the message of a
single delivery that is suspected to crash the process. The settlement publishes replacements; nothing here waits.
"""

import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal, Protocol, TypeAlias

from notifier.delivery.facts import Deferred, EventTaken, MembersMisspelt
from notifier.delivery.settlement import DECIDED_AGAIN_SECONDS, OutgoingMessage, to_dead_letter_message
from notifier.model.ages import fault_wait_seconds, remaining_grace
from notifier.model.backoff import MIN_WAIT_SECONDS, deferral_wait
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.sourced import to_sourced
from notifier.model.errors import InputIssue, UnknownSource
from notifier.model.message import Kind, Lane, Message, MessageDraft, crash_headers, read_count
from notifier.model.outcome import Cause, DeadReason
from notifier.model.record import copy_record, record
from notifier.model.session_ended import SessionEnded

MAX_GRACE_SECONDS = 86400.0  # for which an event waits for its issuer, or for a complete list of clients
# Seconds after which a message of a later release is due again, until a worker that can read it takes it. The first
# waits are short, since during an upgrade the next worker may be of that release. The longest bounds the load after a
# rollback: 100,000 such messages return 400 times a second. They never become dead letters, since they are valid.
NEWER_WAIT_SECONDS = tuple(2**power for power in range(2, 9))
# Seconds until a trial is due. If a trial ran at once, it could kill the process before the broker has the ack of the
# suspect that it replaces. The suspect would be redelivered, and one more trial would be written at each death.
TRIAL_DELAY_SECONDS = MIN_WAIT_SECONDS
POSTPONED = "passes"  # the header that counts how often a message was postponed; its body cannot be changed

EventResult: TypeAlias = Literal["accepted", "split", "malformed"]


@record
class Replacement:
    """Messages to make durable before the taken message is acked. `fact` is reported after the ack.

    `make_messages`, if set, is awaited for the messages; it never raises. `deliveries`: how many deliveries of the
    event the messages contain.
    """

    messages: Iterable[OutgoingMessage] = ()
    fact: EventTaken | None = None
    deliveries: int = 0
    make_messages: Callable[[], Awaitable[Iterable[OutgoingMessage]]] | None = None


@record
class SingleEvent:
    """The only valid event of a source's message, and the dead letter of the message's invalid entries, if any."""

    event: SessionEnded
    dead_letter: DeadLetter | None


class SourceReader(Protocol):
    """Reads the messages of sources. Its name is the part of the source names before the slash, or empty."""

    def without_secrets(self, message: Message) -> Message:
        """Return the message without headers that must not be stored. Never raises."""

    def open(self, message: Message, positions: str | None, now: float, due: float | None) -> Replacement | SingleEvent:
        """Return the message's only event, or the messages that replace it, which are `due` at that time if it is set.

        `positions` limits the events to read; None reads all. Raises MalformedEvent, and UnknownSource if the source
        is not configured.
        """


# ── dead letters ──


def reject_event(event: SessionEnded, reason: DeadReason, text: str, now: float) -> Replacement:
    """Return the dead letter of a whole event."""
    letter, other = dead_letter.dead_letter_event(event, reason, text, now), None
    if reason is not DeadReason.DELIVERY_LIMIT:
        other = partial(_read_again, partial(to_event_message, copy_record(event, id_given=True)), now)
    message = to_dead_letter_message(letter, event.reply_to, make_other=other)
    return Replacement(messages=(message,), fact=to_event_taken(event, "accepted"))


def reject_unreadable(
    message: Message,
    mistakes: tuple[InputIssue, ...],
    data: Mapping[str, object] | None,
    positions: str | None,
    now: float,
) -> Replacement:
    """Return the dead letter of an unreadable message. `data`: its JSON, if known.

    `positions`: which events of a source's message are unreadable; None for all.
    """
    letter, other = dead_letter.dead_letter_raw(message, mistakes, now, data), None
    if message.kind is None and not message.unrouted and message.cut_from is None:
        other = partial(_read_again, partial(to_sourced, message, message.message_id or "", positions), now)
    return _reject_unchanged(message, letter, positions, "malformed", other)


def _read_again(make_message: Callable[[], MessageDraft], now: float) -> OutgoingMessage:
    """Return the message in place of its dead letter, which is read and rejected again later."""
    return OutgoingMessage(message=make_message(), due=now + DECIDED_AGAIN_SECONDS, rounding="up")


def reject_crashing(message: Message, positions: str | None, now: float) -> Replacement | None:
    """Return the dead letter of a message that was redelivered so often that the queue would soon dead-letter it.

    A message that the queue dead-letters cannot be replayed, since it may be a forgery. A publisher's message is not
    read, since reading it may crash the process. None unless the message is a delivery, an event or a publisher's.
    """
    times = max(message.delivery_count, message.crashes)
    text = (
        f"given back to the queue {times} times: each worker that took it died, or lost its "
        "connection before it was done; look for `crashed` in the log, and for what ended them"
    )
    reason = DeadReason.DELIVERY_LIMIT
    match message.kind:
        case Kind.DELIVERY:
            delivery = documents.load_delivery(message.body)
            letter = dead_letter.dead_letter_delivery(delivery, reason, text, now)
            return Replacement(messages=(to_dead_letter_message(letter, delivery.reply_to),))
        case Kind.EVENT:
            return reject_event(documents.load_event(message.body).event, reason, text, now)
        case None:
            letter = dead_letter.dead_letter_unread(message, reason, text, now)
            return _reject_unchanged(message, letter, positions, "accepted")
        case _:
            return None


def _reject_unchanged(
    message: Message,
    letter: DeadLetter,
    positions: str | None,
    result: EventResult,
    make_other: Callable[[], OutgoingMessage] | None = None,
) -> Replacement:
    """Return the replacement of a message by a dead letter that contains its body.

    `positions`: which events of a source's message the dead letter is for; None for all events. `make_other`: see
    OutgoingMessage.
    """
    if positions is not None:
        letter = dataclasses.replace(letter, events=positions)
    fact = EventTaken(
        result=result, event_id=letter.event_id, iss=letter.iss, publisher=letter.publisher, deliveries=0,
        dated=message.timestamp is not None, source=message.source,
    )  # fmt: skip
    return Replacement(messages=(to_dead_letter_message(letter, message.reply_to, make_other=make_other),), fact=fact)


def to_members_misspelt(event: SessionEnded, source: str | None = None) -> MembersMisspelt:
    """Return the fact that reports the misspelt members of an event. `source`: the source that the event is from."""
    return MembersMisspelt(
        iss=event.iss, event_id=event.id, publisher=event.publisher, members=event.misspelt, source=source
    )


def to_event_taken(event: SessionEnded, result: EventResult) -> EventTaken:
    """Return the fact that reports an event which is replaced as a whole, without any delivery in memory."""
    return EventTaken(
        result=result, event_id=event.id, iss=event.iss, publisher=event.publisher, deliveries=0,
        dated=event.ended_at is not None, reply_to=event.reply_to, unread=event.unread,
    )  # fmt: skip


# ── postponed messages ──


def postpone_newer(message: Message, error: Exception, now: float) -> Replacement:
    """Return the postponed message of a later release, which another worker may be able to read (an upgrade)."""
    assert message.kind is not None
    postponed_count = read_count(message.headers, POSTPONED)
    due = now + NEWER_WAIT_SECONDS[min(postponed_count, len(NEWER_WAIT_SECONDS) - 1)]
    # Headers are never copied: a copied `x-death` makes the broker drop the message.
    copy = MessageDraft(
        kind=message.kind,
        body=message.body,
        message_id=message.message_id or "",
        headers={POSTPONED: str(postponed_count + 1)},
    )
    fact = _message_deferred(message, due, str(error), postponed_count)
    return Replacement(messages=(OutgoingMessage(due=due, rounding="up", message=copy, fact=fact),))


def postpone_unknown_source(
    message: Message, positions: str | None, taken: Message, error: UnknownSource, grace: float, new_id: str, now: float
) -> Replacement:
    """Return the postponed message, whose source may be configured at another worker; after `grace` its dead letter.

    `message` is the original message of the source, `taken` the message as it came from the queue, which counts how
    often it was postponed (`POSTPONED`).
    """
    postponed_count = read_count(taken.headers, POSTPONED)
    # The message does not record since when it waits. With -inf, its waits alone count as elapsed time.
    if (time_left := remaining_grace(-math.inf, postponed_count, min(grace, MAX_GRACE_SECONDS), now)) <= 0:
        return reject_unreadable(message, error.mistakes, error.data, positions, now)
    wait = min(time_left, fault_wait_seconds(postponed_count))
    fact = _message_deferred(
        message, now + wait, f"the source {message.source} is not configured (yet)", postponed_count
    )
    own_id = taken.message_id if taken.kind is Kind.SOURCED else None
    copy = to_sourced(message, own_id or new_id, positions)
    copy = copy_record(copy, headers={**copy.headers, POSTPONED: str(postponed_count + 1)})
    return Replacement(
        messages=(OutgoingMessage(due=now + deferral_wait(wait), rounding="up", message=copy, fact=fact),)
    )


def _message_deferred(message: Message, due: float, text: str, postponed_count: int) -> Deferred:
    return Deferred(
        iss="", client_id="", event_id=message.message_id or "", cause=Cause.UNKNOWN, due=due, text=text,
        again=postponed_count > 0,
    )  # fmt: skip


def postpone_event(
    document: documents.EventDocument, why: str, final_reason: tuple[DeadReason, str], grace: float, now: float
) -> Replacement:
    """Return the postponed event, since its clients are unknown now; or its dead letter once `grace` is over.

    `why`: the reason of the deferral. `final_reason`: the reason and text of the dead letter.
    """
    event = document.event
    since = now if document.unknown_since is None else document.unknown_since
    time_left = remaining_grace(document.unknown_since, document.deferrals, min(grace, MAX_GRACE_SECONDS), now)
    if time_left <= 0:
        return reject_event(event, *final_reason, now)
    wait = min(time_left, fault_wait_seconds(document.deferrals))
    later = copy_record(
        document, event=copy_record(event, id_given=True), unknown_since=since, deferrals=document.deferrals + 1
    )
    fact = Deferred(
        iss=event.iss, client_id="", event_id=event.id, cause=Cause.UNKNOWN, due=now + wait,
        text=why, reply_to=event.reply_to, publisher=event.publisher,
        again=document.deferrals > 0,
    )  # fmt: skip
    return Replacement(messages=_send_postponed(later, now + deferral_wait(wait), fact))


def _send_postponed(later: documents.EventDocument, due: float, fact: Deferred) -> Iterator[OutgoingMessage]:
    """Yield the event's message lazily, so that it is written in a later round of the event loop than it was read.

    Reading or writing an event of 20,000 names takes as long as one round may.
    """
    body = documents.dump_event(later, due=fact.due)
    message = MessageDraft(kind=Kind.EVENT, body=body, message_id=later.event.id)
    yield OutgoingMessage(due=due, rounding="up", message=message, fact=fact)


# ── trials and events with an id ──


def replace_by_trial(body: bytes, message_id: str, crashes: int, now: float) -> Replacement:
    """Return the replacement of a suspect delivery by a trial, whose message counts its `crashes`."""
    message = MessageDraft(kind=Kind.DELIVERY, body=body, message_id=message_id, headers=crash_headers(crashes))
    return Replacement(messages=(OutgoingMessage(due=now + TRIAL_DELAY_SECONDS, message=message),), deliveries=1)


def rewrite_with_id(event: SessionEnded, *, bulk: bool) -> Replacement:
    """Return the replacement of an event without an id by the same event with the generated id.

    Without a stored id, each redelivery gets another id, so copies are not recognised. If connections last for less
    time than a client's answer takes, the client would be notified again on each connection, up to the delivery limit.
    """
    message = to_event_message(copy_record(event, id_given=True), bulk=bulk)
    return Replacement(messages=(OutgoingMessage(queue=Lane.BULK if bulk else Lane.EVENTS, message=message),))


def to_event_message(event: SessionEnded, *, bulk: bool = False, part: bool = False) -> MessageDraft:
    """Return the event as notifier's own message, which keeps its publisher and its id."""
    body = documents.dump_event(documents.EventDocument(event=event, bulk=bulk, part=part))
    return MessageDraft(kind=Kind.EVENT, body=body, message_id=event.id)

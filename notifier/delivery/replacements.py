"""Makes the messages with which a worker replaces a taken message, acked only once these are durable.

A replacement is a dead letter, the same message postponed, a part of a large event, or a trial of a suspect. The
settlement publishes it; nothing here waits.
"""

import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

from notifier.delivery.ages import fault_wait_seconds, grace_left
from notifier.delivery.facts import DeadLettered, Deferred, EventTaken, Fact
from notifier.model.backoff import MIN_WAIT_SECONDS, Rounding, deferral_wait
from notifier.model.delivery import Delivery
from notifier.model.documents import dead_letter, documents
from notifier.model.documents.dead_letter import DeadLetter
from notifier.model.documents.sourced import to_sourced
from notifier.model.errors import InputIssue, UnknownSource
from notifier.model.frozen import frozen, replace
from notifier.model.message import DEAD, Kind, Lane, Message, Outgoing, crash_headers
from notifier.model.outcome import Cause, DeadReason
from notifier.model.reply import ReplyTo
from notifier.model.session_ended import SessionEnded

MAX_GRACE_SECONDS = 86400.0  # that an event waits for its issuer, or for the list of all clients
# Seconds until a message of a later release is due again, until a worker that can read it takes it. Short at first,
# since during an upgrade the next worker may be of that release. The longest is the cost of a rollback: 400 passes a
# second for 100,000 messages. Such a message never becomes a dead letter: nothing is wrong with it.
NEWER_WAITS = tuple(2**power for power in range(2, 9))
# Seconds until the messages written in place of a suspect are due. Taken at once, one could kill the process before the
# suspect's ack is with the broker. The next process would rewrite the suspect again: one more at each death.
TRIAL_DELAY_SECONDS = MIN_WAIT_SECONDS
PASSES = "passes"  # the header that counts the passes of a message whose body cannot be changed

EventResult: TypeAlias = Literal["accepted", "split", "malformed"]


@frozen
class Send:
    """A message to be made durable, and the fact that follows. With `due` it is delayed, and returns as a retry.

    With `bucket` it is parked there until it is fetched, or for the time that `Queue.park` documents.
    """

    message: Outgoing
    queue: str = Lane.RETRIES
    bucket: str | None = None
    due: float | None = None
    rounding: Rounding = "down"
    fact: Fact | None = None


@frozen
class Move:
    """Messages to make durable before the message taken is acked. `fact` goes to observers at the end.

    With `look_up`, the messages are known only once it has been awaited. It never raises. `deliveries`: how many of an
    event's deliveries the messages contain.
    """

    sends: Iterable[Send] = ()
    fact: EventTaken | None = None
    deliveries: int = 0
    look_up: Callable[[], Awaitable[Iterable[Send]]] | None = None


# ── dead letters ──


def send_dead_letter(letter: DeadLetter, reply_to: ReplyTo | None, delivery: Delivery | None = None) -> Send:
    """Return the message that makes a dead letter durable."""
    fact = DeadLettered(
        iss=letter.iss, client_id=letter.client_id, event_id=letter.event_id, reason=letter.reason, text=letter.text,
        delivery=delivery or letter.delivery, reply_to=reply_to,
    )  # fmt: skip
    return Send(queue=DEAD, message=dead_letter.dump_dead_letter(letter), fact=fact)


def reject_event(event: SessionEnded, reason: DeadReason, text: str, now: float) -> Move:
    """Return the dead letter of a whole event."""
    letter = dead_letter.dead_letter_event(event, reason, text, now)
    return Move(sends=(send_dead_letter(letter, event.reply_to),), fact=to_event_taken(event, "accepted"))


def reject_unreadable(
    message: Message, mistakes: tuple[InputIssue, ...], data: Mapping[str, object] | None, only: str | None, now: float
) -> Move:
    """Return the dead letter of an unreadable message. `only`: see `_reject_unchanged`."""
    return _reject_unchanged(message, dead_letter.dead_letter_raw(message, mistakes, now, data), only, "malformed")


def reject_crashing(message: Message, only: str | None, now: float) -> Move | None:
    """Return the dead letter of a message that the queue would give up, before its deliveries start; None if none.

    A message that the queue itself gives up looks like a forgery and cannot be replayed. A publisher's message is
    dead-lettered unread: reading it may be what kills the process.
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
            return Move(sends=(send_dead_letter(letter, delivery.reply_to),))
        case Kind.EVENT:
            return reject_event(documents.load_event(message.body).event, reason, text, now)
        case None:
            letter = dead_letter.dead_letter_unread(message, reason, text, now)
            return _reject_unchanged(message, letter, only, "accepted")
        case _:
            return None


def _reject_unchanged(message: Message, letter: DeadLetter, only: str | None, result: EventResult) -> Move:
    """Return the dead letter of a message, with its body.

    `only`: the positions of the source's events for which the message was sent; the dead letter is for these too.
    """
    if only is not None:
        letter = dataclasses.replace(letter, events=only)
    fact = EventTaken(
        result=result, event_id=letter.event_id, iss=letter.iss, publisher=letter.publisher, deliveries=0,
        dated=message.timestamp is not None, source=message.source,
    )  # fmt: skip
    return Move(sends=(send_dead_letter(letter, message.reply_to),), fact=fact)


def to_event_taken(event: SessionEnded, result: EventResult) -> EventTaken:
    """Return the fact for an event that is replaced as a whole, so that no delivery in memory belongs to it."""
    return EventTaken(
        result=result, event_id=event.id, iss=event.iss, publisher=event.publisher, deliveries=0,
        dated=event.ended_at is not None, reply_to=event.reply_to, unread=event.unread,
    )  # fmt: skip


# ── postponed messages ──


def postpone_newer(message: Message, newer: Exception, now: float) -> Move:
    """Return the message of a later release postponed: during an upgrade another worker can read it."""
    assert message.kind is not None
    passes = _passes_of(message)
    due = now + NEWER_WAITS[min(passes, len(NEWER_WAITS) - 1)]
    # Headers are never copied: a copied `x-death` makes the broker drop the message.
    again = Outgoing(
        kind=message.kind, body=message.body, message_id=message.message_id or "", headers={PASSES: str(passes + 1)}
    )
    fact = _message_deferred(message, due, str(newer), passes)
    return Move(sends=(Send(due=due, rounding="up", message=again, fact=fact),))


def postpone_unknown_source(
    message: Message, only: str | None, taken: Message, unknown: UnknownSource, grace: float, new_id: str, now: float
) -> Move:
    """Return the message postponed: during an update another worker may have its source configured.

    `taken` is the message as it was taken. After `grace`, counted by passes, the message becomes a dead letter.
    """
    passes = _passes_of(taken)
    left = grace_left(-math.inf, passes, min(grace, MAX_GRACE_SECONDS), now)
    if left <= 0:
        return reject_unreadable(message, unknown.mistakes, unknown.data, only, now)
    wait = min(left, fault_wait_seconds(passes))
    fact = _message_deferred(message, now + wait, f"the source {message.source} is not configured (yet)", passes)
    own_id = taken.message_id if taken.kind is Kind.SOURCED else None
    again = to_sourced(message, own_id or new_id, only)
    again = replace(again, headers={**again.headers, PASSES: str(passes + 1)})
    return Move(sends=(Send(due=now + deferral_wait(wait), rounding="up", message=again, fact=fact),))


def _message_deferred(message: Message, due: float, text: str, passes: int) -> Deferred:
    return Deferred(
        iss="", client_id="", event_id=message.message_id or "", cause=Cause.UNKNOWN, due=due, text=text,
        again=passes > 0,
    )  # fmt: skip


def postpone_event(
    document: documents.EventDocument, why: str, dead_reason: tuple[DeadReason, str], grace: float, now: float
) -> Move:
    """Return the whole event postponed, since its clients are unknown now; or its dead letter once `grace` is over.

    `dead_reason`: the reason and text of that dead letter.
    """
    event = document.event
    since = now if document.unknown_since is None else document.unknown_since
    time_left = grace_left(document.unknown_since, document.deferrals, min(grace, MAX_GRACE_SECONDS), now)
    if time_left <= 0:
        return reject_event(event, *dead_reason, now)
    wait = min(time_left, fault_wait_seconds(document.deferrals))
    later = replace(
        document, event=replace(event, id_given=True), unknown_since=since, deferrals=document.deferrals + 1
    )
    fact = Deferred(
        iss=event.iss, client_id="", event_id=event.id, cause=Cause.UNKNOWN, due=now + wait,
        text=why, reply_to=event.reply_to, publisher=event.publisher,
        again=document.deferrals > 0,
    )  # fmt: skip
    return Move(sends=_postponed_event(later, now + deferral_wait(wait), fact))


def _postponed_event(later: documents.EventDocument, look_again: float, fact: Deferred) -> Iterator[Send]:
    """Write the event in a separate pass of the event loop: reading 20,000 names has taken a whole pass."""
    body = documents.dump_event(later, due=fact.due)
    message = Outgoing(kind=Kind.EVENT, body=body, message_id=later.event.id)
    yield Send(due=look_again, rounding="up", message=message, fact=fact)


def _passes_of(message: Message) -> int:
    counted = str(message.headers.get(PASSES, ""))
    return int(counted) if counted.isdecimal() and len(counted) < 5 else 0


# ── trials and events with an id ──


def write_trial(body: bytes, message_id: str, crashes: int, now: float) -> Move:
    """Write a suspect delivery as a trial: it runs from this message only once, and a return of the message counts."""
    message = Outgoing(kind=Kind.DELIVERY, body=body, message_id=message_id, headers=crash_headers(crashes))
    return Move(sends=(Send(due=now + TRIAL_DELAY_SECONDS, message=message),), deliveries=1)


def rewrite_with_id(event: SessionEnded, *, bulk: bool) -> Move:
    """Write an event that came without an id again, with the id that this worker gave it.

    A made-up id is new at every reading, so an event without an id is new whenever it is redelivered. If connections
    are shorter than a client's answer, the client would be notified again on each one, and the ack would come too late
    each time, up to the delivery limit. With an id the second copy joins the first.
    """
    message = event_message(replace(event, id_given=True), bulk=bulk)
    return Move(sends=(Send(queue=Lane.BULK if bulk else Lane.EVENTS, message=message),))


def event_message(event: SessionEnded, *, bulk: bool = False) -> Outgoing:
    """Return the event as one of notifier's own messages, with its publisher and its id."""
    body = documents.dump_event(documents.EventDocument(event=event, bulk=bulk))
    return Outgoing(kind=Kind.EVENT, body=body, message_id=event.id)

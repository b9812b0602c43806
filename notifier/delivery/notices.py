"""Turns facts into notices, for the replies to publishers and for the feed."""

from typing import Any, TypedDict, Unpack

from notifier.delivery.facts import Buried, Deferred, EventTaken, Fact, LogoutDelivered, RetryScheduled, Skipped
from notifier.model.delivery import Delivery
from notifier.model.fate import NO_URI, Fate, LastAttempt, Notice
from notifier.model.outcome import Cause, DeadReason, Reason
from notifier.model.reply import ReplyTo


class FeedMembers(TypedDict, total=False):
    """What the feed adds to a notice."""

    id: str
    at: float
    last_attempt: LastAttempt | None


def notice_of(fact: Fact, **more: Unpack[FeedMembers]) -> Notice | None:
    """Return the notice of a fact. None if the fact tells no fate."""
    match fact:
        case LogoutDelivered(delivery=delivery):
            attempts = delivery.attempts + 1  # the delivery is as before its last attempt
            return _of_delivery(
                delivery, Fate.DELIVERED, Reason.DELIVERED, attempts, propagation=fact.propagation, **more
            )
        case RetryScheduled(delivery=delivery, due=due):
            last = delivery.history[-1] if delivery.history else None
            reason, status = ("", None) if last is None else (last.reason, last.status)
            return _of_delivery(delivery, Fate.RETRYING, reason, delivery.attempts, status=status, next_due=due, **more)
        case Deferred(delivery=Delivery() as delivery, cause=cause, due=due):
            text = _told_of(fact)
            return _of_delivery(delivery, Fate.RETRYING, cause, delivery.attempts, next_due=due, text=text, **more)
        case Deferred(cause=cause, due=due):
            return _of_event(fact, Fate.RETRYING, cause, next_due=due, text=_told_of(fact), **more)
        case Buried(delivery=Delivery() as delivery, reason=reason):
            # Whoever may publish may name any URI: only operators learn which of our addresses it led to.
            text = "" if reason is DeadReason.EGRESS_DENIED else fact.text
            return _of_delivery(delivery, Fate.DEAD, reason, delivery.attempts, text=text, **more)
        case Buried(reason=reason, text=text):
            return _of_event(fact, Fate.DEAD, reason, text=text, **more)
        case Skipped():
            return _of_event(fact, Fate.SKIPPED, NO_URI, **more)
        # The notices of its clients tell the rest of an event.
        case EventTaken(result="duplicate"):
            return _of_event(fact, Fate.DUPLICATE, "", **more)
        case EventTaken(result="split", reply_to=ReplyTo(of=0)):
            return _of_event(fact, Fate.SKIPPED, "", **more)
        case _:
            return None


def _told_of(fact: Deferred) -> str:
    """Why it was put off, if its publisher can do something about that. Other texts name files and proxies of ours."""
    if fact.cause not in (Cause.UNKNOWN, Cause.SIGNING):
        return ""
    return f"{fact.text}; {fact.hint}" if fact.hint and fact.hint_for_publisher else fact.text


def _of_delivery(delivery: Delivery, fate: Fate, reason: str, attempts: int, **more: Any) -> Notice:
    return Notice(
        fate=fate,
        iss=delivery.iss,
        event_id=delivery.event_id,
        client_id=delivery.client_id,
        delivery_id=delivery.id,
        reason=str(reason),
        attempts=attempts,
        of=None if delivery.reply_to is None else delivery.reply_to.of,
        publisher=delivery.publisher,
        ended_at=delivery.ended_at,
        **more,
    )


def _of_event(fact: Buried | Deferred | EventTaken | Skipped, fate: Fate, reason: str, **more: Any) -> Notice:
    """The notice of a fact without a delivery: of a whole event, or of a client that is skipped."""
    return Notice(
        fate=fate,
        iss=fact.iss,
        event_id=fact.event_id,
        client_id="" if isinstance(fact, EventTaken) else fact.client_id,
        reason=str(reason),
        of=None if fact.reply_to is None else fact.reply_to.of,
        **more,
    )

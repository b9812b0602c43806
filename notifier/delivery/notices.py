"""Turns facts into notices, for the replies to publishers and for the feed."""

from typing import Any

from notifier.delivery.facts import DeadLettered, Deferred, EventTaken, Fact, LogoutDelivered, RetryScheduled, Skipped
from notifier.model.delivery import Delivery
from notifier.model.fate import NO_URI, Fate, Notice
from notifier.model.outcome import Cause, DeadReason, Reason
from notifier.model.reply import ReplyTo


def notice_of(fact: Fact) -> Notice | None:
    """Return the notice of a fact. None if the fact is not a result."""
    match fact:
        case LogoutDelivered(delivery=delivery, propagation=propagation):
            attempts = delivery.attempts + 1  # the delivery is as before its last attempt
            return _notice(delivery, Fate.DELIVERED, Reason.DELIVERED, attempts=attempts, propagation=propagation)
        case RetryScheduled(delivery=delivery, due=due):
            last = delivery.history[-1] if delivery.history else None
            reason, status = ("", None) if last is None else (last.reason, last.status)
            return _notice(delivery, Fate.RETRYING, reason, status=status, next_due=due)
        case Deferred(cause=cause, due=due):
            return _notice(fact.delivery or fact, Fate.RETRYING, cause, next_due=due, text=_text_of(fact))
        case DeadLettered(delivery=delivery, reason=reason):
            # Whoever may publish may name any URI: only operators learn which of our addresses it led to.
            secret = delivery is not None and reason is DeadReason.EGRESS_DENIED
            return _notice(delivery or fact, Fate.DEAD, reason, text="" if secret else fact.text)
        case Skipped():
            return _notice(fact, Fate.SKIPPED, NO_URI)
        # Any other event is reported by the notices of its clients.
        case EventTaken(result="duplicate"):
            return _notice(fact, Fate.DUPLICATE, "")
        case EventTaken(result="split", reply_to=ReplyTo(of=0)):
            return _notice(fact, Fate.SKIPPED, "")
        case _:
            return None


def _text_of(fact: Deferred) -> str:
    """Return why it is deferred, if its publisher can correct that. Other texts name internal files and proxies."""
    if fact.cause not in (Cause.UNKNOWN, Cause.SIGNING):
        return ""
    return f"{fact.text}; {fact.hint}" if fact.hint and fact.hint_for_publisher else fact.text


def _notice(
    of: Delivery | DeadLettered | Deferred | EventTaken | Skipped, fate: Fate, reason: str, **more: Any
) -> Notice:
    """Return the notice of a delivery, or of a fact without one: of a whole event, or of a client that is skipped."""
    if isinstance(of, Delivery):
        of_delivery = {"delivery_id": of.id, "publisher": of.publisher, "ended_at": of.ended_at}
        more = {"attempts": of.attempts, **of_delivery, **more}
    return Notice(
        fate=fate, iss=of.iss, event_id=of.event_id, client_id="" if isinstance(of, EventTaken) else of.client_id,
        reason=str(reason), of=None if of.reply_to is None else of.reply_to.of, **more,
    )  # fmt: skip

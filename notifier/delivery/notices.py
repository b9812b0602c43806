"""Turns facts into notices, for the replies to publishers and for the feed."""

from typing import Any

from notifier.delivery.facts import DeadLettered, Deferred, EventTaken, Fact, LogoutDelivered, RetryScheduled, Skipped
from notifier.model.delivery import Delivery
from notifier.model.notice import DeliveryResult, Notice
from notifier.model.outcome import Cause, DeadReason, Reason
from notifier.model.reply import ReplyTo


def notice_of(fact: Fact) -> Notice | None:
    """Return the notice of a fact. None if the fact is not a result."""
    match fact:
        case LogoutDelivered(delivery=delivery, propagation=propagation):
            attempts = delivery.progress.attempts + 1  # `delivery` is as it was before its last attempt
            return _notice(
                delivery, DeliveryResult.DELIVERED, Reason.DELIVERED, attempts=attempts, propagation=propagation
            )
        case RetryScheduled(delivery=delivery, due=due):
            last = delivery.progress.history[-1] if delivery.progress.history else None
            reason, status = ("", None) if last is None else (last.reason, last.status)
            return _notice(delivery, DeliveryResult.RETRYING, reason, status=status, next_due=due)
        case Deferred(cause=cause, due=due):
            return _notice(fact.delivery or fact, DeliveryResult.RETRYING, cause, next_due=due, text=_text_of(fact))
        case DeadLettered(delivery=delivery, reason=reason):
            # A publisher may name any URI in an event: the text would reveal to which internal address a name resolves.
            is_secret = delivery is not None and reason is DeadReason.EGRESS_DENIED
            return _notice(delivery or fact, DeliveryResult.DEAD, reason, text="" if is_secret else fact.text)
        case Skipped():
            return _notice(fact, DeliveryResult.SKIPPED, fact.reason)
        # Events with any other result are reported by the notices of their clients.
        case EventTaken(result="duplicate"):
            return _notice(fact, DeliveryResult.DUPLICATE, "")
        case EventTaken(result="split", reply_to=ReplyTo(of=0)):
            return _notice(fact, DeliveryResult.SKIPPED, "")
        case _:
            return None


def _text_of(fact: Deferred) -> str:
    """Return the reason of a deferral if its publisher can correct it. Other reasons name internal files, proxies."""
    if fact.cause not in (Cause.UNKNOWN, Cause.SIGNING):
        return ""
    return f"{fact.text}; {fact.hint}" if fact.hint and fact.hint_for_publisher else fact.text


def _notice(
    subject: Delivery | DeadLettered | Deferred | EventTaken | Skipped,
    fate: DeliveryResult,
    reason: str,
    **members: Any,
) -> Notice:
    """Return the notice of a delivery, or of the event or client of a fact without a delivery."""
    if isinstance(subject, Delivery):
        own = {"delivery_id": subject.id, "publisher": subject.publisher, "ended_at": subject.ended_at}
        members = {"attempts": subject.progress.attempts, **own, **members}
    return Notice(
        fate=fate, iss=subject.iss, event_id=subject.event_id, reason=str(reason),
        client_id="" if isinstance(subject, EventTaken) else subject.client_id,
        of=None if subject.reply_to is None else subject.reply_to.of, **members,
    )  # fmt: skip

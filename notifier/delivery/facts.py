"""The facts that the core reports to observers: the only source of metrics, logs, replies and the feed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from notifier.model.delivery import Delivery
from notifier.model.notice import DeliveryResult, Notice, SkipReason
from notifier.model.outcome import Cause, DeadReason, Outcome, Reason
from notifier.model.record import record
from notifier.model.reply import ReplyTo
from notifier.model.session_ended import MisspeltMember

Override: TypeAlias = Literal[
    "backchannel_logout_uri", "backchannel_logout_session_required", "id_token_signed_response_alg"
]
"""A member of an event's entry that overrides the client's registration, if the publisher may do so."""


class Fact:
    """An event in the pipeline, for observers. A feature may add types of facts, which it handles by `FactHandlers`."""

    __slots__ = ()


@record
class ClientFact(Fact):
    """A fact about a client."""

    iss: str
    client_id: str


@record
class EventClientFact(ClientFact):
    """A fact about a client and an event. `client_id` is empty if it concerns the whole event."""

    event_id: str
    reply_to: ReplyTo | None = None


@record
class Skipped(EventClientFact):
    """A client is not notified of an event: it has no address, or cannot be notified of one session."""

    reason: SkipReason = SkipReason.NO_URI


@record
class IgnoredOverrides(Fact):
    """Members of an event do not count (`registry.inline`), and their clients are notified as registered.

    `members`: by `client_id`, the names of such members of the first few clients. `clients`: the number of all such
    clients. A member that is equal to the registration is omitted. `denied`: overrides count from no publisher.
    """

    iss: str
    event_id: str
    publisher: str | None
    clients: int
    members: Mapping[str, Sequence[str]]
    denied: bool
    source: str | None = None


@record
class MembersMisspelt(Fact):
    """An event was read that has unknown members, each of which probably means a known one."""

    iss: str
    event_id: str
    publisher: str | None
    members: Sequence[MisspeltMember]
    source: str | None = None


_TakenResult = Literal["accepted", "duplicate", "split", "malformed", "ignored"]
EVENT_RESULTS: tuple[str, ...] = get_args(_TakenResult)


@record
class EventTaken(Fact):
    """A worker has acked an event: all its deliveries are settled, or it was split, ignored or malformed.

    `dated`: its time is known. `arrived`: when the worker took it, in epoch seconds; None if it was replaced. `copies`:
    how many of these were settled as copies of other deliveries. `unread`: the informational members that were dropped.
    """

    result: _TakenResult
    event_id: str
    iss: str
    publisher: str | None
    deliveries: int
    dated: bool
    reply_to: ReplyTo | None = None
    trace: str | None = None
    arrived: float | None = None
    source: str | None = None
    copies: int = 0
    unread: tuple[str, ...] = ()


@record
class AlreadyDelivered(Fact):
    """A message with a single delivery arrived that this worker had already delivered, so it is settled."""

    delivery: Delivery


@record
class Attempted(Fact):
    """An attempt was refused or failed; a successful attempt is a `LogoutDelivered`.

    `delivery` is as it was before the attempt. `number` counts attempts from 1. `seconds`: the duration of the request.
    `at` and `next_due` (if another attempt follows) are in epoch seconds.
    """

    delivery: Delivery
    number: int
    jti: str
    alg: str
    outcome: Outcome
    seconds: float
    at: float
    next_due: float | None = None


@record
class LogoutDelivered(Attempted):
    """An attempt succeeded, and the delivery is done.

    `propagation`: the seconds since the session ended; None if that time is unknown.
    """

    propagation: float | None


@record
class RetryScheduled(Fact):
    """A retry is durable. `delivery` is as it is after the attempt; `due` is in epoch seconds."""

    delivery: Delivery
    due: float


@record
class Deferred(EventClientFact):
    """A deferral is durable. `text`: the reason in words, for an internal fault.

    A deferral of a whole event has its `publisher`; `again`: the event was deferred before. `DeferralWatch` sets the
    last three members. `first`: the first deferral of its issuer or client for this reason. `hint`: a question with the
    nearest known name. `hint_for_publisher`: the publisher may receive the hint.
    """

    cause: Cause
    due: float
    text: str = ""
    delivery: Delivery | None = None
    publisher: str | None = None
    again: bool = False
    first: bool = False
    hint: str = ""
    hint_for_publisher: bool = False


@record
class DeadLettered(EventClientFact):
    """A dead letter is durable. `delivery` is None if it is a whole event or message."""

    reason: DeadReason
    text: str
    delivery: Delivery | None = None


@record
class Unexpected(EventClientFact):
    """An unexpected error of notifier in one delivery, which is deferred. Other deliveries continue."""

    error: Exception


@record
class ClientFailing(ClientFact):
    """The circuit of a client opened until `next_try` (epoch seconds): its deliveries are parked."""

    next_try: float


@record
class ClientRecovered(ClientFact):
    """A client answered after an outage of `outage` seconds."""

    outage: float


@record
class ClientServed(ClientFact):
    """A recovered client's bucket is empty, `seconds` after the recovery."""

    seconds: float


Observer = Callable[[Fact], None]
"""Must return at once and never raise."""


class FactHandlers:
    """An observer with one handler for each type of fact that it handles. `Observers` calls the handlers directly.

    Types are compared exactly: a handler of `Attempted` does not receive a `LogoutDelivered`.
    """

    def __init__(self, handlers: Mapping[type[Any], Callable[[Any], object]]) -> None:
        self.handlers = handlers

    def __call__(self, fact: Fact) -> None:
        """Pass the fact to the handler of its type, if there is one."""
        if (handle := self.handlers.get(type(fact))) is not None:
            handle(fact)


# ── notices, for the replies to publishers and for the feed ──


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

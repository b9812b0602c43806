"""The facts that the pipeline reports to observers: the only source of metrics, logs, replies and the feed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from notifier.model.delivery import Delivery
from notifier.model.frozen import frozen
from notifier.model.outcome import Cause, DeadReason, Outcome
from notifier.model.reply import ReplyTo

Override: TypeAlias = Literal[
    "backchannel_logout_uri", "backchannel_logout_session_required", "id_token_signed_response_alg"
]
"""A member of an event's entry that overrides the client's registration, if the publisher may do so."""


class Fact:
    """What happened, for observers. A feature may add facts, which it handles by `FactHandlers`."""

    __slots__ = ()


@frozen
class ClientFact(Fact):
    """A fact about a client."""

    iss: str
    client_id: str


@frozen
class EventClientFact(ClientFact):
    """A fact about a client and an event. `client_id` is empty if it concerns the whole event."""

    event_id: str
    reply_to: ReplyTo | None = None


@frozen
class Skipped(EventClientFact):
    """A client that is not notified: neither its registration nor the event has an address, nor had any of late."""


@frozen
class IgnoredOverrides(Fact):
    """Members of an event's entries that do not count (`registry.inline`): their clients are notified as registered.

    `members` names them for the first few clients, by `client_id`; `clients` is the number of all such clients. A
    member equal to the registration is not among them. `denied`: it would count from no publisher.
    """

    iss: str
    event_id: str
    publisher: str | None
    clients: int
    members: Mapping[str, Sequence[Override]]
    denied: bool
    source: str | None = None


@frozen
class EventTaken(Fact):
    """A worker is done with an event message: all its deliveries are settled, or it was split or malformed.

    `arrived` (epoch seconds) is when the worker took it, if it had deliveries. Of these, `copies` were done already.
    `unread`: its informational members that were dropped.
    """

    result: Literal["accepted", "duplicate", "split", "malformed", "ignored"]
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


@frozen
class AlreadyDelivered(Fact):
    """A delivery came in a separate message, and this worker had delivered it: nothing was done."""

    delivery: Delivery


@frozen
class Attempted(Fact):
    """An attempt was made. One that succeeded is a `LogoutDelivered`.

    `delivery` is as it was before; `next_due` (epoch seconds) is set if another follows.
    """

    delivery: Delivery
    number: int
    jti: str
    alg: str
    outcome: Outcome
    seconds: float
    at: float
    next_due: float | None = None


@frozen
class LogoutDelivered(Attempted):
    """An attempt succeeded: the client took the token, and the delivery is done.

    `propagation` is in seconds from `ended_at`, None if that is unknown.
    """

    propagation: float | None


@frozen
class RetryScheduled(Fact):
    """A retry is durable. `delivery` is as it is after the attempt."""

    delivery: Delivery
    due: float


@frozen
class Deferred(EventClientFact):
    """A deferral is durable. `text` is the reason in words, for an internal fault.

    The deferral of a whole event has its `publisher`, and `again` if the event was deferred before. `DeferralWatch`
    sets `first` and `hint`, the nearest known name; `hint_for_publisher` if its publisher may receive it.
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


@frozen
class DeadLettered(EventClientFact):
    """A dead letter is durable. `delivery` is set if it is one."""

    reason: DeadReason
    text: str
    delivery: Delivery | None = None


@frozen
class Unexpected(EventClientFact):
    """An error in this program concerns one delivery. That delivery is deferred, and the others continue."""

    error: Exception


@frozen
class ClientFailing(ClientFact):
    """The circuit of a client opened until `next_try` (epoch seconds): its deliveries are parked."""

    next_try: float


@frozen
class ClientRecovered(ClientFact):
    """A client that was down for `outage` seconds answered."""

    outage: float


@frozen
class ClientServed(ClientFact):
    """The last delivery that waited for a client that was down left its bucket, `seconds` after the recovery."""

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

"""What the pipeline tells its observers: one frozen record a fact. Metrics and logs are made of nothing else."""

from collections.abc import Callable
from typing import Literal

from notifier.domain.delivery import Delivery
from notifier.domain.frozen import frozen
from notifier.domain.outcome import Cause, DeadReason, Outcome
from notifier.domain.reply import ReplyTo


@frozen
class EventTaken:
    """An event message has come to its end here: all its deliveries have a fate, or it was split or found malformed.

    `arrived` (epoch seconds) is when it was taken, where it had deliveries.
    """

    result: Literal["accepted", "duplicate", "split", "malformed"]
    event_id: str
    iss: str
    publisher: str | None
    deliveries: int
    dated: bool
    reply_to: ReplyTo | None = None
    trace: str | None = None
    arrived: float | None = None


@frozen
class Attempted:
    """One mint and one POST. `delivery` is as before the attempt; `next_due` in epoch seconds where one follows."""

    delivery: Delivery
    number: int
    jti: str
    alg: str
    outcome: Outcome
    seconds: float
    at: float
    next_due: float | None


@frozen
class RetryScheduled:
    """A retry is durable."""

    delivery: Delivery
    due: float


@frozen
class Deferred:
    """A deferral is durable. `text` says why in words, where it is a fault of ours."""

    iss: str
    client_id: str
    event_id: str
    cause: Cause
    due: float
    text: str = ""
    delivery: Delivery | None = None
    reply_to: ReplyTo | None = None


@frozen
class Delivered:
    """A delivery is done. `propagation` in seconds from `ended_at`, None where that is unknown.

    `delivery` is as it was before the attempt that did it.
    """

    delivery: Delivery
    propagation: float | None


@frozen
class Skipped:
    """A client that has no `backchannel_logout_uri` need not be told."""

    iss: str
    client_id: str
    event_id: str
    reply_to: ReplyTo | None = None


@frozen
class Buried:
    """A dead letter is durable. `client_id` is empty where no client is concerned alone; `delivery` where it is one."""

    iss: str
    client_id: str
    event_id: str
    reason: DeadReason
    text: str
    delivery: Delivery | None = None
    reply_to: ReplyTo | None = None


@frozen
class Unexpected:
    """A fault in our own code met one delivery; it is deferred, and the others are served."""

    iss: str
    client_id: str
    event_id: str
    error: Exception


@frozen
class CircuitTurned:
    """A client's circuit opened (it counts as down, and is left alone) or closed (it lives again)."""

    iss: str
    client_id: str
    open: bool


Fact = EventTaken | Attempted | RetryScheduled | Deferred | Delivered | Skipped | Buried | Unexpected | CircuitTurned
Observer = Callable[[Fact], None]
"""Must return at once and never raise."""

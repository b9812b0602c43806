"""Decides what happens next to a delivery: `Done`, `RetryAt`, `Defer` or `Dead`. Pure: the settlement acts.

`record` writes an outcome into the delivery. `decide` returns the verdict on it, `result_of` all that follows from the
attempt. Moments are seconds since the epoch, by the caller's clock.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from notifier.delivery.ages import expiry_text, fault_wait_seconds, last_moment
from notifier.delivery.facts import Attempted
from notifier.model.backoff import MAX_LATE_FACTOR, MIN_WAIT_SECONDS, Jitter, Rounding, compute_backoff, deferral_wait
from notifier.model.client import Client, RetryPolicy
from notifier.model.delivery import Delivery, PastOutcome
from notifier.model.errors import InternalFault
from notifier.model.frozen import frozen, replace
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Outcome, Reason, Refused, Signal

# Seconds to wait at least after the first, second and third 400 that counts (R12). The fourth is final. Some
# receivers answer 400 while they cannot read the JWK Set, or within 30 s of their last reading.
REJECTION_SECONDS = (3.0, 32.0, 265.0)
TIMEOUT_SHARE = 0.9  # of a client's timeout must have passed, or the timeout is not the client's fault
# Causes that lie with the client: the ages continue. All other causes are internal and stop the ages.
CLIENT_CAUSES = frozenset({Cause.SLOT, Cause.RATE, Cause.CIRCUIT, Cause.RETRY_AFTER})


class WaitsAs(Enum):
    """How a pending delivery is kept."""

    DELAYED = "delayed"  # in the delay queues, for its retry or for its turn at the client's rate and slots
    PROBE = "probe"  # in the delay queues, to be the next attempt at a client whose circuit is open
    PARKED = "parked"  # in its client's bucket, until the client answers


@dataclass(frozen=True, slots=True)
class Done:
    """The client is notified."""


DONE = Done()


@frozen
class Delay:
    """Admit the delivery again at `due`.

    A parked delivery returns when its client answers, else as `Queue.park` documents; `due` is the client's next probe.
    """

    due: float
    rounding: Rounding = "down"
    waits_as: WaitsAs = WaitsAs.DELAYED
    until: float = math.inf


@frozen
class RetryAt(Delay):
    """Attempt the delivery again. A delay that the client asked for is rounded up."""


@frozen
class Defer(Delay):
    """Defer the delivery; no attempt is counted. `text` describes the problem, for an internal fault."""

    cause: Cause
    text: str = ""


def delay_of(verdict: RetryAt | Defer, now: float) -> tuple[float, Rounding]:
    """Return the seconds in delay queues and their rounding. A deferral until a turn is in one queue at a time."""
    wait, rounding = verdict.due - now, verdict.rounding
    if isinstance(verdict, Defer) and verdict.waits_as is WaitsAs.DELAYED:
        return deferral_wait(wait, rounding), "up"
    return wait, rounding


@frozen
class Dead:
    """Give the delivery up; an operator may replay it."""

    reason: DeadReason
    text: str


Verdict = Done | RetryAt | Defer | Dead


@frozen
class AttemptResult:
    """How an attempt ended: the verdict, the delivery after the attempt, and the signal of the client.

    The delivery is unchanged if it is done. `pause`: seconds for which the client asked not to be called. `fact` is
    None if no attempt was made; it lacks `next_due`.
    """

    delivery: Delivery
    verdict: Verdict
    signal: Signal = Signal.NONE
    pause: float | None = None
    fact: Attempted | None = None


def result_of(before: Delivery, client: Client, fact: Attempted, jitter: Jitter) -> AttemptResult:
    """Return the result of an attempt that the client did not accept. `before`: the delivery before it."""
    outcome, now, seconds = fact.outcome, fact.at, fact.seconds
    assert not isinstance(outcome, Delivered)
    after = record(before, outcome, now - seconds, seconds)  # by one clock: a jump meanwhile must not add to its age
    # `seconds` are of a clock that stops while the process is suspended, so that the client had no time to answer.
    cut_short = outcome.reason is Reason.TIMEOUT and seconds < TIMEOUT_SHARE * client.timeout
    return AttemptResult(
        delivery=after,
        verdict=decide(outcome, after, client, now, jitter),
        signal=Signal.NONE if cut_short else outcome.signal,
        pause=pause_of(outcome, client.retry),
        fact=fact,
    )


def defer_for(fault: InternalFault, delivery: Delivery, client: Client, now: float, jitter: Jitter) -> AttemptResult:
    """Return the deferral for an internal fault: for 2, 4, 8 … 256 s."""
    policy = client.retry
    wait = fault_wait_seconds(delivery.deferrals) * (1 + policy.jitter * (2 * jitter() - 1))
    return deferred(delivery, Defer(due=now + wait, cause=fault.cause, text=str(fault)), policy, now)


def deferred(delivery: Delivery, verdict: Defer, policy: RetryPolicy, now: float) -> AttemptResult:
    """Return the result of a delivery that is deferred without an attempt."""
    return AttemptResult(delivery=postponed(delivery, verdict, policy, now), verdict=verdict)


def pause_of(outcome: Outcome, policy: RetryPolicy) -> float | None:
    """Return for how many seconds the client asked not to be called (429 or 503 with `Retry-After`)."""
    if isinstance(outcome, Failed) and outcome.retry_after is not None and outcome.status in (429, 503):
        return clamp_retry_after(outcome.retry_after, policy)
    return None


def clamp_retry_after(seconds: float, policy: RetryPolicy) -> float:
    """Bring absurd values to between a second and `max_delay`."""
    return min(max(seconds, MIN_WAIT_SECONDS), max(policy.max_delay, MIN_WAIT_SECONDS))


def record(delivery: Delivery, outcome: Outcome, now: float, seconds: float = 0.0) -> Delivery:
    """Return the delivery after an attempt of so many seconds, which began at `now`.

    A 400 after an ambiguous attempt does not count (R3).
    """
    rejected = outcome.reason is Reason.REJECTED_TOKEN and not delivery.ambiguous
    past = PastOutcome(at=now, reason=outcome.reason.value, status=outcome.status, text=outcome.text)
    return replace(
        delivery,
        history=delivery.with_past(past),
        attempts=delivery.attempts + 1,
        rejections=delivery.rejections + rejected,
        ambiguous=isinstance(outcome, Failed) and outcome.ambiguous,
        first_taken_at=now if delivery.first_taken_at is None else delivery.first_taken_at,
        first_attempt_at=now if delivery.first_attempt_at is None else delivery.first_attempt_at,
        backoffs=delivery.backoffs + 1,
        charged_at=now,
        waits=replace(delivery.waits, seconds=delivery.waits.seconds + seconds),
        deferrals=0,
        deferred_for=None,
        asked=isinstance(outcome, Failed) and outcome.retry_after is not None,
        leash=None,
        turn=None,
        unknown_since=None,
    )


def postponed(delivery: Delivery, verdict: Defer, policy: RetryPolicy, now: float) -> Delivery:
    """Return the delivery after a deferral, with its cause, number, and the time for which it is held back internally.

    A probe remains one until it is parked: deliveries in the bucket depend on its result.
    """
    is_probe = verdict.waits_as is WaitsAs.PROBE or (
        delivery.leash is not None and verdict.waits_as is not WaitsAs.PARKED
    )
    internal = verdict.cause not in CLIENT_CAUSES
    held = delivery.held + (deferral_wait(verdict.due - now, verdict.rounding) if internal else 0.0)
    noted = verdict.cause in delivery.waited_for
    return replace(
        delivery,
        first_taken_at=now if delivery.first_taken_at is None else delivery.first_taken_at,
        waited_for=delivery.waited_for if noted else (*delivery.waited_for, verdict.cause),
        deferrals=delivery.deferrals + 1 if delivery.deferred_for in (None, verdict.cause) else 1,
        deferred_for=verdict.cause,
        asked=verdict.cause is Cause.RETRY_AFTER,
        held=min(held, policy.max_paused),
        leash=verdict.due if is_probe else None,
        unknown_since=(delivery.unknown_since or now) if verdict.cause is Cause.UNKNOWN else None,
    )


def not_taken(begun: Delivery, after: Delivery, seconds: float) -> Delivery:
    """Return the delivery as it was started, if the queue did not take its deferral within so many seconds.

    Its age goes on, and it keeps its turn.
    """
    return replace(
        begun,
        first_taken_at=after.first_taken_at,
        held=after.held,
        waits=replace(after.waits, seconds=after.waits.seconds + seconds),
        waited_for=after.waited_for,
        turn=after.turn,
    )


def uncharged(delivery: Delivery, before: Delivery) -> Delivery:
    """Return the delivery after an attempt whose failure is not charged to it: its next backoff is no longer."""
    return replace(delivery, backoffs=before.backoffs, charged_at=before.charged_at)


def decide(outcome: Refused | Failed, delivery: Delivery, client: Client, now: float, jitter: Jitter) -> RetryAt | Dead:
    """Return the verdict on a refusal or failure. `delivery` is as `record` returned it."""
    match outcome:
        case Refused(reason=Reason.REJECTED_TOKEN) if delivery.rejections <= len(REJECTION_SECONDS):
            least = REJECTION_SECONDS[delivery.rejections - 1] if delivery.rejections else 0.0
            return retry(delivery, client, None, now, jitter, least)
        case Refused():
            return Dead(reason=DeadReason(outcome.reason.value), text=_refusal(outcome))
        case Failed():
            return retry(delivery, client, outcome.retry_after, now, jitter)
        case _:
            assert_never(outcome)


def retry(
    delivery: Delivery, client: Client, asked: float | None, now: float, jitter: Jitter, least: float = 0.0
) -> RetryAt | Dead:
    """Return the next attempt, due before the limit: the last attempt is made just before it.

    `asked`: the seconds for which the client asked. `least`: how long a backoff is, within `max_delay`.
    """
    policy, last = client.retry, last_moment(delivery, client, now)
    if last - now < MIN_WAIT_SECONDS:
        return Dead(reason=DeadReason.EXPIRED, text=expiry_text(delivery, client, now))
    if asked is None:
        wait = compute_backoff(policy, max(1, delivery.backoffs), jitter)
        if wait >= min(least, policy.max_delay):
            return RetryAt(due=min(now + wait, last))
        wait = min(least * (1 + policy.jitter * jitter()), policy.max_delay)
    else:
        wait = clamp_retry_after(asked, policy)
    in_time = now + math.ceil(wait) * MAX_LATE_FACTOR <= last
    return RetryAt(due=now + wait, rounding="up") if in_time else RetryAt(due=last)


def _refusal(outcome: Refused) -> str:
    """Return the answer of the client, or the setting that denied the delivery."""
    if outcome.status is None:
        return outcome.text
    return f"the client answered {outcome.status}" + (f": {outcome.text}" if outcome.text else "")

"""Decides what happens next to a delivery: `Done`, `RetryAt`, `Defer` or `Dead`. Pure: the settlement acts.

`record_attempt` writes the outcome of an attempt into the delivery, `decide` returns the verdict, and
`to_attempt_result` calls both. Moments are seconds since the epoch, by the caller's clock.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from notifier.delivery.ages import describe_expiry, fault_wait_seconds, last_attempt_at
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
MIN_TIMEOUT_SHARE = 0.9  # of a client's timeout: after less time the client did not cause the timeout
# The client causes these deferrals, which count as age. All other causes are internal and do not count.
CLIENT_CAUSES = frozenset({Cause.SLOT, Cause.RATE, Cause.CIRCUIT, Cause.RETRY_AFTER})


class WaitKind(Enum):
    """Where a pending delivery waits, and for what."""

    DELAYED = "delayed"  # in the delay queues, until its retry or its turn at the client's rate and slots
    PROBE = "probe"  # in the delay queues, as the next attempt at a client whose circuit is open or that is paused
    PARKED = "parked"  # in its client's bucket, until the client is available again


@dataclass(frozen=True, slots=True)
class Done:
    """The client is notified."""


DONE = Done()


@frozen
class Delay:
    """Admit the delivery again at `due`.

    A parked delivery returns when its client is available, or when `Queue.park` documents, at the latest at `until`;
    its `due` is the time of the client's next probe.
    """

    due: float
    rounding: Rounding = "down"
    wait_kind: WaitKind = WaitKind.DELAYED
    until: float = math.inf


@frozen
class RetryAt(Delay):
    """Attempt the delivery again at `due`. A delay that the client requested is rounded up."""


@frozen
class Defer(Delay):
    """Defer the delivery; no attempt is counted. `text` describes the problem, for an internal fault."""

    cause: Cause
    text: str = ""


def queue_delay(verdict: RetryAt | Defer, now: float) -> tuple[float, Rounding]:
    """Return the seconds in delay queues, and how they are rounded.

    A deferral that is neither parked nor a probe has a power of two seconds, so that it takes a single delay queue.
    """
    wait, rounding = verdict.due - now, verdict.rounding
    if isinstance(verdict, Defer) and verdict.wait_kind is WaitKind.DELAYED:
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
    """The result of an attempt or a deferral: the verdict, the changed delivery, and the signal about the client.

    `pause_seconds`: for how long the client requested not to be called. `fact` reports the attempt, still without
    `next_due`; it is None if no attempt was made.
    """

    delivery: Delivery
    verdict: Verdict
    signal: Signal = Signal.NONE
    pause_seconds: float | None = None
    fact: Attempted | None = None


def to_attempt_result(before: Delivery, client: Client, fact: Attempted, jitter: Jitter) -> AttemptResult:
    """Return the result of an attempt that was refused or failed. `before`: the delivery before the attempt."""
    outcome, now, seconds = fact.outcome, fact.at, fact.seconds
    assert not isinstance(outcome, Delivered)
    after = record_attempt(before, outcome, now - seconds, seconds)
    # `seconds` do not count while the process is suspended: a timeout after fewer is not evidence about the client.
    was_suspended = outcome.reason is Reason.TIMEOUT and seconds < MIN_TIMEOUT_SHARE * client.timeout
    return AttemptResult(
        delivery=after,
        verdict=decide(outcome, after, client, now, jitter),
        signal=Signal.NONE if was_suspended else outcome.signal,
        pause_seconds=requested_pause(outcome, client.retry),
        fact=fact,
    )


def defer_for(fault: InternalFault, delivery: Delivery, client: Client, now: float, jitter: Jitter) -> AttemptResult:
    """Return the deferral of a delivery for an internal fault: for 2, 4, 8 … 256 s, with jitter."""
    policy = client.retry
    wait = fault_wait_seconds(delivery.deferrals) * (1 + policy.jitter * (2 * jitter() - 1))
    return to_deferral_result(delivery, Defer(due=now + wait, cause=fault.cause, text=str(fault)), policy, now)


def to_deferral_result(delivery: Delivery, verdict: Defer, policy: RetryPolicy, now: float) -> AttemptResult:
    """Return the result of a delivery that is deferred without an attempt."""
    return AttemptResult(delivery=record_deferral(delivery, verdict, policy, now), verdict=verdict)


def requested_pause(outcome: Outcome, policy: RetryPolicy) -> float | None:
    """Return for how many seconds the client requested not to be called (429 or 503 with `Retry-After`), or None."""
    if isinstance(outcome, Failed) and outcome.retry_after is not None and outcome.status in (429, 503):
        return clamp_retry_after(outcome.retry_after, policy)
    return None


def clamp_retry_after(seconds: float, policy: RetryPolicy) -> float:
    """Return the seconds limited to the range from one second to `max_delay`."""
    return min(max(seconds, MIN_WAIT_SECONDS), max(policy.max_delay, MIN_WAIT_SECONDS))


def record_attempt(delivery: Delivery, outcome: Outcome, now: float, attempt_seconds: float = 0.0) -> Delivery:
    """Return the delivery after an attempt that began at `now` and took `attempt_seconds`.

    A 400 does not count as a rejection if the attempt before was ambiguous (R3).
    """
    is_rejection = outcome.reason is Reason.REJECTED_TOKEN and not delivery.ambiguous
    past = PastOutcome(at=now, reason=outcome.reason.value, status=outcome.status, text=outcome.text)
    return replace(
        delivery,
        history=delivery.with_past(past),
        attempts=delivery.attempts + 1,
        rejections=delivery.rejections + is_rejection,
        ambiguous=isinstance(outcome, Failed) and outcome.ambiguous,
        first_taken_at=now if delivery.first_taken_at is None else delivery.first_taken_at,
        first_attempt_at=now if delivery.first_attempt_at is None else delivery.first_attempt_at,
        backoffs=delivery.backoffs + 1,
        charged_at=now,
        waits=replace(delivery.waits, seconds=delivery.waits.seconds + attempt_seconds),
        deferrals=0,
        deferred_for=None,
        delayed_by_client=isinstance(outcome, Failed) and outcome.retry_after is not None,
        probe_due=None,
        slot_at=None,
        unknown_since=None,
    )


def record_deferral(delivery: Delivery, verdict: Defer, policy: RetryPolicy, now: float) -> Delivery:
    """Return the delivery after a deferral: with its cause, and the number of deferrals in a row for this cause.

    An internal delay is added to `uncounted_seconds`, the time that does not count as age.
    A probe stays the probe until it is parked, since the deliveries in the bucket depend on its result.
    """
    was_probe = delivery.probe_due is not None
    is_probe = verdict.wait_kind is WaitKind.PROBE or (was_probe and verdict.wait_kind is not WaitKind.PARKED)
    is_internal = verdict.cause not in CLIENT_CAUSES
    uncounted = delivery.uncounted_seconds + (
        deferral_wait(verdict.due - now, verdict.rounding) if is_internal else 0.0
    )
    is_noted = verdict.cause in delivery.waited_for
    return replace(
        delivery,
        first_taken_at=now if delivery.first_taken_at is None else delivery.first_taken_at,
        waited_for=delivery.waited_for if is_noted else (*delivery.waited_for, verdict.cause),
        deferrals=delivery.deferrals + 1 if delivery.deferred_for in (None, verdict.cause) else 1,
        deferred_for=verdict.cause,
        delayed_by_client=verdict.cause is Cause.RETRY_AFTER,
        uncounted_seconds=min(uncounted, policy.max_paused),
        probe_due=verdict.due if is_probe else None,
        unknown_since=(delivery.unknown_since or now) if verdict.cause is Cause.UNKNOWN else None,
    )


def undo_deferral(before: Delivery, deferred: Delivery, seconds: float) -> Delivery:
    """Return the delivery as `before` a deferral that the queue did not take within so many seconds.

    It keeps the age, the causes and the slot of the deferral.
    """
    return replace(
        before,
        first_taken_at=deferred.first_taken_at,
        uncounted_seconds=deferred.uncounted_seconds,
        waits=replace(deferred.waits, seconds=deferred.waits.seconds + seconds),
        waited_for=deferred.waited_for,
        slot_at=deferred.slot_at,
    )


def without_charge(delivery: Delivery, before: Delivery) -> Delivery:
    """Return the delivery after a failed attempt that does not lengthen its backoff. `before`: before the attempt."""
    return replace(delivery, backoffs=before.backoffs, charged_at=before.charged_at)


def decide(outcome: Refused | Failed, delivery: Delivery, client: Client, now: float, jitter: Jitter) -> RetryAt | Dead:
    """Return the verdict on a refused or failed attempt. `delivery`: after the attempt (see `record_attempt`)."""
    match outcome:
        case Refused(reason=Reason.REJECTED_TOKEN) if delivery.rejections <= len(REJECTION_SECONDS):
            # 0 rejections: this 400 does not count, since the attempt before it was ambiguous.
            min_backoff = REJECTION_SECONDS[delivery.rejections - 1] if delivery.rejections else 0.0
            return schedule_retry(delivery, client, None, now, jitter, min_backoff)
        case Refused():
            return Dead(reason=DeadReason(outcome.reason.value), text=_describe_refusal(outcome))
        case Failed():
            return schedule_retry(delivery, client, outcome.retry_after, now, jitter)
        case _:
            assert_never(outcome)


def schedule_retry(
    delivery: Delivery,
    client: Client,
    requested_seconds: float | None,
    now: float,
    jitter: Jitter,
    min_backoff: float = 0.0,
) -> RetryAt | Dead:
    """Return when the next attempt is due, or Dead if the delivery expires within two seconds.

    The attempt is due at the latest a second before the delivery expires.
    `requested_seconds`: the client's `Retry-After`, which replaces the backoff. `min_backoff`: the shortest backoff in
    seconds, unless `max_delay` is shorter.
    """
    policy, last_at = client.retry, last_attempt_at(delivery, client, now)
    if last_at - now < MIN_WAIT_SECONDS:
        return Dead(reason=DeadReason.EXPIRED, text=describe_expiry(delivery, client, now))
    if requested_seconds is None:
        wait = compute_backoff(policy, max(1, delivery.backoffs), jitter)
        if wait >= min(min_backoff, policy.max_delay):
            return RetryAt(due=min(now + wait, last_at))
        wait = min(min_backoff * (1 + policy.jitter * jitter()), policy.max_delay)
    else:
        wait = clamp_retry_after(requested_seconds, policy)
    is_in_time = now + math.ceil(wait) * MAX_LATE_FACTOR <= last_at  # even if the delay queues are late
    return RetryAt(due=now + wait, rounding="up") if is_in_time else RetryAt(due=last_at)


def _describe_refusal(outcome: Refused) -> str:
    """Return the client's answer, or the egress rule that denied the request, for a dead letter."""
    if outcome.status is None:
        return outcome.text
    return f"the client answered {outcome.status}" + (f": {outcome.text}" if outcome.text else "")

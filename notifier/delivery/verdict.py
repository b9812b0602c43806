"""Decides what happens next to a delivery: `Done`, `RetryAt`, `Defer` or `Dead`. Pure: the settlement acts.

An attempt ends with an `AttemptReport`. The client's state takes the report first, and returns the client's `Standing`.
From both, `decide` returns the verdict, once, and the delivery as it is afterwards. The first row that applies decides:

| the attempt | the delivery and its client | verdict |
|---|---|---|
| delivered | | done |
| no request is possible | | dead letter |
| internal fault | | deferral for 2, 4, 8 … 256 s; a probe stays the probe |
| refused with 400, or failed | the delivery expires within two seconds | dead letter |
| refused with 400 | one of the first three that count (R3, R12) | retry after the backoff: 3, 32, 265 s at least |
| refused with 400 | it does not count, since the attempt before was ambiguous (R3) | retry after a longer backoff |
| refused | | dead letter |
| failed, without evidence about the client | | retry after a longer backoff |
| failed with `Retry-After`, except 429 and 503 | | retry at the requested time |
| failed | the client is unavailable, and the delivery stays or becomes its probe | retry as the probe |
| failed | the client is unavailable | retry, parked until the client is available |
| failed with a status below 500 | the client's rate is limited because of overload | retry when the client has a slot |
| failed | the client has answered since the last failure that lengthened the backoff | retry after a longer backoff |
| failed | the client has not answered since | retry after the same backoff |

A client is *unavailable* while its circuit is open or it requested a pause. A delivery becomes the probe
(`Deferrals._standing_after`) if its failure opened the circuit, or if no probe of the worker is in a delay queue.
Instead of being parked, a delivery waits in delay queues if it would expire in the bucket, or if the worker stops
(`wait_for_client`). A retry never follows later than the delivery's last attempt. Moments are seconds since the epoch,
by the caller's clock.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from notifier.delivery.circuit import OPEN_SHARE_OF_OUTAGE
from notifier.delivery.facts import Attempted
from notifier.model.ages import describe_expiry, fault_wait_seconds, last_attempt_at, may_wait_until
from notifier.model.backoff import MAX_LATE_FACTOR, MIN_WAIT_SECONDS, Jitter, Rounding, compute_backoff, deferral_wait
from notifier.model.client import Client, RetryPolicy
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Outcome, Reason, Refused, Signal
from notifier.model.record import copy_record, record

# Seconds to wait at least after the first, second and third 400 that counts (R12). The fourth is final. Some
# receivers answer 400 while they cannot read the JWK Set, or within 30 s of their last reading.
REJECTION_SECONDS = (3.0, 32.0, 265.0)
MIN_PARKED_SECONDS = 60.0  # a delivery that expires earlier is not parked, since it would expire in the bucket
MIN_TIMEOUT_SHARE = 0.9  # of a client's timeout: after less time the client did not cause the timeout
# The client causes these deferrals, which count as age. All other causes are internal and do not count.
CLIENT_CAUSES = frozenset({Cause.SLOT, Cause.RATE, Cause.CIRCUIT, Cause.RETRY_AFTER})


class WaitKind(Enum):
    """Where a pending delivery waits, and for what."""

    DELAYED = "delayed"  # in the delay queues, until its retry, or until the client has a slot for it
    PROBE = "probe"  # in the delay queues, as the next attempt at a client whose circuit is open or that is paused
    PARKED = "parked"  # in its client's bucket, until the client is available again


@dataclass(frozen=True, slots=True)
class Done:
    """The client is notified."""


DONE = Done()


@record
class Delay:
    """Admit the delivery again at `due`.

    A parked delivery returns when its client is available, or when `Queue.park` documents, at the latest at `until`;
    its `due` is the time of the client's next probe.
    """

    due: float
    rounding: Rounding = "down"
    wait_kind: WaitKind = WaitKind.DELAYED
    until: float = math.inf


@record
class RetryAt(Delay):
    """Attempt the delivery again at `due`. A delay that the client requested is rounded up."""


@record
class Defer(Delay):
    """Defer the delivery; no attempt is counted.

    `text` describes the problem, for an internal fault. `slot_at`: when the client has a slot for the delivery.
    """

    cause: Cause
    text: str = ""
    slot_at: float | None = None


def queue_delay(verdict: RetryAt | Defer, now: float) -> tuple[float, Rounding]:
    """Return the seconds in delay queues, and how they are rounded.

    A deferral that is neither parked nor a probe has a power of two seconds, so that it takes a single delay queue.
    """
    wait, rounding = verdict.due - now, verdict.rounding
    if isinstance(verdict, Defer) and verdict.wait_kind is WaitKind.DELAYED:
        return deferral_wait(wait, rounding), "up"
    return wait, rounding


@record
class Dead:
    """Give the delivery up; an operator may replay it."""

    reason: DeadReason
    text: str


Verdict = Done | RetryAt | Defer | Dead
DeliveryVerdict: TypeAlias = tuple[Delivery, Verdict]
"""The delivery as it is afterwards, and its verdict."""


@record
class AttemptReport:
    """The result of an attempt: the delivery before and after it, and its evidence about the client.

    `after`: as if a failure lengthens the backoff; `decide` determines whether it does. `outcome`: the client's answer;
    or the internal fault that prevented the attempt or explains it; or Dead if no request is possible. `signal` counts
    for the client's circuit and rate. `pause_seconds`: for how long the client requested not to be called. `fact`
    reports the attempt, still without `next_due`; it is None if no request was sent.
    """

    before: Delivery
    after: Delivery
    outcome: Outcome | InternalFault | Dead
    signal: Signal = Signal.NONE
    pause_seconds: float | None = None
    fact: Attempted | None = None


@record
class Standing:
    """How a client stands: whether it is available, and how and until when a delivery waits for it.

    `is_limited`: its rate is limited because of overload. `succeeded_at`: when an attempt last succeeded; unset while
    the client is unavailable. `wait_kind`, `cause` and `due` apply only to a delivery that waits for the client; a
    parked delivery is due with the next probe. `slot_at`: when the client has a slot for it. `may_park`: False while
    the worker stops.
    """

    is_available: bool = True
    is_limited: bool = False
    succeeded_at: float = -math.inf
    wait_kind: WaitKind = WaitKind.DELAYED
    cause: Cause = Cause.SLOT
    due: float = 0.0
    slot_at: float | None = None
    may_park: bool = True


def report_attempt(before: Delivery, client: Client, fact: Attempted) -> AttemptReport:
    """Return the report of an attempt that was refused or failed. `before`: the delivery before the attempt."""
    outcome, seconds = fact.outcome, fact.seconds
    assert not isinstance(outcome, Delivered)
    # `seconds` do not count while the process is suspended: a timeout after fewer is not evidence about the client.
    was_suspended = outcome.reason is Reason.TIMEOUT and seconds < MIN_TIMEOUT_SHARE * client.timeout
    if was_suspended and isinstance(outcome, Failed):
        was_suspended = not outcome.ended_early
    return AttemptReport(
        before=before,
        after=copy_record(before, progress=before.progress.after_attempt(outcome, fact.at - seconds, seconds)),
        outcome=outcome,
        signal=Signal.NONE if was_suspended else outcome.signal,
        pause_seconds=requested_pause(outcome, client.retry),
        fact=fact,
    )


def report_fault(fault: InternalFault, delivery: Delivery) -> AttemptReport:
    """Return the report of an attempt that an internal fault prevented. It does not count for the client's circuit."""
    return AttemptReport(before=delivery, after=delivery, outcome=fault)


def requested_pause(outcome: Outcome, policy: RetryPolicy) -> float | None:
    """Return for how many seconds the client requested not to be called (429 or 503 with `Retry-After`), or None."""
    if isinstance(outcome, Failed) and outcome.retry_after is not None and outcome.status in (429, 503):
        return clamp_retry_after(outcome.retry_after, policy)
    return None


def clamp_retry_after(seconds: float, policy: RetryPolicy) -> float:
    """Return the seconds limited to the range from one second to `max_delay`."""
    return min(max(seconds, MIN_WAIT_SECONDS), max(policy.max_delay, MIN_WAIT_SECONDS))


def record_deferral(delivery: Delivery, verdict: Defer, policy: RetryPolicy, now: float) -> Delivery:
    """Return the delivery after a deferral.

    An internal delay is added to the time that does not count as age; the delivery keeps its slot. A probe stays the
    probe until it is parked, since the deliveries in the bucket depend on its result.
    """
    progress = delivery.progress
    is_probe = verdict.wait_kind is WaitKind.PROBE
    is_probe = is_probe or (progress.probe_due is not None and verdict.wait_kind is not WaitKind.PARKED)
    uncounted_seconds, slot_at = progress.uncounted_seconds, verdict.slot_at
    if verdict.cause not in CLIENT_CAUSES:
        uncounted_seconds, slot_at = (
            uncounted_seconds + deferral_wait(verdict.due - now, verdict.rounding),
            progress.slot_at,
        )
    progress = progress.after_deferral(
        verdict.cause, now, uncounted_seconds=min(uncounted_seconds, policy.max_paused),
        probe_due=verdict.due if is_probe else None, slot_at=slot_at,
    )  # fmt: skip
    return copy_record(delivery, progress=progress)


# ── decide ──


def decide(report: AttemptReport, client: Client, standing: Standing, now: float, jitter: Jitter) -> DeliveryVerdict:
    """Return the verdict on an attempt, and the delivery as it is afterwards, by the table above."""
    after = report.after
    match report.outcome:
        case Delivered():
            return after, DONE
        case Dead() as dead:
            return after, dead
        case InternalFault() as fault:
            defer = defer_for(fault, after, client.retry, now, jitter)
            return record_deferral(after, defer, client.retry, now), defer
        case Refused(reason=Reason.REJECTED_TOKEN) if after.progress.rejections <= len(REJECTION_SECONDS):
            # 0 rejections: this 400 does not count, since the attempt before it was ambiguous.
            min_backoff = REJECTION_SECONDS[after.progress.rejections - 1] if after.progress.rejections else 0.0
            last_at = last_attempt_at(after, client, now)
            return after, schedule_retry(after, client, None, last_at, now, jitter, min_backoff)
        case Refused() as refused:
            return after, Dead(reason=DeadReason(refused.reason.value), text=_describe_refusal(refused))
        case Failed() as failed:
            return _decide_failure(report, failed, client, standing, now, jitter)
        case _:
            assert_never(report.outcome)


def _decide_failure(
    report: AttemptReport, failed: Failed, client: Client, standing: Standing, now: float, jitter: Jitter
) -> DeliveryVerdict:
    """Return the verdict on a failed attempt."""
    before, after, last_at = report.before, report.after, last_attempt_at(report.after, client, now)
    is_time_requested = failed.retry_after is not None and report.pause_seconds is None  # for this delivery alone
    if last_at - now < MIN_WAIT_SECONDS or report.signal is Signal.NONE or is_time_requested:
        return after, schedule_retry(after, client, failed.retry_after, last_at, now, jitter)
    waits_for_slot = standing.is_limited and report.signal is Signal.RATE_LIMITED
    if waits_for_slot or not standing.is_available:
        defer = wait_for_client(standing, after, client, now)
        probe_due = defer.due if defer.wait_kind is WaitKind.PROBE else None  # marks the probe
        progress = after.progress.without_longer_backoff(before.progress, probe_due=probe_due, slot_at=defer.slot_at)
        verdict = RetryAt(due=defer.due, rounding=defer.rounding, wait_kind=defer.wait_kind, until=defer.until)
        return copy_record(after, progress=progress), verdict
    charged_at = before.progress.charged_at
    if charged_at is not None and charged_at >= standing.succeeded_at:
        after = copy_record(after, progress=after.progress.without_longer_backoff(before.progress))
    return after, schedule_retry(after, client, None, last_at, now, jitter)


def defer_for(fault: InternalFault, delivery: Delivery, policy: RetryPolicy, now: float, jitter: Jitter) -> Defer:
    """Return the deferral for an internal fault: for 2, 4, 8 … 256 s, with jitter."""
    wait = fault_wait_seconds(delivery.progress.deferrals) * (1 + policy.jitter * (2 * jitter() - 1))
    return Defer(due=now + wait, cause=fault.cause, text=str(fault))


def wait_for_client(standing: Standing, delivery: Delivery, client: Client, now: float) -> Defer:
    """Return the deferral of a delivery that waits for its client.

    It is due no later than the delivery's last attempt; if it is parked, `until` is the time of that attempt instead.

    A delivery that expires within a minute is not parked, since it could expire in the bucket. Neither does a worker
    that stops park any, since it makes no more passes. Such a delivery waits in the delay queues instead: each time
    for half of its age, at least for a second and at most until the client's next probe.
    """
    due, kind, slot_at = standing.due, standing.wait_kind, standing.slot_at
    last_at = may_wait_until(delivery, client, now)
    if kind is WaitKind.PARKED:
        if standing.may_park and last_at - now >= MIN_PARKED_SECONDS:
            return Defer(due=due, cause=standing.cause, wait_kind=kind, until=last_at, slot_at=slot_at)
        taken_at = delivery.progress.first_taken_at
        age = 0.0 if taken_at is None else now - taken_at
        kind, due = WaitKind.DELAYED, now + max(MIN_WAIT_SECONDS, min(due - now, OPEN_SHARE_OF_OUTAGE * age))
    if kind is WaitKind.PROBE and (due - now) * MAX_LATE_FACTOR <= last_at - now:
        # Rounded up, since even a late return precedes the last attempt.
        return Defer(due=due, cause=standing.cause, wait_kind=kind, rounding="up", slot_at=slot_at)
    return Defer(due=min(due, last_at), cause=standing.cause, wait_kind=kind, slot_at=slot_at)


def schedule_retry(
    delivery: Delivery,
    client: Client,
    requested_seconds: float | None,
    last_at: float,
    now: float,
    jitter: Jitter,
    min_backoff: float = 0.0,
) -> RetryAt | Dead:
    """Return when the next attempt is due, or Dead if the delivery expires within two seconds.

    `last_at`: the latest time for it, a second before the delivery expires.
    `requested_seconds`: the client's `Retry-After`, which replaces the backoff. `min_backoff`: the shortest backoff in
    seconds, unless `max_delay` is shorter.
    """
    policy = client.retry
    if last_at - now < MIN_WAIT_SECONDS:
        return Dead(reason=DeadReason.EXPIRED, text=describe_expiry(delivery, client, now))
    if requested_seconds is None:
        wait = compute_backoff(policy, max(1, delivery.progress.backoffs), jitter)
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

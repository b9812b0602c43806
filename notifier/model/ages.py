"""Bounds how long a delivery may be pending: its age limit, its last attempt, and the grace of unknown names. Pure.

Two settings limit an age: `max_age`, and `sub_only_max_age` for a token without `sid`. Such a token ends every session
of its subject, and a late one ends a session that began since. Both limits count from the moment when a worker first
took the delivery, attempted or not; otherwise a delivery that never reaches its client would be pending without end. An
event that stays in the queue because no worker runs is attempted however late (only `not_after` forbids it), since an
open session is the worse fault.

Wall clocks may be wrong, so an age is never less than the recorded waits of the delivery (`RecordedWaits`). Where the
wall clock alone makes it too old, a delivery without `sid` expires, and one with `sid` gets an attempt first.

A delay caused by the client (open circuit, `Retry-After`, rate, slots) does not stop the ages. An internal delay
(`paused: true`, internal faults) does, for as long as the delivery was deferred, and for `max_paused` in all.

Just before a limit a delivery is due for its last attempt, on the same terms as any other: none is made while the
client's circuit is open or the client is paused, or if its rate or slots leave no room. A hundred thousand deliveries
that are pending for a client that is down expire at about the same moment, and one attempt for each would flood it.

Moments are seconds since the epoch, by the caller's clock.
"""

import math

from notifier.model.backoff import MIN_EARLY_FACTOR
from notifier.model.client import Client, RetryPolicy
from notifier.model.delivery import Delivery
from notifier.model.logout_token import has_session

MIN_FAULT_SECONDS, MAX_FAULT_SECONDS = 2.0, 256.0  # an internal fault is examined again after 2, 4, 8 … 256 s
LAST_ATTEMPT_SECONDS = 1.0  # the last attempt is due this long before the limit


def last_attempt_at(delivery: Delivery, client: Client, now: float) -> float:
    """Return when the delivery's last attempt is due, in epoch seconds."""
    return expires_at(delivery, client, now) - LAST_ATTEMPT_SECONDS


def may_wait_until(delivery: Delivery, client: Client, now: float) -> float:
    """Return until when the delivery may wait for its client: at most until its last attempt is due, at least `now`."""
    last_at = last_attempt_at(delivery, client, now)
    is_expired_by_clock = last_at + LAST_ATTEMPT_SECONDS < now
    if is_expired_by_clock and has_session(delivery, client):  # the wall clock may be wrong: use the recorded waits
        last_at = now + _remaining_by_waits(delivery, client.retry) - LAST_ATTEMPT_SECONDS
    return max(now, min(last_at, delivery.not_after or math.inf))


def expires_at(delivery: Delivery, client: Client, now: float) -> float:
    """Return when the delivery expires, in epoch seconds."""
    return min(_age_limit(delivery, client, now), delivery.not_after or math.inf)


def fault_wait_seconds(deferrals: int) -> float:
    """Return the seconds until an internal fault is examined again, after `deferrals` deferrals for it."""
    return min(MAX_FAULT_SECONDS, MIN_FAULT_SECONDS * 2.0 ** min(deferrals, 16))


def remaining_grace(
    unknown_since: float | None, deferrals: int, grace: float, now: float, *, bounded: bool = True
) -> float:
    """Return how many of the `grace` seconds remain for a name that is unknown since `unknown_since`; None: since now.

    The deferrals so far (2, 4, 8 … 256 s each) bound the elapsed time from below and above, so that a jump of the wall
    clock neither ends nor extends the grace. Without `bounded` they bound it from below only.
    """
    if unknown_since is None:
        return grace
    doublings = min(deferrals, 7)  # after seven deferrals a wait has its longest length
    max_waited = MIN_FAULT_SECONDS * (2.0**doublings - 1) + MAX_FAULT_SECONDS * (deferrals - doublings)
    min_waited = max_waited - fault_wait_seconds(deferrals - 1)  # the last wait may have ended early
    elapsed = max(now - unknown_since, min_waited)
    return grace - (min(elapsed, max_waited) if bounded else elapsed)


def _age_limit(delivery: Delivery, client: Client, now: float) -> float:
    """Return when the delivery is too old by the wall clock; in the past if its age is unknown and it has no `sid`."""
    policy = client.retry
    if has_session(delivery, client):
        max_age = policy.max_age
    elif delivery.progress.waits.undated:
        return -math.inf
    else:
        max_age = min(policy.max_age, policy.sub_only_max_age)
    return delivery.progress.age_began_at(now) + delivery.progress.uncounted_seconds + max_age


def _remaining_by_waits(delivery: Delivery, policy: RetryPolicy) -> float:
    """Return the seconds until the recorded waits reach `max_age`. A recorded wait may be an eighth too short."""
    progress = delivery.progress
    return MIN_EARLY_FACTOR * policy.max_age - max(0.0, progress.waits.seconds - progress.uncounted_seconds)


def is_too_old(delivery: Delivery, client: Client, now: float) -> bool:
    """Return True if the delivery has passed its age limit."""
    if now <= _age_limit(delivery, client, now):
        return False
    return not has_session(delivery, client) or _remaining_by_waits(delivery, client.retry) <= 0


def describe_expiry(delivery: Delivery, client: Client, now: float) -> str:
    """Return why no attempt of the delivery follows, for its dead letter."""
    policy, with_session = client.retry, has_session(delivery, client)
    if delivery.not_after is not None and delivery.not_after <= _age_limit(delivery, client, now):
        why = "not_after leaves no time for another"
    elif delivery.progress.waits.undated and not with_session:
        why = "a token without sid is not sent, since the clock was set back meanwhile, and its age is unknown"
    elif with_session or policy.max_age <= policy.sub_only_max_age:
        why = f"older than max_age ({policy.max_age:g} s)"
    else:
        why = (
            f"a token without sid is not sent after sub_only_max_age ({policy.sub_only_max_age:g} s), since it would "
            "end a session that began since"
        )
    return f"{describe_attempts(delivery, now)}: {why}"


def describe_attempts(delivery: Delivery, now: float) -> str:
    """Return as text how often the delivery was attempted, how long it has been pending, and for which causes."""
    progress = delivery.progress
    attempts = progress.attempts
    tried = f"given up after {attempts} attempt{'s' if attempts > 1 else ''}" if attempts else "never attempted"
    if progress.first_taken_at is None:
        return tried
    causes = f", deferred for {', '.join(dict.fromkeys(progress.waited_for))}" if progress.waited_for else ""
    seconds = progress.uncounted_seconds
    uncounted = f", {seconds:.0f} s of it through no fault of the client" if seconds else ""
    return f"{tried} in {now - progress.age_began_at(now):.0f} s{causes}{uncounted}"

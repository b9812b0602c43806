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
LAST_ATTEMPT_SECONDS = 1.0  # before a limit at which the last attempt is due


def last_moment(delivery: Delivery, client: Client, now: float) -> float:
    """Return when the delivery's last attempt is due."""
    return expires_at(delivery, client, now) - LAST_ATTEMPT_SECONDS


def waits_until(delivery: Delivery, client: Client, now: float) -> float:
    """Return until when the delivery may wait for its client: until its last attempt is due, and `now` at the least."""
    last = last_moment(delivery, client, now)
    if last + LAST_ATTEMPT_SECONDS < now and has_session(delivery, client):
        last = now + _recorded_rest(delivery, client.retry) - LAST_ATTEMPT_SECONDS
    return max(now, min(last, delivery.not_after or math.inf))


def expires_at(delivery: Delivery, client: Client, now: float) -> float:
    """Return when the delivery is given up."""
    return min(_age_limit(delivery, client, now), delivery.not_after or math.inf)


def fault_wait_seconds(deferrals: int) -> float:
    """Return the seconds until an internal fault is examined again, after `deferrals` deferrals for it."""
    return min(MAX_FAULT_SECONDS, MIN_FAULT_SECONDS * 2.0 ** min(deferrals, 16))


def grace_left(since: float | None, looks: int, grace: float, now: float, *, bounded: bool = True) -> float:
    """Return the seconds of `grace` left to a name that is unknown `since`, after `looks` deferrals for it.

    The number of looks bounds the time gone, so that a wall clock that jumps neither ends nor extends the grace. Unless
    `bounded`, a clock that jumps forward ends it: a token without `sid` must not be sent late.
    """
    if since is None:
        return grace
    doubled = min(looks, 7)
    waited = MIN_FAULT_SECONDS * (2.0**doubled - 1) + MAX_FAULT_SECONDS * (looks - doubled)
    least = waited - fault_wait_seconds(looks - 1)  # of the last wait, perhaps only a part
    gone = max(now - since, least)
    return grace - (min(gone, waited) if bounded else gone)


def _age_limit(delivery: Delivery, client: Client, now: float) -> float:
    policy = client.retry
    if has_session(delivery, client):
        longest = policy.max_age
    elif delivery.waits.undated:
        return -math.inf
    else:
        longest = min(policy.max_age, policy.sub_only_max_age)
    return delivery.age_began_at(now) + delivery.held + longest


def _recorded_rest(delivery: Delivery, policy: RetryPolicy) -> float:
    """Return the seconds of `max_age` that its recorded waits leave to the delivery. They may be short by an eighth."""
    return MIN_EARLY_FACTOR * policy.max_age - max(0.0, delivery.waits.seconds - delivery.held)


def is_too_old(delivery: Delivery, client: Client, now: float) -> bool:
    """Return True if the delivery has passed its age limit."""
    if now <= _age_limit(delivery, client, now):
        return False
    return not has_session(delivery, client) or _recorded_rest(delivery, client.retry) <= 0


def expiry_text(delivery: Delivery, client: Client, now: float) -> str:
    """Return why no attempt of the delivery follows, for its dead letter."""
    policy, names_session = client.retry, has_session(delivery, client)
    if delivery.not_after is not None and delivery.not_after <= _age_limit(delivery, client, now):
        why = "not_after leaves no time for another"
    elif delivery.waits.undated and not names_session:
        why = "a token without sid is not sent, since the clock was set back meanwhile, and its age is unknown"
    elif names_session or policy.max_age <= policy.sub_only_max_age:
        why = f"older than max_age ({policy.max_age:g} s)"
    else:
        why = (
            f"a token without sid is not sent after sub_only_max_age ({policy.sub_only_max_age:g} s), since it would "
            "end a session that began since"
        )
    return f"{describe_attempts(delivery, now)}: {why}"


def describe_attempts(delivery: Delivery, now: float) -> str:
    """Return as text how often the delivery was attempted, how long it has been pending, and for which causes."""
    tries = delivery.attempts
    tried = f"given up after {tries} attempt{'s' if tries > 1 else ''}" if tries else "never attempted"
    if delivery.first_taken_at is None:
        return tried
    causes = f", deferred for {', '.join(dict.fromkeys(delivery.waited_for))}" if delivery.waited_for else ""
    uncounted = f", {delivery.held:.0f} s of it through no fault of the client" if delivery.held else ""
    return f"{tried} in {now - delivery.age_began_at(now):.0f} s{causes}{uncounted}"

"""Decides what happens next to a delivery: `Done`, `RetryAt`, `Defer` or `Dead`. Pure: the settlement acts.

`before_attempt` judges what needs no attempt (unknown, paused, expired). `record` writes an outcome into the delivery.
`decide` judges the outcome. Moments are seconds since the epoch, by the caller's clock.

Two limits end a delivery: `max_age`, and `sub_only_max_age` for a token without `sid`. Such a token ends every session
of its subject, and a late one ends a session that began since. Both limits count from the moment when a worker first
took the delivery, attempted or not. Otherwise a delivery that never reaches its client would wait for ever. An event
that waits in the queue because there are no workers is attempted however late (only `not_after` forbids it), since an
open session is the worse fault.

Wall clocks may be wrong, so an age is never less than the recorded waits of the delivery (`RecordedWaits`). Where the
wall clock alone says that it is too old, a delivery without `sid` expires, and one with `sid` gets an attempt first.

A delay that lies with the client (it is down, `Retry-After`, rate, slots) does not stop the ages. A delay that lies
with us does (`paused: true`, and faults of ours), for as long as the delivery was put off, and for `max_paused` in all.

Just before a limit a delivery comes back for a last attempt, on the same terms as any other: none is made if the client
rests or is paused, or if its rate or slots leave no room. A hundred thousand deliveries that wait for a client that is
down expire at about the same moment, and one attempt for each would flood it.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from notifier.model.backoff import EARLY, LATE, SOON, Jitter, Rounding, backoff, deferral_wait
from notifier.model.client import Client, RetryPolicy
from notifier.model.delivery import Delivery, Past
from notifier.model.frozen import frozen, replace
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Outcome, Reason, Refused

# Seconds to wait at least after the first, second and third 400 that counts (R12). Another one is the last. Some
# receivers answer 400 while they cannot read the JWK Set, or within 30 s of their last reading.
REJECTION_WAITS = (3.0, 32.0, 265.0)
PAUSE = 512.0  # seconds until a paused delivery asks again: a power of two, none of which counts as age
OUR_FAULT_BASE, OUR_FAULT_MOST = 2.0, 256.0  # seconds: a fault of ours is looked at again after 2, 4, 8 … 256 s
# Causes that lie with the client: the ages go on. All other causes lie with us and stop the ages.
OF_CLIENT = frozenset({Cause.SLOT, Cause.RATE, Cause.CIRCUIT, Cause.RETRY_AFTER})
NO_SUCH_CLIENT = "the registry has no such client (yet)"
NO_ADDRESS = "the registry has no address for this client any more"
_UNHEARD = ", and the address that its event brings does not count (registry.inline)"
UNKNOWN_TEXTS = frozenset({NO_SUCH_CLIENT, NO_ADDRESS, NO_SUCH_CLIENT + _UNHEARD, NO_ADDRESS + _UNHEARD})
LAST_MOMENT = 1.0  # seconds before a limit at which the last attempt is due


class WaitsAs(Enum):
    """As what a delivery waits."""

    DELAYED = "delayed"  # in the delay queues, for itself or for its turn in its client's line
    TRAVELLER = "traveller"  # in the delay queues, to be its client's next try
    PARKED = "parked"  # in its client's bucket, until the client answers


@dataclass(frozen=True, slots=True)
class Done:
    """The client has been told."""


DONE = Done()


@frozen
class RetryAt:
    """Attempt the delivery again at `due`. A delay that the client asked for is rounded up.

    A parked delivery comes back when its client answers, and at `until` at the latest; `due` is its client's next try.
    """

    due: float
    rounding: Rounding = "down"
    waits_as: WaitsAs = WaitsAs.DELAYED
    until: float = math.inf


@frozen
class Defer:
    """Look at the delivery again at `due`; no attempt is counted. `text` says what is wrong if it is a fault of ours.

    A parked delivery comes back when its client answers, and at `until` at the latest; `due` is its client's next try.
    """

    due: float
    cause: Cause
    text: str = ""
    rounding: Rounding = "down"
    waits_as: WaitsAs = WaitsAs.DELAYED
    until: float = math.inf


@frozen
class Dead:
    """Give the delivery up; an operator may replay it."""

    reason: DeadReason
    text: str


Verdict = Done | RetryAt | Defer | Dead


def before_attempt(
    delivery: Delivery,
    client: Client | None,
    policy: RetryPolicy,
    *,
    issuer_known: bool,
    grace: float,
    carries_sid: bool,
    now: float,
    denied: bool = False,
) -> Defer | Dead | None:
    """Return the verdict that needs no attempt; None if an attempt is to be made.

    `policy`: the client's, or its issuer's if the client is unknown. `grace` is `registry.grace`; `denied`: no event
    may bring an address (`registry.inline: deny`).
    """
    if delivery.not_after is not None and now > delivery.not_after:
        text = f"{_story(delivery, now)}: not_after has passed, the session ran out at the client by itself"
        return Dead(reason=DeadReason.EXPIRED, text=text)
    if delivery.first_taken_at is not None and _too_old(delivery, policy, carries_sid=carries_sid, now=now):
        return _expired(delivery, policy, carries_sid=carries_sid, now=now)
    if client is None or client.told_at is None:
        unknown = NO_SUCH_CLIENT if client is None else NO_ADDRESS
        return _unknown(delivery, unknown, issuer_known=issuer_known, grace=grace, now=now, denied=denied)
    if client.paused:
        return Defer(due=now + PAUSE, cause=Cause.PAUSED, text="the registry says paused: true")
    return None


def _unknown(
    delivery: Delivery, unknown: str, *, issuer_known: bool, grace: float, now: float, denied: bool
) -> Defer | Dead:
    """Put the delivery off for `grace` from when a worker first found no address for it, then give it up.

    However the registry came to have none: a worker that started since does not know that it had one.
    """
    inline = delivery.ignored or (delivery.inline if denied else None)
    unheard = inline is not None and inline.backchannel_logout_uri is not None
    looks = 0 if delivery.unknown_since is None else delivery.deferrals
    time_left = grace_left(delivery.unknown_since, looks, grace, now)
    if time_left > 0:
        wait = min(time_left, our_fault_wait(looks))
        return Defer(due=now + wait, cause=Cause.UNKNOWN, text=unknown + _UNHEARD if unheard else unknown)
    if not issuer_known:
        text = f"{delivery.iss} is not one of `issuers`; add it, then replay"
        return Dead(reason=DeadReason.UNKNOWN_ISSUER, text=text)
    text = _why_unknown(delivery, gone=unknown == NO_ADDRESS, unheard=unheard, denied=denied)
    return Dead(reason=DeadReason.UNKNOWN_CLIENT, text=text)


def _why_unknown(delivery: Delivery, *, gone: bool, unheard: bool, denied: bool) -> str:
    """Return why there is no address for the client, and the remedy. `gone`: it is registered without one."""
    name = f"client {delivery.client_id!r}"
    has_none = (
        f"the address of the {name} is gone: the registry has none for it any more"
        if gone
        else f"the registry has no {name} of this issuer that can be used"
    )
    remedy = "register its address" if gone else "register the client"
    if unheard and denied:
        return (
            f"{has_none}, and the event's URI does not count, whoever says it: registry.inline is deny; {remedy}, then"
            " replay"
        )
    if unheard:
        publisher = (
            "it said neither a user_id nor, over HTTP, an API token"
            if delivery.publisher is None
            else f"it is {delivery.publisher!a}"
        )
        return (
            f"{has_none}, and the event's URI does not count: nobody knows its publisher to be the identity server"
            f' ({publisher}; registry.inline). Name the publisher in issuers["{delivery.iss}"].publishers, or {remedy};'
            " then replay"
        )
    shows = "where its registration comes from" if gone else "whether it was left out, and why"
    return f"{has_none}, and the event has no URI; `notifier clients show` says {shows}; {remedy}, then replay"


def pause_of(outcome: Outcome, policy: RetryPolicy) -> float | None:
    """Return for how many seconds the client asked not to be called (429 or 503 with `Retry-After`)."""
    if isinstance(outcome, Failed) and outcome.retry_after is not None and outcome.status in (429, 503):
        return clamp_retry_after(outcome.retry_after, policy)
    return None


def clamp_retry_after(seconds: float, policy: RetryPolicy) -> float:
    """Bring absurd values to between a second and `max_delay`."""
    return min(max(seconds, SOON), max(policy.max_delay, SOON))


def our_fault_wait(deferrals: int) -> float:
    """Return the seconds until a fault of ours is looked at again, after `deferrals` deferrals for it."""
    return min(OUR_FAULT_MOST, OUR_FAULT_BASE * 2.0 ** min(deferrals, 16))


def grace_left(since: float | None, looks: int, grace: float, now: float, *, bounded: bool = True) -> float:
    """Return the seconds of `grace` left to something unknown `since`, which was put off `looks` times for it.

    The number of looks bounds the time gone, so that a wall clock that jumps neither ends nor extends the grace. Unless
    `bounded`, a clock that jumps forward ends it: of a token without `sid` nobody may be told late.
    """
    if since is None:
        return grace
    doubled = min(looks, 7)
    waited = OUR_FAULT_BASE * (2.0**doubled - 1) + OUR_FAULT_MOST * (looks - doubled)
    least = waited - our_fault_wait(looks - 1)  # of the last wait, perhaps only a part
    gone = max(now - since, least)
    return grace - (min(gone, waited) if bounded else gone)


def record(delivery: Delivery, outcome: Outcome, now: float, seconds: float = 0.0) -> Delivery:
    """Return the delivery after an attempt of so many seconds, which began at `now`.

    A 400 after an ambiguous attempt does not count (R3).
    """
    if outcome.reason is Reason.PROXY:  # ours: neither an attempt nor a mark against the client
        return delivery
    rejected = outcome.reason is Reason.REJECTED_TOKEN and not delivery.ambiguous
    past = Past(at=now, reason=outcome.reason.value, status=outcome.status, text=outcome.text)
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
        asked=False,
        leash=None,
        turn=None,
        unknown_since=None,
    )


def postponed(delivery: Delivery, verdict: Defer, policy: RetryPolicy, now: float) -> Delivery:
    """Return the delivery after a deferral, with its cause, number, and the time that we hold it back.

    A traveller remains one until it is parked: others wait in the bucket for what it finds out.
    """
    travels = verdict.waits_as is WaitsAs.TRAVELLER or (
        delivery.leash is not None and verdict.waits_as is not WaitsAs.PARKED
    )
    lies_with_us = verdict.cause not in OF_CLIENT
    held = delivery.held + (deferral_wait(verdict.due - now, verdict.rounding) if lies_with_us else 0.0)
    noted = verdict.cause in delivery.waited_for
    return replace(
        delivery,
        first_taken_at=now if delivery.first_taken_at is None else delivery.first_taken_at,
        waited_for=delivery.waited_for if noted else (*delivery.waited_for, verdict.cause),
        deferrals=delivery.deferrals + 1 if delivery.deferred_for in (None, verdict.cause) else 1,
        deferred_for=verdict.cause,
        asked=verdict.cause is Cause.RETRY_AFTER,
        held=min(held, policy.max_paused),
        leash=verdict.due if travels else None,
        unknown_since=(delivery.unknown_since or now) if verdict.cause is Cause.UNKNOWN else None,
    )


def not_taken(begun: Delivery, after: Delivery, seconds: float) -> Delivery:
    """Return the delivery as it was begun, if the queue did not take its deferral within so many seconds.

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


def last_moment(delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool, now: float) -> float:
    """Return when the delivery's last attempt is due."""
    return expires_at(delivery, policy, carries_sid=carries_sid, now=now) - LAST_MOMENT


def waits_until(delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool, now: float) -> float:
    """Return until when the delivery may wait for its client: until its last attempt is due, and `now` at the least."""
    last = last_moment(delivery, policy, carries_sid=carries_sid, now=now)
    if last + LAST_MOMENT < now and carries_sid:
        last = now + _recorded_rest(delivery, policy, carries_sid=True) - LAST_MOMENT
    return max(now, min(last, delivery.not_after or math.inf))


def expires_at(delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool, now: float) -> float:
    """Return when the delivery is given up."""
    limit = _age_limit(delivery, policy, carries_sid=carries_sid, now=now)
    return min(limit, delivery.not_after or math.inf)


def uncharged(delivery: Delivery, before: Delivery) -> Delivery:
    """Return the delivery after an attempt whose failure is not charged to it: its next backoff is no longer."""
    return replace(delivery, backoffs=before.backoffs, charged_at=before.charged_at)


def decide(
    outcome: Outcome, delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool, now: float, jitter: Jitter
) -> Done | RetryAt | Defer | Dead:
    """Judge an outcome. `delivery` is as `record` returned it."""
    match outcome:
        case Delivered():
            return DONE
        case Refused(reason=Reason.REJECTED_TOKEN) if delivery.rejections <= len(REJECTION_WAITS):
            least = REJECTION_WAITS[delivery.rejections - 1] if delivery.rejections else 0.0
            return retry(delivery, policy, None, carries_sid=carries_sid, now=now, jitter=jitter, least=least)
        case Refused():
            return Dead(reason=DeadReason(outcome.reason.value), text=_refusal(outcome))
        case Failed(reason=Reason.PROXY):
            wait = our_fault_wait(delivery.deferrals) * (1 + policy.jitter * (2 * jitter() - 1))
            return Defer(due=now + wait, cause=Cause.PROXY, text=outcome.text)
        case Failed():
            return retry(delivery, policy, outcome.retry_after, carries_sid=carries_sid, now=now, jitter=jitter)
        case _:
            assert_never(outcome)


def retry(
    delivery: Delivery,
    policy: RetryPolicy,
    asked: float | None,
    *,
    carries_sid: bool,
    now: float,
    jitter: Jitter,
    least: float = 0.0,
) -> RetryAt | Dead:
    """Return the next attempt, due before the limit: the last one is made just before it.

    `asked`: the seconds for which the client asked. `least`: how long a backoff is, within `max_delay`.
    """
    last = last_moment(delivery, policy, carries_sid=carries_sid, now=now)
    if last - now < SOON:
        return _expired(delivery, policy, carries_sid=carries_sid, now=now)
    if asked is None:
        wait = backoff(policy, max(1, delivery.backoffs), jitter)
        if wait >= min(least, policy.max_delay):
            return RetryAt(due=min(now + wait, last))
        wait = min(least * (1 + policy.jitter * jitter()), policy.max_delay)
    else:
        wait = clamp_retry_after(asked, policy)
    in_time = now + math.ceil(wait) * LATE <= last
    return RetryAt(due=now + wait, rounding="up") if in_time else RetryAt(due=last)


def _longest(policy: RetryPolicy, *, carries_sid: bool) -> float:
    return policy.max_age if carries_sid else min(policy.max_age, policy.sub_only_max_age)


def _age_limit(delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool, now: float) -> float:
    if delivery.waits.undated and not carries_sid:
        return -math.inf
    return delivery.age_began(now) + delivery.held + _longest(policy, carries_sid=carries_sid)


def _recorded_rest(delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool) -> float:
    """Return the seconds that its recorded waits leave to the delivery. They may be short by an eighth."""
    return EARLY * _longest(policy, carries_sid=carries_sid) - max(0.0, delivery.waits.seconds - delivery.held)


def _too_old(delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool, now: float) -> bool:
    if now <= _age_limit(delivery, policy, carries_sid=carries_sid, now=now):
        return False
    return not carries_sid or _recorded_rest(delivery, policy, carries_sid=carries_sid) <= 0


def _expired(delivery: Delivery, policy: RetryPolicy, *, carries_sid: bool, now: float) -> Dead:
    limit = _age_limit(delivery, policy, carries_sid=carries_sid, now=now)
    if delivery.not_after is not None and delivery.not_after <= limit:
        why = "not_after leaves no time for another"
    elif delivery.waits.undated and not carries_sid:
        why = "a token without sid is not sent, since the clock was set back meanwhile, and its age is unknown"
    elif carries_sid or policy.max_age <= policy.sub_only_max_age:
        why = f"older than max_age ({policy.max_age:g} s)"
    else:
        why = (
            f"a token without sid is not sent after sub_only_max_age ({policy.sub_only_max_age:g} s), since it would "
            "end a session begun since"
        )
    return Dead(reason=DeadReason.EXPIRED, text=f"{_story(delivery, now)}: {why}")


def _story(delivery: Delivery, now: float) -> str:
    """Say how often it was attempted, how long it waited, and for what."""
    tries = delivery.attempts
    tried = f"given up after {tries} attempt{'s' if tries > 1 else ''}" if tries else "never attempted"
    if delivery.first_taken_at is None:
        return tried
    causes = f", put off for {', '.join(dict.fromkeys(delivery.waited_for))}" if delivery.waited_for else ""
    uncounted = f", {delivery.held:.0f} s of it through no fault of the client" if delivery.held else ""
    return f"{tried} in {now - delivery.age_began(now):.0f} s{causes}{uncounted}"


def _refusal(outcome: Refused) -> str:
    """Say what the client answered, or which setting denied the delivery."""
    if outcome.status is None:
        return outcome.text
    return f"the client answered {outcome.status}" + (f": {outcome.text}" if outcome.text else "")

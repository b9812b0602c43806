"""Verdicts: what follows an outcome, and what needs no attempt at all."""

from typing import get_args

import pytest

from notifier.delivery.admission import PAUSED_SECONDS, UNKNOWN_TEXTS, verdict_without_attempt
from notifier.delivery.facts import Attempted
from notifier.delivery.verdict import (
    CLIENT_CAUSES,
    Dead,
    Defer,
    DeliveryVerdict,
    RetryAt,
    Standing,
    Verdict,
    decide,
    record_deferral,
    report_attempt,
)
from notifier.model.ages import last_attempt_at
from notifier.model.backoff import deferral_wait
from notifier.model.client import Client, RetryPolicy
from notifier.model.delivery import ClientOverrides, Delivery
from notifier.model.outcome import Cause, DeadReason, Failed, FinalReason, Reason, Refused
from notifier.model.registry import Issuer, Registry
from notifier.queues.rabbitmq.delays import split_into_hops
from tests.support.deliveries import replace

NOW = 1_800_000_000.0
POLICY = RetryPolicy()
CLIENT = Client(iss="https://id.example", client_id="shop", backchannel_logout_uri="https://shop.example/out")
DELIVERY = Delivery(
    id="d1", event_id="e1", id_given=True, iss="https://id.example", client_id="shop", sub="alice", sid="s1"
)
REJECTED = Refused(reason=Reason.REJECTED_TOKEN, status=400)
BUSY = Failed(reason=Reason.SERVER_ERROR, status=503)


def verdict_on(
    outcome: Failed | Refused, delivery: Delivery = DELIVERY, now: float = NOW, *,
    client: Client = CLIENT, lot: float = 0.5,
) -> DeliveryVerdict:  # fmt: skip
    """Decide on an outcome at an available client, by default with a jitter source that moves nothing."""
    fact = Attempted(delivery=delivery, number=1, jti="", alg="", outcome=outcome, seconds=0.0, at=now)
    return decide(report_attempt(delivery, client, fact), client, Standing(), now, lambda: lot)


def registry(*, grace: float = 300.0, issuer_known: bool = True, denied: bool = False) -> Registry:
    """A registry without clients."""
    issuers = {CLIENT.iss: Issuer(iss=CLIENT.iss)} if issuer_known else {}
    return Registry(issuers=issuers, grace=grace, inline="deny" if denied else "publishers")


def ahead(delivery: Delivery, *, grace: float = 300, issuer_known: bool = True, now: float = NOW) -> Verdict | None:
    """`verdict_without_attempt` for a client that nobody knows."""
    return verdict_without_attempt(delivery, None, CLIENT, registry(grace=grace, issuer_known=issuer_known), now)


def known(delivery: Delivery, client: Client = CLIENT, *, now: float = NOW) -> Verdict | None:
    """`verdict_without_attempt` for a client in the registry."""
    return verdict_without_attempt(delivery, client, client, registry(), now)


def waited(delivery: Delivery, seconds: float, now: float) -> tuple[Delivery, float]:
    """The delivery and the moment after a wait."""
    waits = replace(delivery.progress.waits, since=now, longest=seconds)
    return replace(delivery, waits=waits.end_wait(now + seconds, parked=False)), now + seconds


@pytest.mark.parametrize("issuer_known", [True, False])
@pytest.mark.parametrize("denied", [True, False])
@pytest.mark.parametrize("sid", ["s1", None])
def test_a_new_delivery_to_a_client_with_an_address_is_attempted(
    sid: str | None, *, issuer_known: bool, denied: bool
) -> None:
    """So the pipeline calls `verdict_without_attempt` only for other deliveries, and for those with a `not_after`."""
    for now in (0.0, NOW, 2 * NOW):
        by = registry(grace=0.0, issuer_known=issuer_known, denied=denied)
        assert verdict_without_attempt(replace(DELIVERY, first_taken_at=None, sid=sid), CLIENT, CLIENT, by, now) is None


@pytest.mark.parametrize("reason", sorted(set(get_args(FinalReason)) - {Reason.REJECTED_TOKEN}))
def test_a_refusal_is_dead_at_once(reason: FinalReason) -> None:
    """A redirect, a 4xx and a denied address are dead letters with the same word (R12)."""
    _, verdict = verdict_on(Refused(reason=reason, status=404, text="no such path"))
    assert isinstance(verdict, Dead)
    assert verdict.reason == DeadReason(reason.value)


def test_a_400_after_an_ambiguous_attempt_does_not_count() -> None:
    """The first may have worked, and the client refuse the second for that (R3)."""
    unsure, _ = verdict_on(Failed(reason=Reason.TIMEOUT, ambiguous=True))
    after, verdict = verdict_on(Refused(reason=Reason.REJECTED_TOKEN, status=400), unsure)
    assert after.progress.rejections == 0
    assert isinstance(verdict, RetryAt)
    assert verdict_on(Refused(reason=Reason.REJECTED_TOKEN, status=400), after)[0].progress.rejections == 1


@pytest.mark.parametrize("lot", [0.0, 0.5, 0.999])
def test_a_400_is_tried_again_after_the_outage_of_a_jwks(lot: float) -> None:
    """After 3, 32 and 265 s at least, and the fourth 400 that counts is the last (R12)."""
    delivery, now, waits = DELIVERY, NOW, []
    while True:
        delivery, verdict = verdict_on(REJECTED, delivery, now, lot=lot)
        if not isinstance(verdict, RetryAt):
            break
        assert verdict.rounding == "up"
        waits.append(verdict.due - now)
        now = verdict.due
    assert waits == pytest.approx([least * (1 + POLICY.jitter * lot) for least in (3, 32, 265)])
    assert isinstance(verdict, Dead)
    assert (verdict.reason, delivery.progress.attempts) == (DeadReason.REJECTED_TOKEN, 4)


def test_the_wait_after_a_400_is_bounded_and_may_be_longer() -> None:
    """By `max_delay` and the last moment; a backoff that is longer by itself stays."""
    short = replace(CLIENT, retry=replace(POLICY, max_delay=5.0))
    third = replace(DELIVERY, rejections=2, first_taken_at=NOW)
    _, verdict = verdict_on(REJECTED, third, client=short, lot=0.0)
    assert verdict == RetryAt(due=NOW + 5.0, rounding="up")
    _, verdict = verdict_on(REJECTED, replace(third, sid=None), NOW + 500.0, lot=0.0)
    assert verdict == RetryAt(due=NOW + POLICY.sub_only_max_age - 1)
    slow = replace(CLIENT, retry=replace(POLICY, base=600.0))
    _, verdict = verdict_on(REJECTED, third, client=slow)
    assert verdict == RetryAt(due=NOW + 600.0)


def test_a_400_that_does_not_count_waits_for_the_backoff_alone() -> None:
    """R3: the client may have acted on the token before."""
    unsure, _ = verdict_on(Failed(reason=Reason.TIMEOUT, ambiguous=True))
    after, verdict = verdict_on(REJECTED, unsure)
    assert after.progress.rejections == 0
    assert verdict == RetryAt(due=NOW + POLICY.base * POLICY.factor)


@pytest.mark.parametrize(("sid", "limit"), [("s1", POLICY.max_age), (None, POLICY.sub_only_max_age)])
def test_the_last_attempt_is_just_before_the_limit(sid: str | None, limit: float) -> None:
    """No due time lies beyond the limit, and when it has come there is no further one."""
    tired = replace(DELIVERY, sid=sid, attempts=9, backoffs=9, first_taken_at=NOW)
    _, verdict = verdict_on(BUSY, tired, now=NOW + limit - 100)
    assert verdict == RetryAt(due=NOW + limit - 1)
    _, verdict = verdict_on(BUSY, tired, now=NOW + limit - 1)
    assert isinstance(verdict, Dead)
    assert verdict.reason is DeadReason.EXPIRED


@pytest.mark.parametrize("cause", sorted(CLIENT_CAUSES))
@pytest.mark.parametrize(("sid", "limit"), [("s1", POLICY.max_age), (None, POLICY.sub_only_max_age)])
def test_client_failures_do_not_stop_the_age(cause: Cause, sid: str | None, limit: float) -> None:
    """They count from the first deferral, attempted or not, and the dead letter has the cause of the deferral."""
    delivery, now = replace(DELIVERY, sid=sid), NOW
    while (verdict := known(delivery, now=now)) is None:
        last = last_attempt_at(delivery, CLIENT, now)
        assert last == NOW + limit - 1
        later = Defer(due=max(now, min(now + 900, last)), cause=cause)
        delivery = record_deferral(delivery, later, POLICY, now)
        assert (delivery.progress.first_taken_at, delivery.progress.uncounted_seconds) == (NOW, 0.0)
        delivery, now = waited(delivery, deferral_wait(later.due - now, later.rounding), now)
    assert NOW + limit < now < NOW + limit + 2
    assert isinstance(verdict, Dead)
    assert verdict.reason is DeadReason.EXPIRED
    setting = "max_age (86400 s)" if sid else "sub_only_max_age (600 s)"
    assert verdict.text.startswith(f"never attempted in {now - NOW:.0f} s, deferred for {cause}: ")
    assert setting in verdict.text


@pytest.mark.parametrize("cause", sorted(set(Cause) - CLIENT_CAUSES))
def test_internal_faults_stop_the_age(cause: Cause) -> None:
    """They stop while a pause or an internal fault defers the delivery, before its first attempt or after it."""
    without_sid = replace(DELIVERY, sid=None)
    for begun in (without_sid, replace(without_sid, attempts=1, first_taken_at=NOW)):
        delivery, now = begun, NOW
        while now < NOW + 2 * POLICY.sub_only_max_age:
            due = now + 300.0
            delivery = record_deferral(delivery, Defer(due=due, cause=cause), POLICY, now)
            now += deferral_wait(due - now)
        assert delivery.progress.uncounted_seconds == now - NOW
        assert known(delivery, now=now) is None
        assert known(delivery, now=now + POLICY.sub_only_max_age - 1) is None
        assert known(delivery, now=now + POLICY.sub_only_max_age + 1) is not None


def test_internal_faults_expire_in_the_end() -> None:
    """After `max_paused` in all the ages go on."""
    delivery, now = DELIVERY, NOW
    while not isinstance(verdict := known(delivery, replace(CLIENT, paused=True), now=now), Dead):
        assert isinstance(verdict, Defer)
        delivery = record_deferral(delivery, verdict, POLICY, now)
        delivery, now = waited(delivery, deferral_wait(verdict.due - now), now)
    limit = POLICY.max_paused + POLICY.max_age
    assert limit < now - NOW < limit + 2 * PAUSED_SECONDS
    assert verdict.text == (
        f"never attempted in {now - NOW:.0f} s, deferred for paused, {POLICY.max_paused:.0f} s of it through no fault "
        "of the client: older than max_age (86400 s)"
    )


def test_nothing_is_attempted_after_not_after() -> None:
    """Not even a first time; and no retry is due after it."""
    verdict = known(replace(DELIVERY, not_after=NOW - 1))
    assert isinstance(verdict, Dead)
    assert verdict.reason is DeadReason.EXPIRED
    _, retry = verdict_on(BUSY, replace(DELIVERY, attempts=9, backoffs=9, not_after=NOW + 60))
    assert retry == RetryAt(due=NOW + 59)


@pytest.mark.parametrize("inline", [None, ClientOverrides(backchannel_logout_uri="https://a.example/logout")])
@pytest.mark.parametrize("denied", [False, True])
def test_client_without_its_former_address_gets_the_grace(inline: ClientOverrides | None, *, denied: bool) -> None:
    """It had an address when the delivery was made. The delivery is deferred, then a dead letter with that reason."""
    silent = replace(CLIENT, backchannel_logout_uri=None)
    now, waiting = NOW, replace(DELIVERY, ignored=inline, first_taken_at=NOW - 90_000, attempts=7)

    def look() -> Verdict | None:
        return verdict_without_attempt(waiting, silent, silent, registry(denied=denied), now)

    while isinstance(verdict := look(), Defer):
        assert verdict.cause is Cause.UNKNOWN
        assert verdict.text in UNKNOWN_TEXTS
        waiting = record_deferral(waiting, verdict, POLICY, now)
        now += deferral_wait(verdict.due - now)
    assert 290 < now - NOW <= 300
    assert isinstance(verdict, Dead)
    assert verdict.reason is DeadReason.UNKNOWN_CLIENT
    assert verdict.text.startswith("the address of the client 'shop' is gone: the registry has none for it any more")
    assert "register its address" in verdict.text
    assert verdict.text.endswith("then replay")


def test_unknown_client_gets_the_grace() -> None:
    """Deferred, since configuration reaches workers at different times; a dead letter once the grace is over."""
    now, waiting, verdict, last_due = NOW, DELIVERY, ahead(DELIVERY), NOW
    while isinstance(verdict, Defer):
        assert verdict.cause is Cause.UNKNOWN
        last_due = verdict.due
        waiting = record_deferral(waiting, verdict, POLICY, now)
        now += deferral_wait(verdict.due - now)
        verdict = ahead(waiting, now=now)
    assert 290 < now - NOW <= last_due - NOW <= 300
    assert isinstance(verdict, Dead)
    assert verdict.reason is DeadReason.UNKNOWN_CLIENT
    gone = ahead(waiting, now=now, issuer_known=False)
    assert isinstance(gone, Dead)
    assert gone.reason is DeadReason.UNKNOWN_ISSUER


def test_denied_address_error_names_registration() -> None:
    """To name a publisher would not help, whether the event is planned under `deny` or waited for it."""
    override = ClientOverrides(backchannel_logout_uri="https://a.example/logout")
    for asked in (replace(DELIVERY, ignored=override), replace(DELIVERY, inline=override)):
        verdict = verdict_without_attempt(asked, None, CLIENT, registry(grace=0.0, denied=True), NOW)
        assert isinstance(verdict, Dead)
        assert verdict.text.endswith("registry.inline is deny; register the client, then replay")


def test_pause_is_one_hop_and_credited_exactly() -> None:
    """Else a token without sid would be repeated past its staleness."""
    assert deferral_wait(PAUSED_SECONDS) == PAUSED_SECONDS


@pytest.mark.parametrize("asked", [501.0, 550.0, 597.0])
def test_requested_time_is_rounded_down_at_the_limit(asked: float) -> None:
    """A last attempt is made before the limit, not a dead letter without one."""
    tried = replace(DELIVERY, sid=None, attempts=1, first_taken_at=NOW)
    _, verdict = verdict_on(Failed(reason=Reason.THROTTLED, status=429, retry_after=asked), tried)
    assert isinstance(verdict, RetryAt)
    assert NOW + sum(split_into_hops(verdict.due - NOW, verdict.rounding)) < NOW + POLICY.sub_only_max_age

"""The decision table of `notifier/delivery/verdict.py`, row by row."""

from dataclasses import dataclass

import pytest

from notifier.delivery.facts import Attempted
from notifier.delivery.verdict import (
    DONE,
    AttemptReport,
    Dead,
    Defer,
    RetryAt,
    Standing,
    Verdict,
    WaitKind,
    decide,
    report_attempt,
)
from notifier.model.client import Client, RetryPolicy
from notifier.model.delivery import Delivery
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause, DeadReason, Delivered, Failed, Outcome, Reason, Refused
from tests.support.deliveries import replace

NOW = 1_800_000_000.0
POLICY = RetryPolicy()
CLIENT = Client(iss="https://id.example", client_id="shop", backchannel_logout_uri="https://shop.example/out")
NEW = Delivery(id="d1", event_id="e1", id_given=True, iss=CLIENT.iss, client_id="shop", sub="alice", sid="s1")
FAILED_ONCE = replace(NEW, attempts=1, backoffs=1, charged_at=NOW - 10, first_taken_at=NOW - 20)
PROBE = replace(FAILED_ONCE, probe_due=NOW)

AVAILABLE = Standing()
RECOVERED = Standing(succeeded_at=NOW - 5)  # it has answered since the failure of `FAILED_ONCE`
DOWN = Standing(is_available=False, wait_kind=WaitKind.PARKED, cause=Cause.CIRCUIT, due=NOW + 16)
DOWN_WITHOUT_PROBE = replace(DOWN, wait_kind=WaitKind.PROBE)
LIMITED = Standing(is_limited=True, due=NOW + 7, slot_at=NOW + 7)

NO_SID = Dead(reason=DeadReason.NO_SID, text="")
NO_KEY = InternalFault(Cause.SIGNING, "no key")
REJECTED = Refused(reason=Reason.REJECTED_TOKEN, status=400)
GONE = Refused(reason=Reason.REFUSED, status=410)
BUSY = Failed(reason=Reason.SERVER_ERROR, status=503)
TIMED_OUT = Failed(reason=Reason.TIMEOUT)
THROTTLED = Failed(reason=Reason.THROTTLED, status=429)
LATER = Failed(reason=Reason.SERVER_ERROR, status=500, retry_after=40.0)
PAUSED = Failed(reason=Reason.SERVER_ERROR, status=503, retry_after=40.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """An attempt, its client, and the verdict. `backoffs`: the failures that lengthen the backoff afterwards."""

    outcome: Outcome | InternalFault | Dead
    verdict: Verdict | DeadReason
    before: Delivery = FAILED_ONCE
    standing: Standing = AVAILABLE
    seconds: float = 10.0
    backoffs: int = 1
    probe_due: float | None = None
    slot_at: float | None = None


TABLE = {
    "delivered": Row(outcome=Delivered(status=200), verdict=DONE),
    "no request is possible": Row(outcome=NO_SID, verdict=NO_SID),
    "internal fault": Row(outcome=NO_KEY, verdict=Defer(due=NOW + 2, cause=Cause.SIGNING, text="no key")),
    "internal fault of a probe": Row(
        outcome=NO_KEY, before=PROBE, standing=DOWN, probe_due=NOW + 2,
        verdict=Defer(due=NOW + 2, cause=Cause.SIGNING, text="no key"),
    ),
    "400 that expires": Row(
        outcome=REJECTED, before=replace(NEW, not_after=NOW + 1.5), verdict=DeadReason.EXPIRED
    ),
    "failed and expires": Row(
        outcome=BUSY, before=replace(NEW, not_after=NOW + 1.5), standing=DOWN, verdict=DeadReason.EXPIRED
    ),
    "first 400": Row(
        outcome=REJECTED, before=NEW, verdict=RetryAt(due=NOW + 3 * (1 + POLICY.jitter / 2), rounding="up")
    ),
    "400 that does not count, after an ambiguous attempt": Row(
        outcome=REJECTED, before=replace(FAILED_ONCE, ambiguous=True), verdict=RetryAt(due=NOW + 6), backoffs=2
    ),
    "fourth 400": Row(
        outcome=REJECTED, before=replace(FAILED_ONCE, rejections=3), verdict=DeadReason.REJECTED_TOKEN, backoffs=2
    ),
    "refused": Row(outcome=GONE, before=NEW, verdict=DeadReason.REFUSED),
    "refused, client unavailable": Row(outcome=GONE, before=NEW, standing=DOWN, verdict=DeadReason.REFUSED),
    "timeout while suspended": Row(
        outcome=TIMED_OUT, standing=DOWN, seconds=1.0, verdict=RetryAt(due=NOW + 6), backoffs=2
    ),
    "Retry-After with 500": Row(outcome=LATER, verdict=RetryAt(due=NOW + 40, rounding="up"), backoffs=2),
    "Retry-After with 500, client unavailable": Row(
        outcome=LATER, standing=DOWN, verdict=RetryAt(due=NOW + 40, rounding="up"), backoffs=2
    ),
    "unavailable, the probe": Row(
        outcome=BUSY, standing=DOWN_WITHOUT_PROBE, probe_due=NOW + 16,
        verdict=RetryAt(due=NOW + 16, wait_kind=WaitKind.PROBE, rounding="up"),
    ),
    "unavailable, the probe expires": Row(
        outcome=BUSY, before=replace(FAILED_ONCE, not_after=NOW + 10), standing=DOWN_WITHOUT_PROBE, probe_due=NOW + 9,
        verdict=RetryAt(due=NOW + 9, wait_kind=WaitKind.PROBE),
    ),
    "unavailable": Row(
        outcome=BUSY, standing=DOWN,
        verdict=RetryAt(due=NOW + 16, wait_kind=WaitKind.PARKED, until=NOW + POLICY.max_age - 21),
    ),
    "unavailable, by Retry-After": Row(
        outcome=PAUSED, standing=DOWN,
        verdict=RetryAt(due=NOW + 16, wait_kind=WaitKind.PARKED, until=NOW + POLICY.max_age - 21),
    ),
    "unavailable, expires within a minute": Row(
        outcome=BUSY, before=replace(FAILED_ONCE, not_after=NOW + 50), standing=DOWN, verdict=RetryAt(due=NOW + 10)
    ),
    "unavailable, worker stops": Row(
        outcome=BUSY, standing=replace(DOWN, may_park=False), verdict=RetryAt(due=NOW + 10)
    ),
    "429, rate limited": Row(outcome=THROTTLED, standing=LIMITED, verdict=RetryAt(due=NOW + 7), slot_at=NOW + 7),
    "503, rate limited": Row(outcome=BUSY, standing=LIMITED, verdict=RetryAt(due=NOW + 2)),
    "first failure": Row(outcome=BUSY, before=NEW, verdict=RetryAt(due=NOW + 2)),
    "a success since the last failure": Row(
        outcome=BUSY, standing=RECOVERED, verdict=RetryAt(due=NOW + 6), backoffs=2
    ),
    "no success since the last failure": Row(outcome=BUSY, verdict=RetryAt(due=NOW + 2)),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_verdict_follows_from_attempt_delivery_and_standing(row: Row) -> None:
    """Each row of the table, and how the delivery waits afterwards."""
    report = AttemptReport(before=row.before, after=row.before, outcome=row.outcome)
    if isinstance(row.outcome, Refused | Failed):
        fact = Attempted(
            delivery=row.before, number=1, jti="", alg="", outcome=row.outcome, seconds=row.seconds, at=NOW
        )
        report = report_attempt(row.before, CLIENT, fact)
    after, verdict = decide(report, CLIENT, row.standing, NOW, lambda: 0.5)
    found = verdict.reason if isinstance(row.verdict, DeadReason) and isinstance(verdict, Dead) else verdict
    assert (found, after.progress.backoffs) == (row.verdict, row.backoffs)
    assert (after.progress.probe_due, after.progress.slot_at) == (row.probe_due, row.slot_at)

"""Each row of the table of answers, each override of one client, and the pauses that a client asks for."""

from email.utils import formatdate

import pytest

from notifier.delivery.facts import Attempted, DeadLettered, Deferred, LogoutDelivered, RetryScheduled
from notifier.model.client import ResponsePolicy, RetryPolicy
from notifier.model.outcome import Cause, Reason, TransportFailure
from tests.delivery.worker_harness import WorkerHarness, answers, client, results_in, running

DONE, RETRIED = "done", "retried"
PLAIN = ResponsePolicy()
EXACT = RetryPolicy(jitter=0.0)


async def fate(status: int, policy: ResponsePolicy = PLAIN) -> tuple[str, str]:
    """The reason of one attempt, and what follows: done, retried, or the dead letter's reason."""
    async with running(WorkerHarness(client("shop", response=policy))) as harness:
        harness.receivers.behaviours["shop"] = answers(status)
        await harness.acked(harness.event("shop"))
    [attempted] = [fact for fact in harness.facts if isinstance(fact, Attempted)]
    dead = [dead_letter["reason"] for dead_letter in harness.dead()]
    followed = dead[0] if dead else RETRIED if harness.queue.published else DONE
    return str(attempted.outcome.reason), followed


@pytest.mark.parametrize(
    ("statuses", "reason", "follows"),
    [
        ((200, 201, 202, 204, 206, 299), "delivered", DONE),
        ((300, 301, 302, 303, 304, 307, 308, 399), "redirect", "redirect"),
        ((400,), "rejected_token", RETRIED),
        ((401, 403, 404, 405, 410, 413, 415, 402, 409, 418, 422, 451, 499), "refused", "refused"),
        ((408, 425, 500, 501, 502, 503, 504, 599, 999), "server_error", RETRIED),
        ((429,), "throttled", RETRIED),
    ],
)
async def test_every_row(statuses: tuple[int, ...], reason: str, follows: str) -> None:
    """B27, R11, R12: the reason of each answer, and the verdict."""
    for status in statuses:
        assert await fate(status) == (reason, follows), status


async def test_a_refusing_proxy_is_an_internal_fault() -> None:
    """No attempt is counted and nothing is written into the history."""
    refused = TransportFailure(reason=Reason.PROXY, ambiguous=False, text="proxy: answered 407")
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = results_in(refused)
        await harness.acked(harness.event("shop"))
    [deferred] = [fact for fact in harness.facts if isinstance(fact, Deferred)]
    assert (deferred.cause, deferred.text, deferred.due) == (Cause.PROXY, "proxy: answered 407", harness.now + 2.0)
    assert deferred.delivery is not None
    assert (
        deferred.delivery.progress.attempts,
        deferred.delivery.progress.history,
        deferred.delivery.progress.deferrals,
    ) == (0, (), 1)


async def test_the_fourth_400_is_a_dead_letter() -> None:
    """R12: three further attempts, each with a new token."""
    async with running(WorkerHarness(client("shop", retry=EXACT))) as harness:
        harness.receivers.behaviours["shop"] = answers(400)
        await harness.acked(harness.event("shop", id="e1"))
        for _ in range(3):
            harness.now += 3600
            await harness.acked(harness.retake(harness.queue.published[-1][0]))
    assert [dead_letter["reason"] for dead_letter in harness.dead()] == ["rejected_token"]
    assert len({claims["jti"] for _, claims in harness.receivers.posts}) == 4


@pytest.mark.parametrize("status", [302, 400, 404, 429, 501, 503])
async def test_a_client_may_count_any_status_as_success(status: int) -> None:
    """`success_statuses` goes before the table."""
    assert await fate(status, ResponsePolicy(success_statuses=frozenset({status}))) == ("delivered", DONE)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 410])
async def test_a_client_may_have_any_status_retried(status: int) -> None:
    """`retry_statuses` goes before the table, for that status alone."""
    policy = ResponsePolicy(retry_statuses=frozenset({status}))
    assert await fate(status, policy) == ("server_error", RETRIED)
    assert await fate(403, policy) == ("refused", "refused")


@pytest.mark.parametrize(
    ("form", "wait"),
    [
        ("120", 120),
        ("0", 1),
        ("1", 1),
        ("3601", 3600),
        ("99999999999999999999", 3600),
        ("date+90", 90),
        ("date-90", 1),
        ("date+999999999", 3600),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 500, 408])
async def test_retry_after_is_when_the_next_attempt_is_due(form: str, wait: float, status: int) -> None:
    """Seconds or a date; absurd values come to between a second and `max_delay`; never sooner than asked for."""
    async with running(WorkerHarness(client("shop", retry=EXACT))) as harness:
        value = formatdate(harness.now + float(form[4:]), usegmt=True) if form.startswith("date") else form
        harness.receivers.behaviours["shop"] = answers(status, value)
        await harness.acked(harness.event("shop"))
        [retry] = [fact for fact in harness.facts if isinstance(fact, RetryScheduled)]
    assert retry.due == harness.now + wait


@pytest.mark.parametrize("value", ["soon", "-5", "1e3", "", "Tue, 99 Foo 2027"])
async def test_a_retry_after_that_cannot_be_read_is_none(value: str) -> None:
    """The usual backoff then, and no pause."""
    async with running(WorkerHarness(client("shop", retry=EXACT))) as harness:
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503, value)
        await harness.acked(harness.event("shop"))
        [retry] = [fact for fact in harness.facts if isinstance(fact, RetryScheduled)]
        assert retry.due == harness.now + 2
        await harness.acked(harness.event("shop"))
    assert harness.notified() == ["shop", "shop"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["60", "date"])
async def test_a_pause_holds_for_all_of_that_clients_deliveries(status: int, form: str) -> None:
    """None is attempted before it is over, other clients do not notice, and then it goes on."""
    async with running(WorkerHarness(client("shop", retry=EXACT), client("mail"))) as harness:
        value = formatdate(harness.now + 60, usegmt=True) if form == "date" else form
        harness.receivers.behaviours["shop"] = answers(status, value)
        await harness.acked(harness.event("shop"))
        paused_until = harness.now + 60
        harness.now += 10
        await harness.acked(harness.event("shop", "mail", id="next"))
        assert harness.notified() == ["shop", "mail"]
        [deferred] = [fact for fact in harness.facts if isinstance(fact, Deferred)]
        assert deferred.cause is Cause.RETRY_AFTER
        assert paused_until <= deferred.due <= paused_until + 5
        harness.receivers.behaviours["shop"] = answers(200)
        harness.now = paused_until + 5
        await harness.acked(harness.retake(harness.queue.published[-1][0]))
    assert harness.notified() == ["shop", "mail", "shop"]


@pytest.mark.parametrize("status", [500, 502, 408, 425])
async def test_retry_after_of_other_statuses_delays_one_delivery_only(status: int) -> None:
    """Only 429 and 503 speak for the whole client (RFC 9110 §10.2.3, RFC 6585 §4)."""
    async with running(WorkerHarness(client("shop", retry=EXACT))) as harness:
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(status, "60")
        await harness.acked(harness.event("shop"))
        await harness.acked(harness.event("shop"))
    assert harness.notified() == ["shop", "shop"]


async def test_an_absurd_pause_is_clamped() -> None:
    """A client that requests a year is attempted again after `max_delay`."""
    async with running(WorkerHarness(client("shop", retry=RetryPolicy(jitter=0.0, max_delay=30.0)))) as harness:
        harness.receivers.behaviours["shop"] = answers(503, "31536000")
        await harness.acked(harness.event("shop"))
        harness.now += 31
        await harness.acked(harness.event("shop"))
    assert harness.notified() == ["shop", "shop"]


async def test_400_with_an_unpublished_key_is_an_internal_fault() -> None:
    """Every client must refuse such a token: it is held back, and neither an attempt nor a rejection counts (R12)."""
    async with running(WorkerHarness(client("shop", retry=EXACT))) as harness:
        harness.unpublished = "the key is not published (kid k1)"
        harness.receivers.behaviours["shop"] = answers(400)
        await harness.acked(harness.event("shop", id="e1"))
        for _ in range(6):  # more than the four attempts after which a 400 is a dead letter
            harness.now += 600
            await harness.acked(harness.retake(harness.queue.published[-1][0]))
        causes = {fact.cause for fact in harness.facts if isinstance(fact, Deferred)}
        assert causes == {Cause.SIGNING}
        assert not harness.dead()
        assert {fact.number for fact in harness.facts if isinstance(fact, Attempted)} == {1}
        harness.unpublished = None
        harness.receivers.behaviours["shop"] = answers(200)
        await harness.acked(harness.retake(harness.queue.published[-1][0]))
    assert len({posted["jti"] for _, posted in harness.receivers.posts}) == 8
    assert [fact for fact in harness.facts if isinstance(fact, LogoutDelivered)]


async def test_only_a_400_is_held_back_by_a_missing_key() -> None:
    """If the client accepts the token or is down, this proves nothing about the key."""
    for status, fact in ((200, LogoutDelivered), (503, RetryScheduled), (404, DeadLettered)):
        async with running(WorkerHarness(client("shop", retry=EXACT))) as harness:
            harness.unpublished = "the key is not published (kid k1)"
            harness.receivers.behaviours["shop"] = answers(status)
            await harness.acked(harness.event("shop", id="e1"))
        assert [reported for reported in harness.facts if isinstance(reported, fact)], status

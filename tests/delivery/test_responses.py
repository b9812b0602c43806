"""Each row of the table of answers, each override of one client, and the pauses that a client asks for."""

from email.utils import formatdate

import pytest

from notifier.delivery.facts import Attempted, DeadLettered, Deferred, LogoutDelivered, RetryScheduled
from notifier.model.client import ResponsePolicy, RetryPolicy
from notifier.model.outcome import Break, Cause, Reason, Wire
from notifier.model.request import Request
from tests.delivery.stage import Stage, answers, client, running

DONE, RETRIED = "done", "retried"
PLAIN = ResponsePolicy()
EXACT = RetryPolicy(jitter=0.0)


async def fate(status: int, policy: ResponsePolicy = PLAIN) -> tuple[str, str]:
    """The reason of one attempt, and what follows: done, retried, or the dead letter's reason."""
    async with running(Stage(client("shop", response=policy))) as stage:
        stage.receivers.behaviours["shop"] = answers(status)
        await stage.acked(stage.event("shop"))
    [attempted] = [fact for fact in stage.facts if isinstance(fact, Attempted)]
    dead = [letter["reason"] for letter in stage.dead()]
    followed = dead[0] if dead else RETRIED if stage.queue.published else DONE
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
    async with running(Stage(client("shop"))) as stage:

        async def refused(_request: Request) -> Wire:
            return Break(reason=Reason.PROXY, ambiguous=False, text="proxy: answered 407")

        stage.receivers.behaviours["shop"] = refused
        await stage.acked(stage.event("shop"))
    [deferred] = [fact for fact in stage.facts if isinstance(fact, Deferred)]
    assert (deferred.cause, deferred.text, deferred.due) == (Cause.PROXY, "proxy: answered 407", stage.now + 2.0)
    assert deferred.delivery is not None
    assert (deferred.delivery.attempts, deferred.delivery.history, deferred.delivery.deferrals) == (0, (), 1)


async def test_the_fourth_400_is_a_dead_letter() -> None:
    """R12: three further attempts, each with a new token."""
    async with running(Stage(client("shop", retry=EXACT))) as stage:
        stage.receivers.behaviours["shop"] = answers(400)
        await stage.acked(stage.event("shop", id="e1"))
        for _ in range(3):
            stage.now += 3600
            await stage.acked(stage.retake(stage.queue.published[-1][0]))
    assert [letter["reason"] for letter in stage.dead()] == ["rejected_token"]
    assert len({claims["jti"] for _, claims in stage.receivers.posts}) == 4


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
    async with running(Stage(client("shop", retry=EXACT))) as stage:
        value = formatdate(stage.now + float(form[4:]), usegmt=True) if form.startswith("date") else form
        stage.receivers.behaviours["shop"] = answers(status, value)
        await stage.acked(stage.event("shop"))
        [retry] = [fact for fact in stage.facts if isinstance(fact, RetryScheduled)]
    assert retry.due == stage.now + wait


@pytest.mark.parametrize("value", ["soon", "-5", "1e3", "", "Tue, 99 Foo 2027"])
async def test_a_retry_after_that_cannot_be_read_is_none(value: str) -> None:
    """The usual backoff then, and no pause."""
    async with running(Stage(client("shop", retry=EXACT))) as stage:
        await stage.prove("shop")
        stage.receivers.behaviours["shop"] = answers(503, value)
        await stage.acked(stage.event("shop"))
        [retry] = [fact for fact in stage.facts if isinstance(fact, RetryScheduled)]
        assert retry.due == stage.now + 2
        await stage.acked(stage.event("shop"))
    assert stage.told() == ["shop", "shop"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["60", "date"])
async def test_a_pause_holds_for_all_of_that_clients_deliveries(status: int, form: str) -> None:
    """None is attempted before it is over, other clients do not notice, and then it goes on."""
    async with running(Stage(client("shop", retry=EXACT), client("mail"))) as stage:
        value = formatdate(stage.now + 60, usegmt=True) if form == "date" else form
        stage.receivers.behaviours["shop"] = answers(status, value)
        await stage.acked(stage.event("shop"))
        paused_until = stage.now + 60
        stage.now += 10
        await stage.acked(stage.event("shop", "mail", id="next"))
        assert stage.told() == ["shop", "mail"]
        [deferred] = [fact for fact in stage.facts if isinstance(fact, Deferred)]
        assert deferred.cause is Cause.RETRY_AFTER
        assert paused_until <= deferred.due <= paused_until + 5
        stage.receivers.behaviours["shop"] = answers(200)
        stage.now = paused_until + 5
        await stage.acked(stage.retake(stage.queue.published[-1][0]))
    assert stage.told() == ["shop", "mail", "shop"]


@pytest.mark.parametrize("status", [500, 502, 408, 425])
async def test_other_statuses_with_retry_after_hold_back_their_own_delivery_alone(status: int) -> None:
    """Only 429 and 503 speak for the whole client (RFC 9110 §10.2.3, RFC 6585 §4)."""
    async with running(Stage(client("shop", retry=EXACT))) as stage:
        await stage.prove("shop")
        stage.receivers.behaviours["shop"] = answers(status, "60")
        await stage.acked(stage.event("shop"))
        await stage.acked(stage.event("shop"))
    assert stage.told() == ["shop", "shop"]


async def test_an_absurd_pause_is_clamped() -> None:
    """A client that requests a year is attempted again after `max_delay`."""
    async with running(Stage(client("shop", retry=RetryPolicy(jitter=0.0, max_delay=30.0)))) as stage:
        stage.receivers.behaviours["shop"] = answers(503, "31536000")
        await stage.acked(stage.event("shop"))
        stage.now += 31
        await stage.acked(stage.event("shop"))
    assert stage.told() == ["shop", "shop"]


async def test_a_400_while_our_key_is_not_published_is_a_fault_of_ours() -> None:
    """Every client must refuse such a token: it is held back, and neither an attempt nor a rejection counts (R12)."""
    async with running(Stage(client("shop", retry=EXACT))) as stage:
        stage.unpublished = "the key is not published (kid k1)"
        stage.receivers.behaviours["shop"] = answers(400)
        await stage.acked(stage.event("shop", id="e1"))
        for _ in range(6):  # more than the four attempts after which a 400 is a dead letter
            stage.now += 600
            await stage.acked(stage.retake(stage.queue.published[-1][0]))
        causes = {fact.cause for fact in stage.facts if isinstance(fact, Deferred)}
        assert causes == {Cause.SIGNING}
        assert not stage.dead()
        assert {fact.number for fact in stage.facts if isinstance(fact, Attempted)} == {1}
        stage.unpublished = None
        stage.receivers.behaviours["shop"] = answers(200)
        await stage.acked(stage.retake(stage.queue.published[-1][0]))
    assert len({posted["jti"] for _, posted in stage.receivers.posts}) == 8
    assert [fact for fact in stage.facts if isinstance(fact, LogoutDelivered)]


async def test_only_a_400_is_held_back_by_a_missing_key() -> None:
    """If the client accepts the token or is down, this proves nothing about the key."""
    for status, fact in ((200, LogoutDelivered), (503, RetryScheduled), (404, DeadLettered)):
        async with running(Stage(client("shop", retry=EXACT))) as stage:
            stage.unpublished = "the key is not published (kid k1)"
            stage.receivers.behaviours["shop"] = answers(status)
            await stage.acked(stage.event("shop", id="e1"))
        assert [told for told in stage.facts if isinstance(told, fact)], status

"""The demo's account is honest: a delivery counts as done only where its client, or a dead letter, says so."""

from collections import Counter

from notifier.demo.bookkeeping import DemoTally, SignOut, settle_account
from notifier.demo.receivers import Behaviour, Receiver, SessionRecord
from notifier.demo.token_check import TokenCheck
from notifier.domain.dead_letter import DeadLetter
from notifier.domain.delivery import Delivery
from notifier.domain.outcome import Cause, DeadReason
from notifier.pipeline.facts import Buried, Deferred, LogoutDelivered, RetryScheduled

ISS = "https://id.example.com"
SIGN_OUTS = [SignOut(event_id=f"e-{number}", sid=f"s-{number}", at=100.0) for number in range(3)]


def receiver(client_id: str, **logged_out: tuple[int, float]) -> Receiver:
    """A client that was logged out of these sessions: how often it accepted, and when first."""
    check = TokenCheck(iss=ISS, client_id=client_id, alg="RS256", jwks={"keys": []}, clock=lambda: 0.0)
    made = Receiver(client_id=client_id, kind=Behaviour.HEALTHY, check=check, clock=lambda: 0.0, pause=0.0)
    for sid, (times, at) in logged_out.items():
        made.visits[sid.replace("_", "-")] = SessionRecord(
            posts=times, accepted=times, first_at=at, last_at=at, logged_out_at=at
        )
    return made


def delivery(event_id: str) -> Delivery:
    """A delivery to `shop`."""
    return Delivery(
        id=f"d-{event_id}", event_id=event_id, id_given=True, iss=ISS, client_id="shop", sub="alice", sid="s"
    )


def letter(event_id: str, client_id: str, reason: DeadReason) -> DeadLetter:
    """A dead letter as browsed."""
    return DeadLetter(
        id=f"{event_id}/{client_id}", reason=reason, text="", dead_since=0.0, client_id=client_id, event_id=event_id
    )


def test_a_delivery_that_nobody_knows_of_is_unaccounted_for() -> None:
    """Neither the client's record nor a dead letter: it is named, and the account does not hold."""
    shop = receiver("shop", s_0=(1, 100.5))
    account = settle_account(SIGN_OUTS, [shop], [letter("e-1", "shop", DeadReason.EXPIRED)], DemoTally(3))
    assert account.unaccounted == (("e-2", "shop"),)
    assert not account.holds


def test_the_account_adds_up() -> None:
    """Delivered, dead by reason, doubled and the median come from the clients' records and the dead letters."""
    shop = receiver("shop", s_0=(1, 100.1), s_1=(2, 100.3))
    letters = [
        letter("e-2", "shop", DeadReason.REFUSED),
        letter("e-0", "elsewhere", DeadReason.REFUSED),
    ]
    account = settle_account(SIGN_OUTS, [shop], letters, DemoTally(3))
    (row,) = account.rows
    assert (row.delivered, row.dead, row.duplicates) == (2, Counter(refused=1), 1)
    assert row.median is not None
    assert abs(row.median - 0.2) < 1e-6
    assert account.holds


def test_a_client_s_word_counts_before_a_dead_letter() -> None:
    """After an ambiguous attempt both may exist; the session is over, and that is what counts."""
    letters = [letter(one.event_id, "shop", DeadReason.EXPIRED) for one in SIGN_OUTS]
    account = settle_account(SIGN_OUTS, [receiver("shop", s_0=(1, 101.0))], letters, DemoTally(3))
    assert (account.delivered, dict(account.dead)) == (1, {"expired": 2})


def test_an_invalid_token_spoils_the_account() -> None:
    """A token that a client could not verify is a fault even where a later one arrived."""
    shop = receiver("shop", s_0=(1, 100.0), s_1=(1, 100.0), s_2=(1, 100.0))
    shop.invalid.append("jti was seen before (R2)")
    account = settle_account(SIGN_OUTS, [shop], [], DemoTally(3))
    assert account.unaccounted == ()
    assert not account.holds


def test_the_tally_follows_each_delivery_to_its_state() -> None:
    """A delivery waits from its retry or deferral until it is delivered or dead, and counts once."""
    tally = DemoTally(3)
    tally(RetryScheduled(delivery=delivery("e-0"), due=1.0))
    tally(RetryScheduled(delivery=delivery("e-0"), due=3.0))
    tally(Deferred(iss=ISS, client_id="shop", event_id="e-1", cause=Cause.SLOT, due=1.0))
    assert (tally.progress("shop").waiting, tally.settled) == (2, False)
    tally(LogoutDelivered(delivery=delivery("e-0"), propagation=None))
    tally(Buried(iss=ISS, client_id="shop", event_id="e-1", reason=DeadReason.EXPIRED, text=""))
    assert (tally.progress("shop").waiting, tally.settled) == (0, False)
    tally(LogoutDelivered(delivery=delivery("e-2"), propagation=None))
    now = tally.progress("shop")
    assert (now.delivered, now.dead, tally.settled) == (2, 1, True)

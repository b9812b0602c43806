"""Duplicates: a second copy joins the first, within bounds, and never where somebody wants another attempt."""

import math

import pytest

from notifier.domain.outcome import Cause, DeadReason
from notifier.domain.verdict import Dead, Defer, RetryAt
from notifier.pipeline.duplicates import (
    ARRIVAL,
    LONGEST_STANDING,
    Apart,
    Duplicates,
    Expected,
    First,
    Joined,
    Known,
    stands_for,
)

NOW = 1000.0
HOP = 4.0
BURIED = -math.inf
"""Until when a dead letter stands for its delivery: not at all."""


def put_off(seen: Duplicates[str], delivery_id: str = "d", now: float = NOW) -> None:
    """What is in flight has a retry by now, or a deferral, that comes back after `HOP`."""
    seen.leaves(delivery_id, now + HOP)
    seen.end(delivery_id, delivered=False)


def test_a_second_copy_shares_the_fate_of_the_first() -> None:
    """Both holders are told at the end."""
    seen: Duplicates[str] = Duplicates()
    assert seen.begin("d", 0, "one", NOW) == First()
    assert seen.begin("d", 0, "two", NOW) == Joined()
    assert seen.end("d", delivered=True) == ["one", "two"]
    assert seen.begin("d", 0, "three", NOW + 1e6) == Known()


def test_what_was_not_delivered_is_made_again() -> None:
    """A retry carries the same id: it must be attempted, whenever it comes."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW)
    put_off(seen)
    assert seen.begin("d", 1, "retry", NOW) == First()


def test_a_retry_stands_for_its_delivery() -> None:
    """Once it is durable, a copy of the event has nothing left to do; while it is made here, it shares its fate."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW, of_event=True)
    put_off(seen)
    assert seen.begin("d", 0, "copy", NOW + HOP - 0.01, of_event=True) == Known()
    assert seen.begin("d", 1, "retry", NOW + HOP) == First()
    assert seen.begin("d", 0, "copy", NOW + HOP + 100, of_event=True) == Joined()
    assert seen.end("d", delivered=False) == ["retry", "copy"]


def test_what_was_given_up_may_be_sent_again() -> None:
    """Whoever sends an event again after its dead letter, or replays that, wants another attempt, and at once."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW, of_event=True)
    put_off(seen)
    seen.begin("d", 1, "retry", NOW + HOP)
    seen.leaves("d", BURIED)
    seen.end("d", delivered=False)
    assert seen.begin("d", 0, "sent again", NOW + HOP, of_event=True) == First()


@pytest.mark.parametrize("of_event", [True, False], ids=["event sent again", "letter replayed"])
def test_nobody_shares_a_fate_that_may_be_known_already(*, of_event: bool) -> None:
    """A dead letter can be seen, and answered, before its confirm is here; joined, the answer would be acked too."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW, of_event=True)
    assert seen.begin("d", 0, "copy", NOW, of_event=of_event) == Joined()
    seen.leaves("d", BURIED)
    assert seen.begin("d", 0, "answer", NOW, of_event=of_event) == Apart()
    assert seen.end("d", delivered=False) == ["one", "copy"]


@pytest.mark.parametrize("stands", [0.0, HOP], ids=["parked", "retried"])
def test_a_copy_waits_for_the_confirm_of_what_may_be_given_up_elsewhere(stands: float) -> None:
    """Its cause may be a dead letter, so it does not share that fate. Mostly there is none: it looks for the retry."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW, of_event=True)
    assert seen.begin("d", 0, "copy", NOW, of_event=True) == Joined()
    seen.leaves("d", over := NOW + stands)
    assert seen.begin("d", 0, "sent again", over, of_event=True) == Expected(over)
    assert seen.end("d", delivered=False) == ["one", "copy"]
    assert seen.begin("d", 0, "sent again", over, of_event=True) == Expected(over + ARRIVAL)
    assert seen.begin("d", 0, "sent again", over + ARRIVAL, of_event=True) == First()


def test_a_copy_shares_the_fate_of_what_nobody_else_can_give_up() -> None:
    """The confirm is on its way, and the retry in its delay queue."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW, of_event=True)
    seen.leaves("d", NOW + HOP)
    assert seen.begin("d", 0, "copy", NOW + HOP - 0.01, of_event=True) == Joined()


def test_a_retry_waits_for_what_scheduled_it() -> None:
    """It may come back before its scheduling is confirmed: the only durable copy must not be acked with the first."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW, of_event=True)
    seen.leaves("d", NOW + HOP)
    assert seen.begin("d", 1, "its retry", NOW + HOP) == Expected(NOW + HOP)
    assert seen.end("d", delivered=False) == ["one"]
    assert seen.begin("d", 1, "its retry", NOW + HOP) == First()
    assert seen.end("d", delivered=True) == ["its retry"]
    assert seen.begin("d", 2, "late", NOW + HOP) == Known()


def test_a_retry_waits_for_a_copy_that_is_attempted() -> None:
    """The client is not told by both."""
    seen: Duplicates[str] = Duplicates()
    assert seen.begin("d", 0, "copy", NOW, of_event=True) == First()
    assert seen.begin("d", 1, "retry", NOW) == Expected(NOW)
    seen.end("d", delivered=True)
    assert seen.begin("d", 1, "retry", NOW) == Known()


def test_delivered_is_the_last_word() -> None:
    """Whatever is made durable later, and whichever stage comes."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", NOW)
    seen.end("d", delivered=True)
    seen.leaves("d", BURIED)
    assert seen.begin("d", 3, "late", NOW + 1e6) == Known()


def test_memory_is_bounded() -> None:
    """At least so many are remembered, and twice as many at most; of the oldest copies are told again, harmlessly."""
    seen: Duplicates[str] = Duplicates(remembered=2)
    for name in "abcde":
        seen.begin(name, 0, "x", NOW)
        seen.end(name, delivered=True)
    assert [seen.begin(name, 0, "x", NOW) for name in "edcba"] == [Known(), Known(), Known(), First(), First()]


def test_what_is_given_up_is_forgotten_however_long_ago_its_retry_was() -> None:
    """Whoever sends its event again wants it tried again."""
    seen: Duplicates[str] = Duplicates(remembered=2)
    for name, until, delivered in (("a", NOW + HOP, False), ("b", NOW, True), ("a", BURIED, False)):
        seen.begin(name, 0, "x", NOW)
        seen.leaves(name, until)
        seen.end(name, delivered=delivered)
    assert seen.begin("a", 0, "x", NOW, of_event=True) == First()
    assert seen.begin("b", 0, "x", NOW) == Known()


@pytest.mark.parametrize(
    ("verdict", "seconds"),
    [
        (RetryAt(due=NOW + 2.4), 2),
        (RetryAt(due=NOW + 45), 32),
        (RetryAt(due=NOW + 45, rounding="up"), 32),
        (RetryAt(due=NOW + 3600), LONGEST_STANDING),
        (Defer(due=NOW + 0.2, cause=Cause.SLOT), 1),
        (Defer(due=NOW + 45, cause=Cause.RATE), 32),
        (Defer(due=NOW + 45, cause=Cause.RETRY_AFTER, rounding="up"), LONGEST_STANDING),
        (Dead(reason=DeadReason.REFUSED, text=""), BURIED),
    ],
)
def test_what_is_put_off_stands_until_its_first_delay_is_over(verdict: RetryAt | Defer | Dead, seconds: float) -> None:
    """Then another worker can have it, and give it up at once; after a minute it stands for nothing in any case."""
    assert stands_for(verdict, NOW) == seconds

"""Turns: fresh events first, and none of the lanes starved."""

from collections import Counter

from notifier.domain.message import Lane
from notifier.pipeline.lanes import Turns

NONE = dict.fromkeys(Lane, 0)


def test_fresh_events_go_first() -> None:
    """Then retries, then bulk."""
    turns = Turns(100)
    assert turns.next([Lane.BULK, Lane.EVENTS, Lane.RETRIES], NONE, NONE) is Lane.EVENTS
    assert turns.next([Lane.BULK, Lane.RETRIES], NONE, NONE) is Lane.RETRIES
    assert turns.next([Lane.BULK], NONE, NONE) is Lane.BULK


def test_whoever_waits_gets_a_tenth_of_the_turns() -> None:
    """However many fresh events there are, retries and bulk move on."""
    turns = Turns(100)
    count = Counter(turns.next(list(Lane), NONE, NONE) for _ in range(1000))
    assert count[Lane.BULK] >= 95
    assert count[Lane.RETRIES] >= 95
    assert count[Lane.EVENTS] >= 750


def test_bulk_leaves_room_for_a_fresh_logout() -> None:
    """A flood of bulk holds four fifths of the window at most, so a fresh event begins at once."""
    turns = Turns(100)
    full = NONE | {Lane.BULK: 80}
    assert turns.next([Lane.BULK], full, full) is None
    assert turns.next([Lane.BULK, Lane.EVENTS], full, full) is Lane.EVENTS


def test_no_more_than_the_window_is_held() -> None:
    """`max_in_flight` attempts, and twice as many deliveries in memory."""
    turns = Turns(10)
    assert turns.next([Lane.EVENTS], {Lane.EVENTS: 8, Lane.RETRIES: 1, Lane.BULK: 1}, NONE) is None
    assert turns.next([Lane.EVENTS], NONE, {Lane.EVENTS: 0, Lane.RETRIES: 10, Lane.BULK: 10}) is None


def test_a_window_of_one_serves_every_lane() -> None:
    """Too small to divide, and nobody starves."""
    turns = Turns(1)
    assert {turns.next(list(Lane), NONE, NONE) for _ in range(30)} == set(Lane)

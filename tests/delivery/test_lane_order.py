"""The order of the lanes: fresh events first, and none of the lanes starved."""

from collections import Counter
from collections.abc import Callable

from notifier.delivery.admission import StartNow
from notifier.delivery.selection import LaneOrder
from notifier.model.message import Lane
from tests.delivery.desk import Desk


def _always(_lane: Lane) -> bool:
    return True


def _room(size: int, in_flight: dict[Lane, int]) -> Callable[[Lane], bool]:
    desk = Desk(size)
    for number, lane in enumerate(lane for lane, count in in_flight.items() for _ in range(count)):
        assert desk.ask(f"c{number}", lane) is StartNow
    return desk.gate.slots.has_room


def test_fresh_events_go_first() -> None:
    """Then retries, then bulk."""
    order = LaneOrder()
    assert order.next([Lane.BULK, Lane.EVENTS, Lane.RETRIES], _always) is Lane.EVENTS
    assert order.next([Lane.BULK, Lane.RETRIES], _always) is Lane.RETRIES
    assert order.next([Lane.BULK], _always) is Lane.BULK


def test_a_lane_that_waits_gets_a_tenth() -> None:
    """However many fresh events there are, retries and bulk move on."""
    order = LaneOrder()
    count = Counter(order.next(list(Lane), _always) for _ in range(1000))
    assert count[Lane.BULK] >= 95
    assert count[Lane.RETRIES] >= 95
    assert count[Lane.EVENTS] >= 750


def test_bulk_leaves_room_for_a_fresh_logout() -> None:
    """A flood of bulk holds four fifths of the window at most, so a fresh event begins at once."""
    room = _room(100, {Lane.BULK: 80})
    assert LaneOrder().next([Lane.BULK], room) is None
    assert LaneOrder().next([Lane.BULK, Lane.EVENTS], room) is Lane.EVENTS


def test_no_more_attempts_than_the_window_are_made() -> None:
    """Whatever their lanes are."""
    assert LaneOrder().next([Lane.EVENTS], _room(10, {Lane.EVENTS: 8, Lane.RETRIES: 1, Lane.BULK: 1})) is None


def test_a_window_of_one_serves_every_lane() -> None:
    """It is too small to divide, and no lane starves."""
    order = LaneOrder()
    room = _room(1, {})
    assert {order.next(list(Lane), room) for _ in range(30)} == set(Lane)

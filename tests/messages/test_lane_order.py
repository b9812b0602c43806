"""The order of the lanes: fresh events first, and none of the lanes starved."""

from collections import Counter

from notifier.delivery.client_state import Admission
from notifier.messages.ledger import Ledger
from notifier.messages.selection import Selection
from notifier.model.message import Lane, Message
from tests.delivery.scheduler_harness import SIZE, SchedulerHarness


class Order:
    """A selection with one message in each of these lanes, beside so many attempts in flight."""

    def __init__(self, *lanes: Lane, size: int = SIZE, in_flight: dict[Lane, int] | None = None) -> None:
        harness = SchedulerHarness(size)
        for number, lane in enumerate(lane for lane, count in (in_flight or {}).items() for _ in range(count)):
            assert harness.ask(f"c{number}", lane) is Admission.START
        self._selection = Selection(harness.scheduler, monotonic=lambda: harness.now)
        ledger = Ledger(self, lambda _: None, clock=lambda: 0.0, monotonic=lambda: harness.now)
        for lane in lanes:
            self._selection.add(ledger.take(Message(lane=lane, body=b"", tag=None)))

    def ack(self, message: Message) -> None:
        """Do nothing: an `Acknowledger`."""

    def set_aside(self, message: Message) -> None:
        """Do nothing."""

    def next(self) -> Lane | None:
        """The lane that goes next. Its message has more to give."""
        held = self._selection.choose()
        return None if held is None else held.lane


def test_fresh_events_go_first() -> None:
    """Then retries, then bulk."""
    assert Order(Lane.BULK, Lane.EVENTS, Lane.RETRIES).next() is Lane.EVENTS
    assert Order(Lane.BULK, Lane.RETRIES).next() is Lane.RETRIES
    assert Order(Lane.BULK).next() is Lane.BULK


def test_a_lane_that_waits_gets_a_tenth() -> None:
    """However many fresh events there are, retries and bulk move on."""
    order = Order(*Lane)
    count = Counter(order.next() for _ in range(1000))
    assert count[Lane.BULK] >= 95
    assert count[Lane.RETRIES] >= 95
    assert count[Lane.EVENTS] >= 750


def test_bulk_leaves_room_for_a_fresh_logout() -> None:
    """A flood of bulk holds four fifths of the window at most, so a fresh event begins at once."""
    flood = {Lane.BULK: 80}
    assert Order(Lane.BULK, size=100, in_flight=flood).next() is None
    assert Order(Lane.BULK, Lane.EVENTS, size=100, in_flight=flood).next() is Lane.EVENTS


def test_no_more_attempts_than_the_window_are_made() -> None:
    """Whatever their lanes are."""
    in_flight = {Lane.EVENTS: 8, Lane.RETRIES: 1, Lane.BULK: 1}
    assert Order(Lane.EVENTS, size=10, in_flight=in_flight).next() is None


def test_a_window_of_one_serves_every_lane() -> None:
    """It is too small to divide, and no lane starves."""
    order = Order(*Lane, size=1)
    assert {order.next() for _ in range(30)} == set(Lane)

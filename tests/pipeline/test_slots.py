"""Slots: a client's own attempts at a time, a short wait, or a deferral."""

from notifier.domain.message import Lane
from notifier.pipeline.slots import Entered, Full, Slots, Waits


def test_a_client_has_its_cap() -> None:
    """Beyond it deliveries wait in memory, and one that ends hands its slot on."""
    slots: Slots[str] = Slots(slot_wait=1.0)
    assert [slots.enter("shop", 2, Lane.EVENTS, name) for name in "ab"] == [Entered(), Entered()]
    assert slots.enter("shop", 2, Lane.EVENTS, "c") == Waits()
    assert slots.waiting == 1
    assert slots.leave("shop", 0.01) == "c"
    assert slots.leave("shop", 0.01) is None
    assert slots.waiting == 0


def test_one_client_says_nothing_of_another() -> None:
    """The cap is each client's own."""
    slots: Slots[str] = Slots(slot_wait=1.0)
    assert slots.enter("shop", 1, Lane.EVENTS, "a") == Entered()
    assert slots.enter("mail", 1, Lane.EVENTS, "b") == Entered()


def test_a_slow_client_holds_next_to_nothing() -> None:
    """With attempts of 5 s and one slot nobody waits in memory: the delivery is put off for about as long."""
    slots: Slots[str] = Slots(slot_wait=1.0)
    for _ in range(50):
        slots.enter("slow", 1, Lane.EVENTS, "x")
        slots.enter("slow", 1, Lane.EVENTS, "keeps the client known")
        slots.leave("slow", 5.0)
        slots.leave("slow", 5.0)
        slots.enter("slow", 1, Lane.EVENTS, "still there")
        full = slots.enter("slow", 1, Lane.EVENTS, "y")
        if isinstance(full, Full):
            assert full.seconds > 1.0
            return
        slots.abandon()
    raise AssertionError("never full")


def test_a_quick_client_may_be_flooded() -> None:
    """Hundreds wait for one that answers in a millisecond, and none is put off."""
    slots: Slots[int] = Slots(slot_wait=1.0)
    for number in range(32):
        slots.enter("quick", 32, Lane.EVENTS, number)
    for number in range(200):
        assert slots.enter("quick", 32, Lane.EVENTS, number) == Waits()
        slots.leave("quick", 0.001)
    for number in range(900):
        assert slots.enter("quick", 32, Lane.BULK, number) == Waits()


def test_a_fresh_logout_passes_bulk_of_the_same_client() -> None:
    """The slot goes to the lane of higher precedence."""
    slots: Slots[str] = Slots(slot_wait=1.0)
    slots.enter("shop", 1, Lane.BULK, "running")
    slots.enter("shop", 1, Lane.BULK, "bulk")
    slots.enter("shop", 1, Lane.EVENTS, "fresh")
    assert slots.leave("shop", 0.01) == "fresh"


def test_what_is_not_in_use_is_forgotten() -> None:
    """Memory follows the clients in flight, not all that were ever heard of."""
    slots: Slots[str] = Slots(slot_wait=1.0)
    for number in range(1000):
        slots.enter(number, 1, Lane.EVENTS, "x")
        slots.leave(number, 0.01)
    assert len(slots._states) == 0

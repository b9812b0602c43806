"""Duplicates: a second copy joins the first, within bounds."""

from notifier.pipeline.duplicates import Duplicates, Fate, First, Joined, Known


def test_a_second_copy_shares_the_fate_of_the_first() -> None:
    """Both holders are told at the end."""
    seen: Duplicates[str] = Duplicates()
    assert seen.begin("d", 0, "one") == First()
    assert seen.begin("d", 0, "two") == Joined()
    assert seen.end("d", 0, Fate.DELIVERED) == ["one", "two"]
    assert seen.begin("d", 0, "three") == Known()


def test_what_was_not_delivered_is_made_again() -> None:
    """A retry carries the same id: it must be attempted."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one")
    seen.end("d", 0, Fate.POSTPONED)
    assert seen.begin("d", 0, "retry") == First()


def test_a_retry_stands_for_its_delivery() -> None:
    """Once it is durable, a copy of the event has nothing left to do, while the retry waits and while it is made."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", of_event=True)
    seen.end("d", 0, Fate.POSTPONED)
    assert seen.begin("d", 0, "copy", of_event=True) == Known()
    assert seen.begin("d", 1, "retry") == First()
    assert seen.begin("d", 0, "copy", of_event=True) == Known()


def test_what_was_given_up_may_be_sent_again() -> None:
    """Whoever sends an event again after its dead letter, or replays that, wants another attempt."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one", of_event=True)
    seen.end("d", 0, Fate.POSTPONED)
    seen.begin("d", 1, "retry")
    seen.end("d", 1, Fate.GIVEN_UP)
    assert seen.begin("d", 0, "sent again", of_event=True) == First()


def test_a_retry_never_joins_what_scheduled_it() -> None:
    """It may come back before its scheduling is confirmed: the only durable copy must not be acked with the first."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one")
    assert seen.begin("d", 1, "its retry") == First()
    assert seen.end("d", 0, Fate.POSTPONED) == ["one"]
    assert seen.end("d", 1, Fate.DELIVERED) == ["its retry"]
    assert seen.begin("d", 2, "late") == Known()


def test_delivered_is_the_last_word() -> None:
    """Whatever else ends later: the retry that was quicker than its scheduling, a copy that was given up."""
    seen: Duplicates[str] = Duplicates()
    for stage in range(3):
        seen.begin("d", stage, "one")
    seen.end("d", 1, Fate.DELIVERED)
    seen.end("d", 0, Fate.POSTPONED)
    seen.end("d", 2, Fate.GIVEN_UP)
    assert seen.begin("d", 3, "late") == Known()


def test_memory_is_bounded() -> None:
    """At least so many are remembered, and twice as many at most; of the oldest copies are told again, harmlessly."""
    seen: Duplicates[str] = Duplicates(remembered=2)
    for name in "abcde":
        seen.begin(name, 0, "x")
        seen.end(name, 0, Fate.DELIVERED)
    assert [seen.begin(name, 0, "x") for name in "edcba"] == [Known(), Known(), Known(), First(), First()]


def test_what_is_given_up_is_forgotten_however_long_ago_its_retry_was() -> None:
    """Whoever sends its event again wants it tried again."""
    seen: Duplicates[str] = Duplicates(remembered=2)
    for name, fate in (("a", Fate.POSTPONED), ("b", Fate.DELIVERED), ("a", Fate.GIVEN_UP)):
        seen.begin(name, 0, "x")
        seen.end(name, 0, fate)
    assert seen.begin("a", 0, "x", of_event=True) == First()
    assert seen.begin("b", 0, "x") == Known()

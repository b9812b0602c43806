"""Duplicates: a second copy joins the first, within bounds."""

from notifier.pipeline.duplicates import Duplicates, First, Joined, Known


def test_a_second_copy_shares_the_fate_of_the_first() -> None:
    """Both holders are told at the end."""
    seen: Duplicates[str] = Duplicates()
    assert seen.begin("d", 0, "one") == First()
    assert seen.begin("d", 0, "two") == Joined()
    assert seen.end("d", 0, delivered=True) == ["one", "two"]
    assert seen.begin("d", 0, "three") == Known()


def test_what_was_not_delivered_is_made_again() -> None:
    """A retry carries the same id: it must be attempted."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one")
    seen.end("d", 0, delivered=False)
    assert seen.begin("d", 0, "retry") == First()


def test_a_retry_never_joins_what_scheduled_it() -> None:
    """It may come back before its scheduling is confirmed: the only durable copy must not be acked with the first."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", 0, "one")
    assert seen.begin("d", 1, "its retry") == First()
    assert seen.end("d", 0, delivered=False) == ["one"]
    assert seen.end("d", 1, delivered=True) == ["its retry"]
    assert seen.begin("d", 2, "late") == Known()


def test_memory_is_bounded() -> None:
    """The oldest is forgotten first; it would be delivered again, which does no harm."""
    seen: Duplicates[str] = Duplicates(remembered=2)
    for name in "abc":
        seen.begin(name, 0, "x")
        seen.end(name, 0, delivered=True)
    assert seen.begin("c", 0, "x") == Known()
    assert seen.begin("b", 0, "x") == Known()
    assert seen.begin("a", 0, "x") == First()

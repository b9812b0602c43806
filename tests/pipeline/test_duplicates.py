"""Duplicates: a second copy joins the first, within bounds."""

from notifier.pipeline.duplicates import Duplicates, First, Joined, Known


def test_a_second_copy_shares_the_fate_of_the_first() -> None:
    """Both holders are told at the end."""
    seen: Duplicates[str] = Duplicates()
    assert seen.begin("d", "one") == First()
    assert seen.begin("d", "two") == Joined()
    assert seen.end("d", delivered=True) == ["one", "two"]
    assert seen.begin("d", "three") == Known()


def test_what_was_not_delivered_is_made_again() -> None:
    """A retry carries the same id: it must be attempted."""
    seen: Duplicates[str] = Duplicates()
    seen.begin("d", "one")
    seen.end("d", delivered=False)
    assert seen.begin("d", "retry") == First()


def test_memory_is_bounded() -> None:
    """The oldest is forgotten first; it would be delivered again, which does no harm."""
    seen: Duplicates[str] = Duplicates(remembered=2)
    for name in "abc":
        seen.begin(name, "x")
        seen.end(name, delivered=True)
    assert seen.begin("c", "x") == Known()
    assert seen.begin("b", "x") == Known()
    assert seen.begin("a", "x") == First()

"""Records that only the type checker keeps from being changed."""

from dataclasses import field
from dataclasses import replace as slow_replace

import pytest

from notifier.model.frozen import frozen, replace


@frozen
class Point:
    """A record of three fields."""

    x: int
    y: int = 2
    seen: tuple[str, ...] = field(default=())


def test_replace_does_the_same_as_that_of_dataclasses() -> None:
    """It leaves the original unchanged."""
    first = Point(x=1, seen=("a",))
    assert replace(first, y=5) == slow_replace(first, y=5) == Point(x=1, y=5, seen=("a",))
    assert first == Point(x=1, seen=("a",))


def test_replace_refuses_a_name_that_is_no_field() -> None:
    """A typing error must not pass."""
    with pytest.raises(AttributeError, match="'Point' object has no attribute 'z'"):
        replace(Point(x=1), z=3)

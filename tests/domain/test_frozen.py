"""Records that only the type checker keeps from being changed."""

from dataclasses import field
from dataclasses import replace as slow_replace
from pathlib import Path

import pytest
from mypy import api

from notifier.domain.frozen import frozen, replace


@frozen
class Point:
    """A record of three fields."""

    x: int
    y: int = 2
    seen: tuple[str, ...] = field(default=())


def test_it_is_equal_and_hashed_by_its_fields() -> None:
    """As a frozen dataclass is."""
    assert Point(x=1) == Point(x=1, y=2)
    assert len({Point(x=1), Point(x=1), Point(x=2)}) == 2


def test_replace_does_the_same_as_that_of_dataclasses() -> None:
    """It leaves the original unchanged."""
    first = Point(x=1, seen=("a",))
    assert replace(first, y=5) == slow_replace(first, y=5) == Point(x=1, y=5, seen=("a",))
    assert first == Point(x=1, seen=("a",))


def test_replace_refuses_a_name_that_is_no_field() -> None:
    """A typing error must not pass."""
    with pytest.raises(TypeError, match="Point has no field 'z'"):
        replace(Point(x=1), z=3)


def test_the_type_checker_forbids_a_change(tmp_path: Path) -> None:
    """If mypy ever stops, records must be frozen at run time again."""
    program = tmp_path / "changes.py"
    program.write_text(
        "from notifier.domain.frozen import frozen\n\n@frozen\nclass Point:\n    x: int\n\n\np = Point(x=1)\np.x = 2\n"
    )
    told, _, code = api.run(["--no-incremental", "--follow-imports=silent", str(program)])
    assert code == 1
    assert "read-only" in told

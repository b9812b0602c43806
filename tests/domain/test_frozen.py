"""Records that are frozen for the type checker alone."""

from dataclasses import field
from dataclasses import replace as slow_replace
from pathlib import Path

import pytest
from mypy import api

from notifier.domain.frozen import frozen, replace


@frozen
class Point:
    """Two numbers, and what is remembered of them."""

    x: int
    y: int = 2
    seen: tuple[str, ...] = field(default=())


def test_it_is_equal_and_hashed_by_its_fields() -> None:
    """As a frozen dataclass is."""
    assert Point(x=1) == Point(x=1, y=2)
    assert len({Point(x=1), Point(x=1), Point(x=2)}) == 2


def test_replace_does_what_that_of_dataclasses_does() -> None:
    """And leaves the first as it was."""
    first = Point(x=1, seen=("a",))
    assert replace(first, y=5) == slow_replace(first, y=5) == Point(x=1, y=5, seen=("a",))
    assert first == Point(x=1, seen=("a",))


def test_replace_names_a_field_that_is_none() -> None:
    """A typing error must not be lost."""
    with pytest.raises(TypeError, match="Point has no field 'z'"):
        replace(Point(x=1), z=3)


def test_the_type_checker_forbids_what_the_run_time_lets_pass(tmp_path: Path) -> None:
    """That is the bargain: if it stops, records must be frozen at run time again."""
    program = tmp_path / "changes.py"
    program.write_text(
        "from notifier.domain.frozen import frozen\n\n@frozen\nclass Point:\n    x: int\n\n\np = Point(x=1)\np.x = 2\n"
    )
    told, _, code = api.run(["--no-incremental", "--follow-imports=silent", str(program)])
    assert code == 1
    assert "read-only" in told

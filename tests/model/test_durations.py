"""Durations and sizes as operators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("3ms", 0.003),
        ("5s", 5.0),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
        (" 5 s ", 5.0),
        ("0s", 0.0),
        (0, 0.0),
        ("0", 0.0),
        (0.0, 0.0),
    ],
)
def test_units(text: object, seconds: float) -> None:
    """A number and a unit; 0 alone needs none."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", [5, 0.5, "5", "1.5"])
def test_a_bare_number(value: object) -> None:
    """A bare number is refused with the advice to write a unit."""
    with pytest.raises(ValueError, match=f"^{value} has no unit: write {value}s if seconds are meant"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value",
    ["", "s", "-5s", "5 seconds", "5S", "1h30m", "٥s", "1e3s", "9" * 40 + "s", "inf", True, False, None, [], {}],
)
def test_no_duration(value: object) -> None:
    """Anything else is refused with examples of what would be right."""
    with pytest.raises(ValueError, match="is not a duration: write a number and a unit, such as 500ms"):
        parse_duration(value)


@given(st.integers(0, 10**11))
def test_round_trip(milliseconds: int) -> None:
    """What is formatted is read back as the same, to the millisecond."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000

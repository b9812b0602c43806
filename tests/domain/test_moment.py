"""Moments as documents write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.moment import read_moment, render_moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-01-31t12:00:00.5z", 1769860800.5),
        ("2026-01-31 13:00:00+01:00", 1769860800.0),
        ("2026-01-31T12:00:00.123456789Z", 1769860800.123456),
        ("2016-12-31T23:59:60Z", 1483228799.0),
        ("0001-01-01T00:00:00+10:00", -62135632800.0),
    ],
)
def test_every_form_of_rfc_3339_is_read(text: str, expected: float) -> None:
    """Small letters, a space, any fraction, a leap second."""
    assert read_moment(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00Z",
        "20260131T120000Z",
        "2026-13-01T00:00:00Z",
        "٢026-01-31T12:00:00Z",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Without an offset it could be any moment of a day."""
    with pytest.raises(ValueError, match=r".+"):
        read_moment(text)


@given(st.integers(-(10**15), 10**16))
def test_what_is_rendered_is_read_back(microseconds: int) -> None:
    """To the microsecond, in UTC."""
    moment = microseconds / 1e6
    assert read_moment(render_moment(moment)) == pytest.approx(moment, abs=2e-6)


@pytest.mark.parametrize("moment", [1e30, -1e30, float("inf"), float("nan")])
def test_what_no_calendar_holds_is_the_epoch(moment: float) -> None:
    """A dead letter must be readable whatever is in it."""
    assert render_moment(moment) == "1970-01-01T00:00:00.000000Z"

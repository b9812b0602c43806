"""RFC 3339 timestamps. `test_event_schema` has those that are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.moment import read_moment, render_moment


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


@given(st.integers(-(10**15), 10**16))
def test_a_rendered_time_is_read_back(microseconds: int) -> None:
    """To the microsecond, in UTC."""
    moment = microseconds / 1e6
    assert read_moment(render_moment(moment)) == pytest.approx(moment, abs=2e-6)


@pytest.mark.parametrize("moment", [1e30, -1e30, float("inf"), float("nan")])
def test_a_time_outside_the_calendar_is_the_epoch(moment: float) -> None:
    """A dead letter must be readable whatever it holds."""
    assert render_moment(moment) == "1970-01-01T00:00:00.000000Z"

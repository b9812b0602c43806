"""What an answer or a break means (B27, B28, R3, R11, R12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import ResponsePolicy
from notifier.model.outcome import Answer, Delivered, Failed, read_retry_after, read_wire

PLAIN = ResponsePolicy()
NOW = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT


@given(st.integers(100, 999), st.text(max_size=20))
def test_every_status_has_one_outcome_that_keeps_status_and_text(status: int, text: str) -> None:
    """2xx is delivered and nothing else is; no status is both refused and worth another try."""
    outcome = read_wire(Answer(status=status, text=text), PLAIN, NOW)
    assert (outcome.status, outcome.text) == (status, text)
    assert isinstance(outcome, Delivered) == (200 <= status < 300)
    assert isinstance(outcome, Failed) == (status in (408, 425, 429) or status >= 500)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1.5", None),
        ("-1", None),
        ("٣", None),
        ("soon", None),
        ("9" * 10_000, 999_999_999_999.0),
        ("Sun, 09 Sep 2001 01:47:40 GMT", 60.0),
        ("Sunday, 09-Sep-01 01:47:40 GMT", 60.0),
        ("Sun Sep  9 01:47:40 2001", 60.0),
        ("Sun, 09 Sep 2001 03:47:40 +0200", 60.0),
        ("Sun, 09 Sep 2001 01:00:00 GMT", 0.0),
        ("Sun, 99 Sep 2001 01:00:00 GMT", None),
        ("Sun, 09 Sep 99999 01:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """RFC 9110 §10.2.3 with §5.6.7's three forms of a date; what cannot be read is as good as none."""
    assert read_retry_after(value, None, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("Sun, 09 Sep 2001 02:06:43 GMT", "Sun, 09 Sep 2001 02:06:40 GMT", 3.0),
        ("Sun, 09 Sep 2001 01:26:43 GMT", "Sun, 09 Sep 2001 01:26:40 GMT", 3.0),
        ("Sun, 09 Sep 2001 01:26:39 GMT", "Sun, 09 Sep 2001 01:26:40 GMT", 0.0),
        ("Sunday, 09-Sep-01 01:47:40 GMT", "Sun Sep  9 01:47:30 2001", 10.0),
        ("Sun, 09 Sep 2001 01:47:40 GMT", "yesterday", 60.0),
        ("Sun, 09 Sep 2001 01:47:40 GMT", "", 60.0),
        ("120", "Sun, 09 Sep 2001 02:06:40 GMT", 120.0),
    ],
)
def test_a_date_is_compared_with_that_of_the_answer(value: str, date: str, seconds: float) -> None:
    """The clock of the client may be 20 minutes ahead of ours. Seconds need no clock."""
    assert read_retry_after(value, date, NOW) == seconds

"""Backoff and hops: how long to wait, and how that wait is written as powers of two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.backoff import MOST_HOPS, backoff, hops
from notifier.domain.client import RetryPolicy
from notifier.domain.message import HOPS

MIDDLE = 0.5  # the jitter source that moves nothing


def test_the_default_waits_are_those_promised() -> None:
    """2 s, 6 s, 18 s, 54 s, 2 m 42 s, 8 m 6 s, 24 m 18 s, then every hour."""
    waits = [backoff(RetryPolicy(), tries, lambda: MIDDLE) for tries in range(1, 11)]
    assert waits == [2, 6, 18, 54, 162, 486, 1458, 3600, 3600, 3600]


@given(tries=st.integers(1, 10_000), draw=st.floats(0, 1, exclude_max=True))
def test_jitter_moves_a_wait_by_a_quarter_at_most(tries: int, draw: float) -> None:
    """±25 %, however many tries there were: no overflow, no negative wait."""
    policy = RetryPolicy()
    plain = backoff(policy, tries, lambda: MIDDLE)
    assert 0.75 * plain <= backoff(policy, tries, lambda: draw) <= 1.25 * plain


@pytest.mark.parametrize(
    ("seconds", "rounding", "expected"),
    [
        (45, "down", (32, 8, 4)),
        (45, "up", (32, 16)),
        (0, "down", (1,)),
        (0.3, "up", (1,)),
        (1.2, "up", (2,)),
        (3600, "down", (2048, 1024, 512)),
        (200_000, "down", (65536, 65536, 65536)),
    ],
)
def test_a_delay_is_written_as_hops(seconds: float, rounding: str, expected: tuple[int, ...]) -> None:
    """Longest first; down for a backoff, up where the client named the time."""
    assert hops(seconds, "up" if rounding == "up" else "down") == expected


@given(seconds=st.floats(0, MOST_HOPS * HOPS[-1]), most=st.integers(1, MOST_HOPS))
def test_hops_are_queues_that_exist_and_round_the_way_asked(seconds: float, most: int) -> None:
    """One to `most` hops, each one of the delay queues; their sum never crosses the delay the wrong way."""
    down, up = hops(seconds, "down", most), hops(seconds, "up", most)
    for path in (down, up):
        assert 1 <= len(path) <= most
        assert set(path) <= set(HOPS)
        assert list(path) == sorted(path, reverse=True)
    assert sum(down) <= max(1.0, seconds)
    assert sum(up) >= min(seconds, most * HOPS[-1])


@given(seconds=st.integers(8, HOPS[-1]))
def test_three_hops_come_close(seconds: int) -> None:
    """Within an eighth below, or a seventh above."""
    assert sum(hops(seconds)) >= seconds * 7 / 8
    assert sum(hops(seconds, "up")) <= seconds * 8 / 7

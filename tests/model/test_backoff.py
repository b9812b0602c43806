"""Backoff: how long to wait between two attempts, and when a deferral comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.backoff import LONGEST_DEFERRAL, backoff, deferral_wait
from notifier.model.client import RetryPolicy

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
    ("seconds", "down", "up"), [(0, 1, 1), (-5, 1, 1), (5, 4, 8), (8, 8, 8), (511.999, 512, 512), (1e9, 65536, 65536)]
)
def test_a_deferral_waits_for_a_power_of_two_seconds(seconds: float, down: int, up: int) -> None:
    """A moment on the way from the decision to the queue does not halve the wait."""
    assert (deferral_wait(seconds), deferral_wait(seconds, "up")) == (down, up)


@given(seconds=st.floats(1, LONGEST_DEFERRAL))
def test_a_deferral_comes_back_after_half_of_its_time_at_the_least(seconds: float) -> None:
    """Rounded up, it comes after all of it and before the double."""
    assert seconds / 2 <= deferral_wait(seconds) <= seconds + 0.01
    assert seconds - 0.001 <= deferral_wait(seconds, "up") < 2 * seconds + 1

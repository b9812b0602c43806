"""What can be known of the moment at which a key began to be published."""

import re

import pytest

from notifier.model.durations import DAY
from notifier.model.moment import shown_moment
from notifier.tokens.first_day import SeenKey, first_day, not_before, seen_by_all

NOW = 1_800_000_000.0
HOUR = 3600.0


def seen(hours_ago: float, *, appeared: bool = False) -> SeenKey:
    return SeenKey(iss="https://id.example", kid="k", since=NOW - hours_ago * HOUR, appeared=appeared)


@pytest.mark.parametrize(
    ("file", "by_worker", "words"),
    [
        (None, None, "nobody saw since when"),
        (1, None, "since {1} at the earliest, when it was made; its first day lasts until {-23}"),
        (
            30,
            None,
            "since {30} at the earliest, when it was made; its first day is over, if it was there then",
        ),
        (30, seen(2), "since {2} or longer (made {30}); its first day is over by {-22}"),
        (30, seen(25), "since {25} or longer (made {30}); its first day is over"),
        (30, seen(2, appeared=True), "since {2}; its first day lasts until {-22}"),
        (None, seen(25, appeared=True), "since {25}; its first day is over"),
        (None, seen(2), "since {2} or longer; its first day is over by {-22}"),
    ],
)
def test_in_words(file: float | None, by_worker: SeenKey | None, words: str) -> None:
    """As much as the file's time and the workers tell, and no more. Moments stand as hours ago."""
    made_at = None if file is None else NOW - file * HOUR
    shown = re.sub(r"\{(-?\d+)\}", lambda hours: shown_moment(NOW - int(hours[1]) * HOUR), words)
    assert first_day(made_at, by_worker, NOW) == shown


def test_a_file_that_was_written_anew_makes_a_key_new() -> None:
    """A key was not published before its file was written, nor before it appeared: the later counts."""
    assert not_before(NOW - HOUR, seen(DAY, appeared=True)) == NOW - HOUR
    assert not_before(NOW - DAY, seen(1, appeared=True)) == NOW - HOUR
    assert not_before(NOW - DAY, seen(1)) == NOW - DAY
    assert not_before(None, seen(1)) is None


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        ([seen(5), seen(7), seen(6)], seen(7)),
        ([seen(5, appeared=True), seen(4, appeared=True)], seen(4, appeared=True)),
        ([seen(3), seen(5, appeared=True)], seen(5, appeared=True)),
        ([seen(5, appeared=True), seen(9)], seen(5, appeared=True)),
    ],
)
def test_what_several_workers_saw(found: list[SeenKey], counts: SeenKey) -> None:
    """Who saw it appear knows most; behind a balancer one of two issuers' servers may have it later."""
    assert seen_by_all(found) == {("https://id.example", "k"): counts}

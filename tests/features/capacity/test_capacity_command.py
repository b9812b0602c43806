"""`notifier capacity` answers in words and in JSON, reads nothing, and refuses what means nothing."""

import json
from pathlib import Path

import pytest

from tests.cli.in_process import notifier

DEMAND = ("--sessions", "1000000", "--clients", "5", "--within")


def test_it_tells_workers_broker_and_what_the_clients_must_bear(tmp_path: Path) -> None:
    """In words; a client that cannot keep up is told with the way out."""
    done = notifier("capacity", *DEMAND, "10m", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("1,000,000 sessions of 5 clients within 10m: 1,667 events/s, 8,333 deliveries/s")
    for word in ("workers", "broker", "clients", "too many", "max_concurrent 32", "\nMeasured 20"):
        assert word in done.stdout
    assert not done.stderr


def test_a_bare_number_is_minutes(tmp_path: Path) -> None:
    """As in M minutes; the JSON holds the demand as it was understood."""
    answers = [
        json.loads(notifier("capacity", *DEMAND, within, "--json", cwd=tmp_path).stdout) for within in ("10", "600s")
    ]
    assert answers[0] == answers[1]
    assert answers[0]["demand"]["within"] == 600
    assert answers[0]["workers"] >= 1
    assert answers[0]["within_reach"] is False


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((*DEMAND, "10x"), "--within"),
        ((*DEMAND, "0m"), "--within"),
        ((*DEMAND, "10m", "--answer", "soon"), "--answer"),
        ((*DEMAND, "10m", "--alg", "HS256"), "--alg"),
        (("--sessions", "0", "--clients", "1", "--within", "1m"), "--sessions"),
    ],
)
def test_what_means_nothing_is_refused_by_name(words: tuple[str, ...], named: str, tmp_path: Path) -> None:
    """Exit 2."""
    done = notifier("capacity", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr

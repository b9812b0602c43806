"""The documents agree with the files of figures."""

import json

import pytest

from benchmarks.limited_run import LIMITED
from benchmarks.record import FOLDER
from tools.performance import comparisons, document


def test_the_documents_are_up_to_date() -> None:
    """Tables and pictures. `make bench-plot` brings them up to date."""
    assert document.main(["--check"]) == 0


def test_every_figure_says_when_and_on_what_it_was_taken() -> None:
    """Each case names its date, machine and load."""
    for file in FOLDER.glob("*.json"):
        for case in json.loads(file.read_text())["cases"].values():
            assert {"at", "processor", "cores", "python", "load"} <= set(case["taken"])


def test_a_limit_without_a_result_is_not_measured() -> None:
    """A case that was left out does not look like a success."""
    lines = comparisons.limits({}).splitlines()[2:]
    assert len(lines) == sum(len(case.limits) for case in LIMITED.values())
    assert all(line.endswith("| – | not measured |") for line in lines)


def test_workers_follow_from_processor_and_answers() -> None:
    """Costs as measured come out again for 1 and 10 clients; in lane bulk slow answers need workers too."""
    measured = {("RS256", 1): 366.7, ("RS256", 10): 323.7}
    for clients in (1, 10):
        assert document.worker_rate(measured, "RS256", clients) == pytest.approx(0.7e6 / measured["RS256", clients])
    assert document.workers_for(1.0, 1, 2000.0) == 1
    assert document.workers_for(10_000.0, 5, 2000.0) == 25
    assert document.workers_for(10_000.0, 1, 1e9) == 4
    assert document.workers({}, {}) == ""

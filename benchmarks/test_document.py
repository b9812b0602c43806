"""The documents say what the files of figures hold, and no more."""

import json
from pathlib import Path

from benchmarks.check import RECORDED
from benchmarks.record import FOLDER, merge
from notifier.features.capacity import measured_costs
from tools.performance import document


def test_the_documents_are_up_to_date() -> None:
    """Tables, pictures and the figures of `notifier capacity`. `make bench-plot` brings them up to date."""
    assert document.main(["--check"]) == 0


def test_every_figure_says_when_and_on_what_it_was_taken() -> None:
    """Each case names its date, machine and load."""
    for file in {*FOLDER.glob("*.json")} - {RECORDED}:
        for case in json.loads(file.read_text())["cases"].values():
            assert {"at", "processor", "cores", "python", "load"} <= set(case["taken"])


def test_the_figures_of_capacity_are_written_as_a_module(tmp_path: Path) -> None:
    """The module holds medians. It is not written while a figure is missing."""
    one = {"min": 1.0, "median": 2.0, "max": 3.0}
    names = [f"rabbitmq-{alg}-{clients}" for alg in ("es256", "rs256") for clients in (1, 10)]
    merge(tmp_path / "throughput.json", {name: {"cpu": one, "memory": one} for name in names})
    assert document.figures_of_capacity(tmp_path) is None
    merge(tmp_path / "broker.json", {"broker-3.10.8": {"both": one}})
    text = document.figures_of_capacity(tmp_path)
    assert text is not None
    space: dict[str, object] = {}
    exec(text, space)
    assert space["DELIVERY"] == dict.fromkeys(measured_costs.DELIVERY, 2.0)
    assert (space["BROKER_EVENT"], space["MEMORY"]) == (2.0, 3.0)

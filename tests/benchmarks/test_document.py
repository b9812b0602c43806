"""The documents say what the files of figures hold, and no more."""

import json
from pathlib import Path

import pytest

from notifier.operations import measured
from tests.benchmarks import document, picture
from tests.benchmarks.record import FOLDER, load, merge


def test_the_documents_are_up_to_date() -> None:
    """After a measurement: `make bench-plot`. Tables, pictures, and what `notifier capacity` rests on."""
    assert document.main(["--check"]) == 0


def test_every_figure_says_when_and_on_what_it_was_taken() -> None:
    """One that does not could be of anything."""
    for file in FOLDER.glob("*.json"):
        for case in json.loads(file.read_text())["cases"].values():
            assert {"at", "processor", "cores", "python", "load"} <= set(case["taken"])


def test_a_section_without_figures_stays_empty() -> None:
    """Filling it and emptying it again leaves the text as it was."""
    text = f"a\n{document.BEGIN.format(name='x')}\n{document.END}\nb\n"
    full = document.filled(text, "x", "| table |")
    assert "\n\n| table |\n\n<!-- end -->\nb\n" in full
    assert document.filled(full, "x", "") == text
    with pytest.raises(ValueError, match="no section y"):
        document.filled(text, "y", "")


def test_every_kind_of_figure_has_a_table(tmp_path: Path) -> None:
    """And latency and growth a picture, once there are two points."""
    one = {"min": 1.0, "median": 2.0, "max": 3.0}
    merge(
        tmp_path / "latency.json",
        {
            f"load-{load}": {"load": load, "rate": 10, **dict.fromkeys(("p50", "p99", "p999", "max", "late"), one)}
            for load in (0.1, 0.5)
        },
    )
    report = {"rate": one, "cpu": one, "cpu_ratio": one, "memory": one, "rounds": []}
    starts = {"seconds": one, "reload_seconds": one, "stall": one, "rounds": [{"memory": 1, "reload_memory": 2}]}
    merge(
        tmp_path / "growth.json",
        {
            "backlog-10": {"series": "backlog", "x": 10, "report": report},
            "backlog-1000": {"series": "backlog", "x": 1000, "report": report},
            "start-yaml-10": {"series": "start-yaml", "x": 10, **starts},
        },
    )
    merge(tmp_path / "scale.json", {"es256-1": {"share": 0.45, **dict.fromkeys(document_spreads(), one)}})
    for name in ("latency", "growth", "scale"):
        found = load(tmp_path / f"{name}.json")
        assert "| 2 (1 – 3) |" in document.SECTIONS[name](found)
        assert "load of the machine" in document.taken(found)
    felt = dict.fromkeys(("p50", "p99", "p99_second", "drain_99"), one)
    merge(
        tmp_path / "isolation.json",
        {"slow": {"rate": 10, "noise": {}, **dict.fromkeys(("healthy", "faulty", "ratios"), felt)}},
    )
    programs = dict.fromkeys(("notifier", "celery", "ceiling", "best framework"), one)
    merge(
        tmp_path / "peers.json",
        {"es256-1": {**dict.fromkeys(("rate", "cpu", "ahead"), programs), "versions": {"celery": "5"}}},
    )
    for name in ("isolation", "peers"):
        assert "| 2.00 (1.00 – 3.00) |" in document.SECTIONS[name](load(tmp_path / f"{name}.json"))
    drawn = document.pictures(tmp_path)
    assert {path.name for path in drawn} == {"latency.svg", "growth.svg"}
    assert all(text.startswith("<svg") and text.endswith("</svg>\n") for text in drawn.values())


def document_spreads() -> tuple[str, ...]:
    """Of a case of `scale`."""
    return ("one", "two", "gain", "one_cpu", "two_cpu")


def test_the_figures_of_capacity_are_written_as_a_module(tmp_path: Path) -> None:
    """Of the middle of the rounds; nothing while one is missing."""
    one = {"min": 1.0, "median": 2.0, "max": 3.0}
    names = [f"rabbitmq-{alg}-{clients}" for alg in ("es256", "rs256") for clients in (1, 10)]
    merge(tmp_path / "throughput.json", {name: {"cpu": one, "memory": one} for name in names})
    assert document.figures_of_capacity(tmp_path) is None
    merge(tmp_path / "broker.json", {"broker-3.10.8": {"both": one}})
    text = document.figures_of_capacity(tmp_path)
    assert text is not None
    space: dict[str, object] = {}
    exec(text, space)
    assert space["DELIVERY"] == dict.fromkeys(measured.DELIVERY, 2.0)
    assert (space["BROKER_EVENT"], space["MEMORY"]) == (2.0, 3.0)


def test_a_picture_begins_at_zero_and_holds_its_names() -> None:
    """With names that XML would take for its own."""
    line = picture.Line("a < b", [(1, 2.0, 1.5, 2.5), (1000, 4.0, 4.0, 4.0)])
    text = picture.svg(picture.Chart(title="T & U", x="x", y="y", lines=[line], log_x=True))
    assert "a &lt; b" in text
    assert "T &amp; U" in text
    assert ">0<" in text
    assert ">1 k<" in text

"""Keeps the figures of the benchmarks as JSON: a file for each benchmark, its cases by name.

A run replaces the cases it has measured and leaves the others, so that a long benchmark can be run in pieces. Each case
names the date, machine and load.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rig import described, plain, write_json

FOLDER = Path(__file__).with_name("results")
"""The folder of the figures of docs/evidence/performance.md."""


def merge(file: Path | None, cases: Mapping[str, object]) -> None:
    """Put these cases into the file. `-` is stdout."""
    if file is None:
        return
    taken = described()
    made = {name: {**_mapping(case), "taken": taken} for name, case in cases.items()}
    before = {} if str(file) == "-" else load(file)
    if str(file) != "-":
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"cases": {**before, **made}})


def load(file: Path) -> dict[str, dict[str, Any]]:
    """The cases of a file; none if there is no file."""
    return dict(json.loads(file.read_text())["cases"]) if file.exists() else {}


def _mapping(case: object) -> dict[str, object]:
    made = plain(case)
    assert isinstance(made, dict)
    return made

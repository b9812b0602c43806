"""Copies this tree without some features, and runs the core's tests in the copy.

Removes a feature's folder, its tests, and its line in `notifier/features/__init__.py`. Nothing replaces them.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FEATURES = tuple(sorted(path.parent.name for path in ROOT.glob("notifier/features/*/*_feature.py")))
CORE = tuple(
    f"tests/{room}"
    for room in (
        "queues", "network", "tokens", "cli", "delivery", "operators", "publishing", "model", "configuration",
        "telemetry", "settings", "service",
    )
)  # fmt: skip
"""The rooms of the core, those first that take long."""
_COPIED = ("notifier", "tests", "conftest.py", "pyproject.toml")


def copy_tree(place: Path) -> None:
    """Copy the paths that features contribute to into an empty folder, and link the rest."""
    for path in ROOT.iterdir():
        if path.name not in _COPIED and not path.name.startswith("."):
            (place / path.name).symlink_to(path)
    for name in _COPIED:  # with their times, so that compiled files stay valid
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, place / name)


def delete_feature(place: Path, feature: str) -> None:
    """Delete a feature from a copy."""
    shutil.rmtree(place / "notifier/features" / feature)
    shutil.rmtree(place / "tests/features" / feature)
    _unlist(place / "notifier/features/__init__.py", feature)


def run_tests(place: Path, paths: Iterable[str], processes: int = 0) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy against the copy's modules, also in child processes."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    words = [sys.executable, "-m", "pytest", "-q", "-m", "not full", "-p", "no:cacheprovider", *paths]
    words += ["--numprocesses", str(processes), "--dist", "loadfile", "--no-loadscope-reorder"]
    environ["PYTHONPATH"] = str(place)
    return subprocess.run(words, cwd=place, env=environ, capture_output=True, text=True, check=False)


def _imports(text: str, feature: str) -> list[ast.ImportFrom]:
    """Return the import statements of a name, last first, so that replacing one keeps the positions of the others."""
    found = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"notifier.features.{feature}.")
    ]
    return found[::-1]


def _replaced(text: str, node: ast.ImportFrom, new: Sequence[str]) -> str:
    lines = text.split("\n")
    lines[node.lineno - 1 : node.end_lineno] = new
    return "\n".join(lines)


def _unlist(path: Path, feature: str) -> None:
    text = path.read_text()
    for node in _imports(text, feature):
        text = _replaced(text, node, ())
        for name in node.names:
            text = re.sub(rf"^ *{name.name},\n", "", text, flags=re.MULTILINE)
    path.write_text(text)

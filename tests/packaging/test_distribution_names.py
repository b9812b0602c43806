"""PyPI's `notifier` is a foreign program: ours is `logout-notifier`, and no text installs the other."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from notifier import RELEASE
from notifier.cli import main
from tests.support.installing import run_installer

ROOT = Path(__file__).parents[2]
NAME = "logout-notifier"
PUBLISHER = "logout-notifier-publisher"
PROJECTS = {NAME: ROOT, PUBLISHER: ROOT / "publishers/python"}
PARTS = {
    NAME: ("pyproject.toml", "README.md", "LICENSE", "notifier"),
    PUBLISHER: ("pyproject.toml", "README.md", "src"),
}
MODULES = {NAME: "notifier", PUBLISHER: "logout_notifier_publisher"}
ASK = f"from importlib.metadata import version; print(version('{PUBLISHER}'))"
RUNS = {NAME: ("bin/notifier", "--version"), PUBLISHER: ("bin/python", "-I", "-c", ASK)}
INSTALLS = re.compile(r"\b(?:pip|pipx|uv|uvx|poetry|npm|npx)\b[^\n]*\b(?:install|add|tool run)\b([^\n]*)")
STRANGER = re.compile(r"(?<![\w./-])notifier\[[a-z]+[\]\',]|(?<![\w./-])notifier(?:==|>=|~=)\d")
PUBLISHED = re.compile(r"(?<![\w./-])(?:notifier|notifier-oidc-provider|logout-notifier(?:-publisher)?)(?![\w./\\[-])")


def texts() -> dict[str, str]:
    """Return all texts of the repository for people or machines, except history, and this file."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in done.stdout.split("\0") if name and name != "CHANGELOG.md"]
    kept = {".md", ".py", ".toml", ".yaml", ".yml", ".service", ".java", ".js", ".ts", ".cs", ".json", ".txt", ""}
    known = [path for path in paths if path.suffix in kept and path.is_file() and path != Path(__file__)]
    return {str(path.relative_to(ROOT)): path.read_text(errors="replace") for path in known}


def test_no_text_installs_a_foreign_package() -> None:
    """Nor one of ours from a registry that does not have it: the name there may be taken by a stranger."""
    found = []
    for name, text in texts().items():
        found += [f"{name}: {each}" for each in STRANGER.findall(text)]
        for what in INSTALLS.findall(text):
            found += [f"{name}: {what.strip()}"] * bool(PUBLISHED.search(what.partition("#")[0].partition("&&")[0]))
    assert found == []


@pytest.mark.parametrize("name", PROJECTS)
def test_the_distribution_has_its_name(name: str) -> None:
    """In its project file, and in the environment that runs it."""
    project = tomllib.loads((PROJECTS[name] / "pyproject.toml").read_text())["project"]
    assert (project["name"], project.get("version", RELEASE)) == (name, RELEASE)
    assert metadata.version(name).partition("+")[0] == RELEASE


def test_the_command_stays_notifier() -> None:
    """It belongs to the distribution, and prints its version."""
    [script] = metadata.distribution(NAME).entry_points
    assert (script.group, script.name, script.load()) == ("console_scripts", "notifier", main)


@pytest.mark.full
@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_runs_in_a_fresh_environment(name: str, tmp_path: Path) -> None:
    """From its own files. Its dependencies come from the environment of the tests."""
    source = tmp_path / "source"
    source.mkdir()
    for part in PARTS[name]:
        copy = shutil.copytree if (PROJECTS[name] / part).is_dir() else shutil.copyfile
        copy(PROJECTS[name] / part, source / part)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run_installer([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source])
    [wheel] = tmp_path.glob(f"{name.replace('-', '_')}-{RELEASE}-py3-none-any.whl")
    fresh = tmp_path / "fresh"
    run_installer([sys.executable, "-m", "venv", "--without-pip", fresh])
    alone = {**os.environ, "PYTHONPATH": ""}
    run_installer([*pip, f"--python={fresh}", "install", "--no-deps", "--no-index", wheel], env=alone)
    [packages] = fresh.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    program, *arguments = RUNS[name]
    assert run_installer([fresh / program, *arguments], env=alone).split()[-1] == RELEASE
    look = f"import {MODULES[name]} as it; print(it.__file__)"
    assert Path(run_installer([fresh / "bin/python", "-I", "-c", look]).strip()).is_relative_to(packages)

"""Test which parts of the tests CI runs again."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import parts
from tools.parts import ROOT, Part, Run, read_parts, run_everything, why_changed

PART = Part(name="pages", what="pages", tests=["tests/pages"], of=["src/*.py"])
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Return a repository with one commit, and git in it."""

    def git(*words: str) -> str:
        settings = ["-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(["git", *settings, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    for name in ("tests/pages/test_a.py", "src/a.py", "src/a.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return git


def note(git: Git, **more: str) -> dict[str, dict[str, str]]:
    """Record that the part has passed at the newest commit."""
    return {"pages": {"commit": git("rev-parse", "HEAD"), "row": PART.row, **more}}


def test_unchanged_part_is_not_run(git: Git, tmp_path: Path) -> None:
    """For any other change, committed or not."""
    passed = note(git)
    (tmp_path / "src/a.css").write_text("other")
    git("commit", "--quiet", "--all", "--message", "second")
    (tmp_path / "tests/test_b.py").write_text("")
    assert why_changed(PART, passed, tmp_path) == ""


@pytest.mark.parametrize("name", ["tests/pages/test_a.py", "src/a.py", "src/new.py", "tests/pages/new.html"])
@pytest.mark.parametrize("committed", [True, False])
def test_changed_file_of_a_part_is_reported(git: Git, tmp_path: Path, name: str, committed: bool) -> None:
    """New files too."""
    passed = note(git)
    (tmp_path / name).write_text("other")
    if committed:
        git("add", ".")
        git("commit", "--quiet", "--message", "second")
    assert why_changed(PART, passed, tmp_path) == f"{name} has changed"


def test_part_without_a_valid_note_is_run(git: Git, tmp_path: Path) -> None:
    """No note, another row in the table, or a commit that this clone does not have."""
    assert "not passed" in why_changed(PART, {}, tmp_path)
    assert "its row" in why_changed(PART, note(git, row="other"), tmp_path)
    assert "is not here" in why_changed(PART, note(git, commit="0" * 40), tmp_path)


@pytest.mark.parametrize(("code", "left_out", "noted"), [(0, 0, True), (0, 1, False), (1, 0, False)])
def test_only_a_complete_pass_is_recorded(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, left_out: int, noted: bool
) -> None:
    """A skipped test has not passed, and the command reports it."""
    monkeypatch.setattr(parts, "ROOT", tmp_path)
    monkeypatch.setattr(parts, "NOTES", tmp_path / "parts.json")
    monkeypatch.setattr(parts, "run", lambda *_, **__: Run(code=code, seconds=1.0, passed=9, left_out=left_out))
    assert run_everything([PART], {}) == int(not noted)
    assert (tmp_path / "parts.json").exists() == noted


def test_table_contains_existing_files() -> None:
    """A pathspec without files would never detect a change."""
    for part in read_parts():
        for spec in [*part.files, *part.short]:
            known = subprocess.run(
                ["git", "ls-files", "--", spec], cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert known.stdout, f"{part.name}: {spec}"

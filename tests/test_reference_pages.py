"""tools/reference_pages.py: copies of the package's pages in docs/."""

import subprocess
from pathlib import Path

import pytest

from tools.reference_pages import SOURCES, copy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a runbook, committed and copied."""
    source = tmp_path / SOURCES / "runbook.md"
    source.parent.mkdir(parents=True)
    source.write_text("one\n")
    assert copy(tmp_path) == []
    (tmp_path / ".gitignore").write_text("build\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_changed_source_is_copied_each_time(root: Path) -> None:
    """Also twice before a commit, and in a clone that never copied before."""
    for text in ("two\n", "three\n"):
        (root / SOURCES / "runbook.md").write_text(text)
        assert copy(root) == []
        assert (root / "docs/runbook.md").read_text() == text
    (root / "docs/runbook.md").write_text("one\n")
    (root / "build/reference_pages/runbook.md").unlink()
    assert copy(root) == []


def test_an_edited_copy_is_refused_and_kept(root: Path) -> None:
    """The error names the source; deleting the copy is the way on."""
    (root / "docs/runbook.md").write_text("edited\n")
    (root / SOURCES / "runbook.md").write_text("two\n")
    [error] = copy(root)
    assert error.startswith(f"docs/runbook.md was edited: move the change to {SOURCES}/runbook.md")
    assert (root / "docs/runbook.md").read_text() == "edited\n"
    (root / "docs/runbook.md").unlink()
    assert copy(root) == []
    assert (root / "docs/runbook.md").read_text() == "two\n"

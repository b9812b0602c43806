"""Copy the pages that `notifier explain` reads from the package to docs/.

A copy that was edited in docs/ is refused: its content is neither what this tool last wrote (kept in build/) nor any
committed version of its source.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = "notifier/operators/doctor"
PAGES = ("runbook.md", "metrics.md", "words.md", "configuration.md", "configuration/*.md")


def copy(root: Path = ROOT) -> list[str]:
    """Copy the pages. Return an error for each that was edited in docs/, and copy none of them."""
    sources = [path for page in PAGES for path in sorted((root / SOURCES).glob(page))]
    names = [str(path.relative_to(root / SOURCES)) for path in sources]
    errors = [
        f"docs/{name} was edited: move the change to {SOURCES}/{name}, delete docs/{name}, and run `make runbook` again"
        for name in names
        if _is_edited(root, name)
    ]
    for name, source in zip(names, sources, strict=True):
        for target in () if errors else (root / "docs" / name, _written(root, name)):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return errors


def _is_edited(root: Path, name: str) -> bool:
    page, source = root / "docs" / name, root / SOURCES / name
    if not page.exists():
        return False
    known = [path.read_bytes() for path in (source, _written(root, name)) if path.exists()]
    return page.read_bytes() not in known and _git(root, "hash-object", str(page)).strip() not in _git(
        root, "log", "--format=", "--raw", "--no-abbrev", "--", str(source)
    )


def _written(root: Path, name: str) -> Path:
    return root / "build/reference_pages" / name


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout  # noqa: S607


if __name__ == "__main__":
    sys.exit("\n".join(copy()) or None)

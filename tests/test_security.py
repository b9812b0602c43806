"""docs/evidence/authority.md: each row with an action that a caller cannot perform has an existing test."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/evidence/authority.md").read_text()
HEAD = " the test |"
NAMED = re.compile(r"`(?P<file>tests/[\w/]+\.py)?::(?P<test>test_\w+)`")


def rows() -> list[list[str]]:
    """Return the cells of each row with an action that a caller cannot perform."""
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.endswith(HEAD)]
    return [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]


def named(cell: str) -> list[tuple[str, str]]:
    """Return the tests in it, each with its file; one without belongs to the file before."""
    found, file = [], ""
    for name in NAMED.finditer(cell):
        file = name["file"] or file
        found.append((file, name["test"]))
    return found


def test_there_are_rows() -> None:
    """Otherwise the other tests could not fail."""
    assert len(rows()) > 25


def test_each_cannot_names_its_test() -> None:
    """And those tests exist. A row without *cannot* needs none."""
    for *who, cannot, test in rows():
        assert bool(named(test)) == bool(cannot), who
        for file, name in named(test):
            assert f"def {name}(" in (ROOT / file).read_text(), (file, name)

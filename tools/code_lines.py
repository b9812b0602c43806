"""Counts code lines, without blanks, comments and docstrings: `python -m tools.code_lines [FOLDER …]`.

It also counts the modules of `notifier` without `__init__.py`, and their physical lines: `tests/test_house.py` has
bounds.
"""

import ast
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from statistics import median

FOLDERS = ("notifier", "tests", "publishers/tests", "publishers/conformance", "benchmarks", "tools")
IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def count_code_lines(path: Path) -> int:
    """Return the number of lines that hold code."""
    text, lines = path.read_text(), set[int]()
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type not in IGNORED:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def measure_modules(folder: Path) -> list[tuple[int, str]]:
    """Return the physical lines of each module and its path, in ascending order, without `__init__.py`."""
    modules = (path for path in folder.rglob("*.py") if path.name != "__init__.py")
    return sorted((len(path.read_text().splitlines()), str(path)) for path in modules)


def format_counts(folders: list[Path]) -> Iterator[str]:
    """Yield a line per folder and room with its code lines, and one about the modules of `notifier`."""
    for folder in folders:
        counts = {path: count_code_lines(path) for path in folder.rglob("*.py")}
        yield f"{sum(counts.values()):6} {folder}"
        for room in sorted({folder / path.relative_to(folder).parts[0] for path in counts if path.parent != folder}):
            yield f"{sum(count for path, count in counts.items() if path.is_relative_to(room)):6}   {room}"
    lengths = measure_modules(Path("notifier"))
    yield f"{len(lengths)} modules; median {median(length for length, _ in lengths):g} lines; largest {lengths[-1]}"


if __name__ == "__main__":
    print(*format_counts(list(map(Path, sys.argv[1:] or FOLDERS))), sep="\n")  # noqa: T201  a command's answer

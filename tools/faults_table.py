"""Writes the table of docs/evidence/faults.md from the accounts of a run of the faults in their long form.

    NOTIFIER_TEST_FAULTS=long NOTIFIER_TEST_FAULTS_REPORT=FILE pytest tests/faults
    python -m tools.faults_table FILE [FILE …]

Which faults there are is read from the tests themselves (`@pytest.mark.fault(group, what)`), so that a test without a
row, and a row without a test, are found.
"""

import ast
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FAULTS, DOCUMENT = ROOT / "tests/faults", ROOT / "docs/evidence/faults.md"
BEGIN, END = "<!-- made by tools/faults_table.py: begin -->", "<!-- end -->"
HEAD = "| | what was done | times | delivered | repeated | lost |"

Fault = tuple[str, str]
"""(group, what)"""


def catalogue() -> list[Fault]:
    """Every fault that a test makes, file by file."""
    return [fault for path in sorted(FAULTS.glob("test_*.py")) for fault in _faults(ast.parse(path.read_text()))]


def _faults(module: ast.Module) -> Iterator[Fault]:
    texts = {
        node.targets[0].id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            group, what = (
                texts[each.id] if isinstance(each, ast.Name) else ast.literal_eval(each) for each in node.args
            )
            yield str(group), str(what)


def rows(lines: Iterable[Mapping[str, Any]], before: Iterable[Sequence[str]] = ()) -> list[str]:
    """Return a row for each fault, in the catalogue's order, with the sums over its tests and brokers.

    A fault without an account keeps its earlier row.
    """
    told: dict[Fault, list[Mapping[str, Any]]] = {}
    for line in lines:
        told.setdefault((line["group"], line["what"]), []).append(line)
    kept = {(cells[0], cells[1]): f"| {' | '.join(cells)} |" for cells in before}
    missing = [what for group, what in catalogue() if (group, what) not in told | kept]
    if missing:
        raise SystemExit(f"no account of: {'; '.join(missing)}")
    made = {fault: _row(fault, of) for fault, of in told.items()}
    return [made.get(fault) or kept[fault] for fault in dict.fromkeys(catalogue())]


def _row(fault: Fault, lines: Sequence[Mapping[str, Any]]) -> str:
    def total(name: str) -> str:
        return f"{sum(line[name] for line in lines):,}"

    again = _counted(line["duplicates"] for line in lines)
    lost = sum(len(line["missing"]) + len(line["wrong"]) + sum(line["waiting"].values()) for line in lines)
    return f"| {' | '.join((*fault, total('times'), total('delivered'), again, str(lost)))} |"


def _counted(each: Iterable[Mapping[str, int]]) -> str:
    counts: Counter[str] = Counter()
    for found in each:
        counts.update(found)
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "0"


def written(text: str) -> list[list[str]]:
    """The cells of the rows that stand in the document."""
    lines = text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def main(reports: Sequence[str]) -> None:
    """Write the table into the document."""
    lines = [json.loads(line) for report in reports for line in Path(report).read_text().splitlines()]
    text = DOCUMENT.read_text()
    made = "\n".join([HEAD, "|---|---|--:|--:|---|--:|", *rows(lines, written(text))])
    before, rest = text.split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""docs/specification.md has an entry for each rule that code, tests and documents cite."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPECIFICATION = ROOT / "docs/specification.md"
RULE = re.compile(r"\b[BFR]\d{1,2}\b")


def cited_rules() -> dict[str, str]:
    """Each rule that is cited somewhere, and a file that cites it."""
    files = [*(ROOT / "notifier").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").glob("*.md")]
    return {
        rule: str(path.relative_to(ROOT))
        for path in files
        if path != SPECIFICATION
        for rule in RULE.findall(path.read_text())
    }


def test_each_cited_rule_has_its_entry() -> None:
    """A rule that nobody can look up explains nothing."""
    entries = re.findall(r"^\| ([BFR]\d+) \|", SPECIFICATION.read_text(), re.MULTILINE)

    assert len(entries) == len(set(entries)), "a rule stands twice"
    cited = cited_rules()
    assert len(cited) > 10, "the pattern no longer finds what is cited"
    assert {rule: file for rule, file in cited.items() if rule not in entries} == {}

"""Test that `notifier explain` knows the words of the code, with all features."""

import ast
import re
from pathlib import Path

from notifier.operators.doctor.explain_command import load_sections

ROOT = Path(__file__).parents[2]


class _Names(ast.NodeVisitor):
    """Collects the log events, and the members of log lines and JSON documents, that are literals in a module."""

    def __init__(self) -> None:
        self.events: set[str] = set()
        self.audits: set[str] = set()
        self.members: set[str] = set()
        self._builds_document = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._builds_document = self._builds_document, "document" in node.name or node.name in ("row", "group")
        self.generic_visit(node)
        self._builds_document = before

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815  a name of ast

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        event = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if isinstance(event, str) and name in ("debug", "info", "warning", "error", "write_audit", "_write_audit"):
            (self.audits if name.endswith("audit") else self.events).add(event)
            self.members |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
        elif name in ("log_repair", "log_removal"):
            self.members |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        self.members |= keys if self._builds_document else set()
        self.generic_visit(node)


def test_each_log_event_and_member_is_explained() -> None:
    """The table of log events has exactly those of the code; the rest may be a word, a reason or a setting."""
    found = _Names()
    for path in (ROOT / "notifier").rglob("*.py"):
        found.visit(ast.parse(path.read_text()))
    sections = load_sections()
    assert len(found.events) > 100
    assert len(found.members) > 100
    assert [name for name in sorted(found.events | found.audits | found.members) if name not in sections] == []
    table = (ROOT / "docs/words.md").read_text().partition("## Log events")[2].partition("## Audit lines")[0]
    by_fact = {"deferral", "event"}  # written by a method that depends on the fact
    assert {*re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)} == found.events | by_fact

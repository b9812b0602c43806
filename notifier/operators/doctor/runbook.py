"""Reads the runbook (`runbook.md`, copied to docs/), which has a section for each reason, cause and alert."""

import re
from dataclasses import dataclass
from importlib import resources

_HEADING = re.compile(r"^(##|###) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookSection:
    """The section of one reason, cause or alert. `group` is the heading above it; `text` is Markdown."""

    name: str
    group: str
    text: str


def read_page(name: str) -> str:
    """Return a page of this package, as Markdown."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def load_runbook() -> str:
    """Return the whole runbook, as Markdown."""
    return read_page("runbook.md")


def parse_sections() -> dict[str, RunbookSection]:
    """Return the sections in the order of the runbook, by name in lower case."""
    text = load_runbook()
    headings = list(_HEADING.finditer(text))
    sections: dict[str, RunbookSection] = {}
    group = ""
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == "##":
            group = heading[2]
            continue
        end = len(text) if following is None else following.start()
        body = text[heading.end() : end].strip() + "\n"
        sections[heading[2].lower()] = RunbookSection(name=heading[2], group=group, text=body)
    return sections

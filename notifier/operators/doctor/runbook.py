"""The runbook: one section for each reason, cause and alert. Its text is `runbook.md`, of which docs/ has a copy."""

import re
from dataclasses import dataclass
from importlib import resources

_HEADING = re.compile(r"^(##|###) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookSection:
    """What is known of one name. `text` is Markdown."""

    name: str
    group: str
    text: str


def runbook() -> str:
    """All of it, as Markdown."""
    return (resources.files(__package__) / "runbook.md").read_text(encoding="utf-8")


def sections() -> dict[str, RunbookSection]:
    """By name in lower case, as links to them have it, in the order of the runbook."""
    text = runbook()
    headings = list(_HEADING.finditer(text))
    sections: dict[str, RunbookSection] = {}
    group = ""
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == "##":
            group = heading[2]
            continue
        body = text[heading.end() : len(text) if following is None else following.start()].strip() + "\n"
        sections[heading[2].lower()] = RunbookSection(name=heading[2], group=group, text=body)
    return sections

"""The runbook: a section for everything that a message, a label or an alert can name, and links that lead somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from notifier.domain.outcome import Cause, DeadReason, Reason
from notifier.operations.runbook import runbook, sections

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
NAMES = sorted({*Reason, *DeadReason, *Cause, *ALERTS})


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_can_be_named_has_a_section(name: str) -> None:
    """What it means, how to see it, and what to do."""
    text = sections()[name.lower()].text
    assert [part in text for part in ("**What it means.**", "**How to see it.**", "**What to do.**")] == [True] * 3


def test_there_is_no_section_of_what_cannot_be_named() -> None:
    """Each name has one, and nothing else has."""
    assert sorted(section.name for section in sections().values()) == NAMES
    assert len(re.findall(r"^### ", runbook(), re.MULTILINE)) == len(NAMES)


def test_links_lead_to_sections() -> None:
    """Each by the anchor that its heading has."""
    linked = re.findall(r"\]\(#([\w_]+)\)", runbook())
    assert linked
    assert set(linked) <= set(sections())


def test_docs_have_the_same_text() -> None:
    """`make runbook` was run after the last change."""
    assert (ROOT / "docs" / "runbook.md").read_text() == runbook()

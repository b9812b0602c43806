"""The runbook: a section for everything that a message, a label or an alert can name, and links that lead somewhere."""

import io
import re
from pathlib import Path

import pytest
import yaml

from notifier.delivery.facts import Attempted
from notifier.model.delivery import Delivery
from notifier.model.outcome import Cause, DeadReason, Delivered, Reason
from notifier.operators.doctor.runbook import runbook, sections
from notifier.telemetry.logs import LogObserver, SubjectHash, configure
from tests.support.outcome_facts import attempted

ROOT = Path(__file__).parents[3]
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
NAMES = sorted({*Reason, *DeadReason, *Cause, *ALERTS})


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_can_be_named_has_a_section(name: str) -> None:
    """What it means, what happens by itself, what to do, and how to see that it is over: in this order."""
    parts = re.findall(r"^\*\*([^*]+)\*\*", sections()[name.lower()].text, re.MULTILINE)
    assert parts == ["What it means.", "What happens by itself.", "What to do.", "It is over when"]


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


GREPS = {
    (path.name, pattern)
    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "helm/notifier/files/canary.py"]
    for pattern in re.findall(r"grep \\?'(\"[^']+\")\\?'", path.read_text().replace("{sid}", "evt-1"))
}


def attempt() -> Attempted:
    """A delivery of event `evt-1` to the client `shop`."""
    delivery = Delivery(
        id="d", event_id="evt-1", id_given=True, iss="https://id.example.com", client_id="shop", sub="u", sid="s"
    )
    return attempted(delivery, Delivered(status=204))


@pytest.mark.parametrize(("file", "pattern"), sorted(GREPS))
def test_what_is_grepped_for_is_found(file: str, pattern: str) -> None:
    """Each pattern that a document gives finds the line of an attempt, as a worker writes it."""
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    LogObserver(subject="hash", hashing=SubjectHash(b"k" * 32)).observe(attempt())
    assert pattern in stream.getvalue(), file

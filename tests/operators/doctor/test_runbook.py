"""Test the explanations: the runbook, the reference of settings, and `notifier explain`."""

import io
import json
import re
from pathlib import Path

import pytest
import yaml

from notifier.configuration.reload_state import FIXED_SETTINGS
from notifier.delivery.facts import Attempted
from notifier.model.delivery import Delivery
from notifier.model.outcome import Cause, DeadReason, Delivered, Reason
from notifier.model.trouble import TroubleKind
from notifier.operators.doctor.manual import (
    PAGES,
    find_settings,
    list_settings,
    load_reference,
    load_runbook,
    parse_sections,
)
from notifier.operators.status.status_page import STATE_WORDS
from notifier.telemetry.log_output import configure
from notifier.telemetry.logs import LogObserver, SubjectHash
from tests.cli.in_process import notifier
from tests.operators.doctor import schema_settings
from tests.support.outcome_facts import attempted

# ── The runbook: a section for each name in a message, label or alert, and working links ─────────────────────────────


ROOT = Path(__file__).parents[3]


def test_every_name_has_a_section() -> None:
    """In this order: the meaning, the effect without an operator, the remedy, and how to verify it."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    names = sorted({*Reason, *DeadReason, *Cause, *alerts})
    parts = {each.name: re.findall(r"^\*\*([^*]+)\*\*", each.text, re.MULTILINE) for each in parse_sections().values()}
    assert parts == {name: ["Meaning.", "Effect.", "Remedy.", "Over when"] for name in names}
    assert len(re.findall(r"^### ", load_runbook(), re.MULTILINE)) == len(names)


def test_links_lead_to_sections() -> None:
    """Each link by the anchor of its heading."""
    linked = re.findall(r"\]\(#([\w_]+)\)", load_runbook())
    assert linked
    assert set(linked) <= set(parse_sections())


def test_docs_have_the_same_text() -> None:
    """`make runbook` was run after the last change."""
    assert (ROOT / "docs" / "runbook.md").read_text() == load_runbook()


GREPS = {
    (path.name, pattern)
    for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "helm/notifier/files/canary.py"]
    for pattern in re.findall(r"grep \\?'(\"[^']+\")\\?'", path.read_text().replace("{sid}", "evt-1"))
}


def attempt() -> Attempted:
    """Return the fact of an attempt for the event `evt-1` at the client `shop`."""
    delivery = Delivery(
        id="d", event_id="evt-1", id_given=True, iss="https://id.example.com", client_id="shop", sub="u", sid="s"
    )
    return attempted(delivery, Delivered(status=204))


@pytest.mark.parametrize(("file", "pattern"), sorted(GREPS))
def test_documented_grep_patterns_match(file: str, pattern: str) -> None:
    """Each pattern in a document matches the log line of an attempt."""
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    LogObserver(subject="hash", hashing=SubjectHash(b"k" * 32)).observe(attempt())
    assert pattern in stream.getvalue(), file


# ── The reference of settings: a row for each, with the type and the default of the service ──────────────────────────

IN_ANOTHER_ROW = frozenset(
    {"registry.defaults", "notifier.proxy.file", "notifier.channel.global_token_revocation.proof.way"}
)


def test_each_setting_has_a_row_with_its_type() -> None:
    """Settings of the service's file and of a client."""
    written = {name: [kind] for name, kind in schema_settings.list_all() if name not in IN_ANOTHER_ROW}
    assert {name: [row.type for row in find_settings(name)] for name in written} == written


def test_settings_read_once_are_marked() -> None:
    """All settings of these sections, except files that are read again."""
    rows = {setting.name: setting for setting in list_settings()}
    for name, row in rows.items():
        if name.split(".")[0] in FIXED_SETTINGS and name not in ("api.tokens_file", "queue.password_file"):
            assert row.restart, name
    assert rows["delivery.max_in_flight"].restart == "yes"
    assert (rows["delivery.timeout"].restart, rows["web.tls.key_file"].restart) == ("", "to name another")


def test_docs_have_the_same_settings() -> None:
    """`make runbook` was run after the last change."""
    docs = ROOT / "docs"
    pages = [docs / "configuration.md", *(docs / "configuration" / f"{page}.md" for page in PAGES)]
    assert "\n".join(page.read_text() for page in pages) == load_reference()
    assert sorted(pages[1:]) == sorted((docs / "configuration").iterdir())


def test_complete_example_is_accepted(tmp_path: Path) -> None:
    """`check` reports no error and no warning, and the file has the ten settings that are listed above it."""
    text = load_reference()
    made = notifier("keys", "generate", "--out", "2026.pem", "--at", "once", cwd=tmp_path)
    assert made.returncode == 0
    for file, content in re.findall(r"```yaml\n# ([\w.]+)\n(.*?)```", text, re.DOTALL)[:3]:
        (tmp_path / file).write_text(content)
        (tmp_path / file).chmod(0o600)
    for file in ("keys/2026.pem", "secrets/broker-password", "secrets/subject-key"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text((tmp_path / "2026.pem").read_text() if "keys" in file else f"{'s3cret' * 4}\n")
        (tmp_path / file).chmod(0o600)
    done = notifier("check", "-c", "notifier.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr, "warning" in done.stdout) == (0, "", False)
    ten = re.findall(r"^- `([^`]+)`:", text[: text.index("All others have defaults")], re.MULTILINE)
    assert len(ten) == 10
    config = yaml.safe_load((tmp_path / "notifier.yaml").read_text())
    for name in ten:
        value = config
        for part in name.replace("<iss>", "https://id.example.com", 1).replace("keys[]", "keys").split("."):
            value = value if part in ("example", "com") else _of(value, part)
        assert value


def _of(value: object, part: str) -> object:
    value = value[0] if isinstance(value, list) else value
    assert isinstance(value, dict)
    return value["https://id.example.com" if part == "https://id" else part]


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("delivery.timeout", "delivery.timeout"),
        ('issuers["https://id.example.com"].keys[3].file', "issuers.<iss>.keys[].file"),
        ("NOTIFIER_DELIVERY__RETRY__BASE", "delivery.retry.base"),
        ("sources.shop.when", "sources.<name>.when"),
        ("registry.sources.wso2.url", "registry.sources[].wso2.url"),
        ("registry.sources.wso2.tls.cert_file", "registry.sources[].<kind>.tls.cert_file"),
        ("notifier.per_second", "notifier.per_second"),
        ("notifier.proxy.file", "notifier.proxy"),
        ("clients.yaml[0] (shop).notifier.retry.base", "notifier.retry.base"),
        ('registry.defaults["https://id.example.com"].timeout', "notifier.timeout"),
    ],
)
def test_setting_is_found_in_each_spelling(called: str, name: str) -> None:
    """As in a file, in an error, in the environment, or in the reference."""
    assert [setting.name for setting in find_settings(called)] == [name]


def test_explain_prints_a_setting_and_a_section(tmp_path: Path) -> None:
    """With type, default and whether it needs a restart; JSON for scripts."""
    shown = notifier("explain", "queue.prefix", cwd=tmp_path)
    assert shown.returncode == 0
    facts = "**`queue.prefix`** (text; default: `notifier`; needs a restart)"
    assert shown.stdout.startswith(f"{facts}\n\nThe beginning of")
    assert (
        "**`issuers.<iss>.keys[].kid`** (text)" in notifier("explain", "issuers.<iss>.keys[0].kid", cwd=tmp_path).stdout
    )
    listed = json.loads(notifier("explain", "delivery.retry", "--json", cwd=tmp_path).stdout)
    assert [each["name"] for each in listed] == ["delivery.retry.base", "delivery.retry.max_delay"]
    wrong = notifier("explain", "delivery.timeot", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")


# ── `notifier explain`: a section of the runbook, or the list of sections ────────────────────────────────────────────


def test_a_reason_is_explained(tmp_path: Path) -> None:
    """By its name in any case."""
    done = notifier("explain", "rejected_token", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("rejected_token\n\n**Meaning.** The client answered 400")
    assert notifier("explain", "notifierdeadletters", cwd=tmp_path).stdout.startswith("NotifierDeadLetters\n")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *((state, "") for state in STATE_WORDS.values()),
        *((kind, "") for kind in TroubleKind),
        ("down", "circuit is open"),
        ("half-open", "One delivery is attempted at a client that is down."),
        ("client_failing", "circuit is open"),
        ("parked", "A bucket is a queue for deliveries"),
        ("probe", "One delivery is attempted"),
        ("delayed", "in a delay queue"),
        *((word, "is set aside") for word in ("late", "set_aside", "queue_set_aside")),
        ("silent", "no answer for more than a second"),
        ("attempts_ended_early_total", "before their timeout"),
        ("held", "received and not acked"),
    ],
)
def test_words_of_status_waiting_and_log_are_explained(tmp_path: Path, word: str, expected: str) -> None:
    """States of clients, locations of deliveries, and problems, with their section of the runbook."""
    done = notifier("explain", word, cwd=tmp_path)
    assert (done.returncode, done.stderr, expected in done.stdout) == (0, "", True)


def test_metric_and_member_of_the_log_are_explained(tmp_path: Path) -> None:
    """A metric by its row in docs/metrics.md, with its labels; and the setting of the same name before a member."""
    shown = notifier("explain", "notifier_event_remarks_total", cwd=tmp_path).stdout
    assert shown.startswith("event_remarks_total\n\nUnknown members of events")
    assert shown.endswith("correct the name. Labels: `member`.\n\n")
    assert "parked deliveries" in notifier("explain", "large", "bucket", cwd=tmp_path).stdout
    assert "nobody verified" in notifier("explain", "claimed", cwd=tmp_path).stdout
    assert "# NotifierQueuePolicy" not in (policy := notifier("explain", "queue_policy", cwd=tmp_path).stdout)
    assert "**Remedy.**" in policy
    assert notifier("explain", "queue", cwd=tmp_path).stdout.startswith("**`queue.url`**")


def test_explain_without_a_name_lists_all(tmp_path: Path) -> None:
    """Lists the names by group, as text and as JSON. A cause that is a reason too is in both groups."""
    text = notifier("explain", cwd=tmp_path).stdout
    assert text.startswith("Reasons of attempts and dead letters:\n  delivered\n")
    assert "Alerts:\n" in text
    listed = json.loads(notifier("explain", "--json", cwd=tmp_path).stdout)
    causes = {each["name"] for each in listed if each["group"] == "Causes of deferrals"}
    assert causes == {*Cause}
    assert {"name": "proxy", "group": "Reasons of attempts and dead letters"} in listed


def test_explain_prints_the_whole_runbook(tmp_path: Path) -> None:
    """Link targets are removed."""
    shown = notifier("explain", "--all", cwd=tmp_path).stdout
    assert shown.startswith("# Runbook\n")
    assert "NotifierDeadLetters" in shown
    assert "](" not in shown


def test_runbook_commands_fit_the_environment(tmp_path: Path) -> None:
    """NOTIFIER_CONFIG replaces `-c FILE`, as in a pod."""
    assert "notifier status -c FILE" in notifier("explain", "NotifierReloadFailed", cwd=tmp_path).stdout
    settings = {"NOTIFIER_CONFIG": "/etc/notifier/notifier.yaml"}
    for words in (["NotifierReloadFailed"], ["NotifierReloadFailed", "--json"], ["--all"]):
        shown = notifier("explain", *words, cwd=tmp_path, settings=settings).stdout
        assert "notifier status" in shown
        assert "-c FILE" not in shown

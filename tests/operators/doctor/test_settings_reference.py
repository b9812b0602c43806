"""The reference of settings: a row for each, with the type and the default that the service has."""

import json
import re
from pathlib import Path

import pytest
import yaml

from notifier.configuration.reload_state import FIXED
from notifier.operators.doctor.settings_reference import reference, settings, settings_called
from tests.cli.in_process import notifier
from tests.operators.doctor import schema_settings

ROOT = Path(__file__).parents[3]
ROWS = {setting.name: setting for setting in settings()}
SCHEMA = {**dict(schema_settings.settings()), **dict(schema_settings.members())}


def test_a_row_has_the_type_that_the_schema_has() -> None:
    """Of the service's file, and of a client."""
    assert {name: ROWS[name].type for name in SCHEMA.keys() & ROWS.keys()} == {
        name: kind for name, kind in SCHEMA.items() if name in ROWS
    }


def test_what_is_read_once_says_so() -> None:
    """All of these sections, but for files that are read again."""
    for name, row in ROWS.items():
        if name.split(".")[0] in FIXED and name not in ("api.tokens_file", "queue.password_file"):
            assert row.restart, name
    assert ROWS["delivery.max_in_flight"].restart == "yes"
    assert (ROWS["delivery.timeout"].restart, ROWS["web.tls.key_file"].restart) == ("", "to name another")


def test_docs_have_the_same_text() -> None:
    """`make runbook` was run after the last change."""
    assert (ROOT / "docs/configuration.md").read_text() == reference()


def test_the_index_leads_to_sections() -> None:
    """Each link within the page has its heading."""
    headings = re.findall(r"^#+ (.+)$", reference(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", reference())) <= anchors


def test_the_whole_example_is_taken(tmp_path: Path) -> None:
    """`check` finds no mistake in it, and it has the ten settings that are named above it."""
    text = reference()
    made = notifier("keys", "generate", "--out", "2026.pem", "--at", "once", cwd=tmp_path)
    assert made.returncode == 0
    for file, content in re.findall(r"```yaml\n# ([\w.]+)\n(.*?)```", text, re.DOTALL)[:3]:
        (tmp_path / file).write_text(content)
    for file in ("keys/2026.pem", "secrets/broker-password", "secrets/subject-key"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text((tmp_path / "2026.pem").read_text() if "keys" in file else "s3cret\n")
    done = notifier("check", "-c", "notifier.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
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
        ("issuers.<iss>.keys[].file", "issuers.<iss>.keys[].file"),
        ("NOTIFIER_DELIVERY__RETRY__BASE", "delivery.retry.base"),
        ("sources.shop.when", "sources.<name>.when"),
        ("registry.sources.wso2.url", "registry.sources[].wso2.url"),
        ("notifier.per_second", "notifier.per_second"),
        ("clients.yaml[0] (shop).notifier.retry.base", "notifier.retry.base"),
        ('registry.defaults["https://id.example.com"].timeout', "notifier.timeout"),
    ],
)
def test_a_setting_is_found_as_people_write_it(called: str, name: str) -> None:
    """As in a file, in an error, in the environment, or in the reference."""
    assert [setting.name for setting in settings_called(called)] == [name]


def test_explain_tells_a_setting_and_a_section(tmp_path: Path) -> None:
    """With type, default and whether it needs a restart; JSON for scripts."""
    shown = notifier("explain", "queue.prefix", cwd=tmp_path)
    assert shown.returncode == 0
    assert shown.stdout.startswith("queue.prefix (text; default: notifier; needs a restart)\n\nThe beginning of")
    assert "issuers.<iss>.keys[].kid (text)" in notifier("explain", "issuers.<iss>.keys[0].kid", cwd=tmp_path).stdout
    told = json.loads(notifier("explain", "delivery.retry", "--json", cwd=tmp_path).stdout)
    assert [each["name"] for each in told] == ["delivery.retry.base", "delivery.retry.max_delay"]
    wrong = notifier("explain", "delivery.timeot", cwd=tmp_path)
    assert (wrong.returncode, "did you mean delivery.timeout?" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("delivery.slot_wait", "is gone: it is 1s now"),
        ("NOTIFIER_QUEUE__PREFETCH__EVENTS", "is gone: it is 512 now"),
        ("tracing.endpoint", "is gone: the variable OTEL_EXPORTER_OTLP_ENDPOINT names the collector"),
        ("NOTIFIER_TRACING__SAMPLE", "is gone: the variable OTEL_EXPORTER_OTLP_ENDPOINT names the collector"),
        ("notifier.retry.jitter", "is gone: it is 0.25 now"),
        ("clients.yaml[3] (shop).notifier.retry.factor", "is gone: it is 3 now"),
    ],
)
def test_what_is_a_setting_no_more_says_so(tmp_path: Path, name: str, says: str) -> None:
    """And not which other one is spelt like it."""
    done = notifier("explain", name, cwd=tmp_path)
    assert (done.returncode, done.stdout.startswith(f"{name} {says}")) == (0, True), done.stdout


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("max_age", "delivery.max_age or upstreams.<name>.max_age or notifier.max_age"),
        ("kid", "issuers.<iss>.keys[].kid"),
        ("prefetch", "queue.prefetch.bulk"),
        ("NOTIFIER_LOG_LEVEL", "log.level"),
        ("NOTIFIER_QUEUE_URL", "queue.url"),
    ],
)
def test_a_part_of_a_name_leads_to_the_whole(tmp_path: Path, name: str, near: str) -> None:
    """Also with one underscore where a variable has two."""
    assert f"did you mean {near}?" in notifier("explain", name, cwd=tmp_path).stderr

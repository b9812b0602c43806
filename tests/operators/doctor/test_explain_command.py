"""`notifier explain`: a section of the runbook, or what it has sections of."""

import json
from pathlib import Path

from tests.cli.in_process import notifier


def test_a_reason_is_explained(tmp_path: Path) -> None:
    """By its name, whatever its case."""
    done = notifier("explain", "rejected_token", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("rejected_token\n\nWhat it means. The client answered 400")
    assert notifier("explain", "notifierdeadletters", cwd=tmp_path).stdout.startswith("NotifierDeadLetters\n")


def test_what_nobody_knows_exits_2_with_the_nearest_name(tmp_path: Path) -> None:
    """On stderr."""
    done = notifier("explain", "rejected_tokens", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean rejected_token?; `notifier explain` lists all" in done.stderr
    assert not done.stdout


def test_without_a_name_it_lists_them(tmp_path: Path) -> None:
    """Group by group; as JSON for scripts."""
    text = notifier("explain", cwd=tmp_path).stdout
    assert text.startswith("Reasons of attempts and dead letters:\n  delivered\n")
    assert "Alerts:\n" in text
    listed = json.loads(notifier("explain", "--json", cwd=tmp_path).stdout)
    assert {"name": "signing", "group": "Causes of deferrals"} in listed


def test_the_whole_runbook_can_be_had(tmp_path: Path) -> None:
    """Without the markup of its source."""
    shown = notifier("explain", "--all", cwd=tmp_path).stdout
    assert shown.split(maxsplit=1)[0] == "Runbook"
    assert "NotifierDeadLetters" in shown
    assert not [line for line in shown.splitlines() if "**" in line or "`" in line or "](" in line or len(line) > 80]
    assert not [line for line in shown.splitlines() if line.endswith(" ")]


def test_commands_are_as_they_are_typed_here(tmp_path: Path) -> None:
    """NOTIFIER_CONFIG stands for `-c FILE`, as in a pod."""
    assert "notifier status -c n.yaml" in notifier("explain", "NotifierReloadFailed", cwd=tmp_path).stdout
    settings = {"NOTIFIER_CONFIG": "/etc/notifier/notifier.yaml"}
    for words in (["NotifierReloadFailed"], ["NotifierReloadFailed", "--json"], ["--all"]):
        shown = notifier("explain", *words, cwd=tmp_path, settings=settings).stdout
        assert "notifier status" in shown
        assert "-c n.yaml" not in shown

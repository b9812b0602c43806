"""On a terminal of 80 columns nothing is in the way of what a command says."""

import json
import re
from pathlib import Path

import pytest

from tests.system.command import notifier
from tests.system.terminal import on_a_terminal, seen

ISSUER = "https://login.customers.europe.example.org/realms/customers"
QUEUE = {"url": "sqlite:n.db"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An embedded queue, and events in a file."""
    (tmp_path / "n.yaml").write_text(json.dumps({"queue": QUEUE}))
    events = ({"iss": ISSUER, "sub": f"user {nth}", "clients": "*"} for nth in range(300))
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    return tmp_path


@pytest.mark.parametrize("piped", [False, True])
def test_a_bar_shares_no_line_with_rows(folder: Path, piped: bool) -> None:
    """Each row is a line by itself, whether the terminal gets it from the command or through another program."""
    rows = on_a_terminal(["publish", "-c", "n.yaml", "--json", "events.jsonl"], folder, columns=200, piped=piped)
    told = [row for row in rows if row and not re.fullmatch(r"confirmed: \d+ of 300", row)]  # on a slow machine
    assert [json.loads(row)["line"] for row in told] == [*range(1, 301)]


def test_a_bar_is_gone_before_the_answer(folder: Path) -> None:
    """And long lines are broken between words."""
    lines = on_a_terminal(["publish", "-c", "n.yaml", "events.jsonl"], folder)
    assert " ".join(lines).split() == ["300", "events", "confirmed", "by", f"sqlite:{folder}/n.db"]
    (folder / "bad.json").write_text(json.dumps({"iss": ISSUER, "sub": "", "clients": "*", "not_after": "tomorrow"}))
    told = on_a_terminal(["publish", "-c", "n.yaml", "bad.json"], folder)
    assert max(map(len, told)) <= 80
    whole = notifier("publish", "-c", "n.yaml", "bad.json", cwd=folder).stderr
    assert " ".join(told).split() == whole.split()


def test_what_became_of_an_event_can_be_copied(folder: Path) -> None:
    """Its line is the terminal's to break."""
    event = {"id": f"of {'a long name ' * 12}", "iss": ISSUER, "sub": "alice", "clients": "*"}
    (folder / "named.json").write_text(json.dumps(event))
    assert f"line 1: {event['id']}".rstrip() in on_a_terminal(["publish", "-c", "n.yaml", "named.json"], folder)


def test_what_a_row_is_written_over_is_seen() -> None:
    """The terminal of these tests shows a bar that was left where it is."""
    assert seen("looked at ━━━ 0/?row\r\n") == ["looked at ━━━ 0/?row", ""]
    assert seen("bar\x1b[?25l\r\x1b[2Krow\r\n") == ["row", ""]

"""Tables break no word and drop nothing, whatever the width."""

import io
import re
from pathlib import Path

import pytest

from notifier.model.durations import format_in_words
from notifier.operators.doctor.runbook import parse_sections
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.output import wrap_text
from notifier.operators.terminal.screen import Screen, format_age
from tests.cli.in_process import notifier as run

ISSUER = "https://login.customers.europe.example.org/realms/customers"
OTHER = "https://id.example.com"


def lines(width: int) -> list[str]:
    """A table of clients of two issuers, in a pipe: no line ends with blanks."""
    made = Grid("client", "state", "dead:", "reason", "cause")
    made.add_row("payroll-of-the-north", "rests", "1,200", "egress_denied", "", of=ISSUER)
    made.add_row("shop", "well", "0", "server_error 503", "", of=OTHER)
    made.add_row("crm", "tried now", "7", "timeout", "", of=ISSUER)
    made.add_sum("all 3", "", "1,207", "", "")
    out = io.StringIO()
    Screen(file=out, width=width, markup=False, highlight=False).print(made)
    return out.getvalue().splitlines()


def test_rows_stand_below_their_issuer() -> None:
    """Issuers come as they first appear; a column of which nothing is known is left out; the sum is last."""
    assert lines(80) == [
        "",
        " client                 state        dead   reason",
        " ───────────────────────────────────────────────────────────",
        f" {ISSUER}",
        " payroll-of-the-north   rests       1,200   egress_denied",
        " crm                    tried now       7   timeout",
        f" {OTHER}",
        " shop                   well            0   server_error 503",
        " ───────────────────────────────────────────────────────────",
        " all 3                              1,207",
        "",
    ]


def test_no_width_breaks_a_word() -> None:
    """Nor drops one."""
    whole = {"payroll-of-the-north", "egress_denied", "server_error", "503", "1,200", "tried", "now", "all"}
    for width in range(24, 90):
        drawn = lines(width)
        words = " ".join(drawn).split()
        assert whole <= {*words}, width
        assert ISSUER in "".join(words), width
        assert max(map(len, drawn)) <= width


def test_times_are_said_in_one_unit() -> None:
    """As people do."""
    assert [format_in_words(each) for each in (-1, 31, 119, 121, 7300, 200_000)] == [
        "0 s",
        "31 s",
        "119 s",
        "2 min",
        "2 h",
        "2 d",
    ]
    assert (format_age(None, 9.0), format_age(5.0, 9.0)) == ("–", "4 s ago")


# ── A command in a text is not broken over two lines, so that it can be copied, as far as it fits into one ────────


COMMAND = re.compile(r"`(notifier [^`\n]+)`")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_each_command_of_the_runbook_is_on_one_line(width: int, tmp_path: Path) -> None:
    """Whatever the width; cells of tables are left out."""
    shown = run("explain", "--all", cwd=tmp_path, settings={"COLUMNS": str(width)}).stdout
    text = "\n".join(
        line for section in parse_sections().values() for line in section.text.split("\n") if line[:1] != "|"
    )
    commands = {command for command in COMMAND.findall(text) if len(command) <= width - 10}
    assert len(commands) > 20
    assert [command for command in sorted(commands) if command not in shown] == []


def test_a_line_of_advice_ends_before_a_command() -> None:
    """A command that is longer than a line is broken as other text is."""
    assert wrap_text("the key is missing: run `notifier doctor -c n.yaml` now", 40).split("\n") == [
        "the key is missing: run",
        "  `notifier doctor -c n.yaml` now",
    ]
    assert wrap_text("more of it in notifier explain refused", 30).split("\n") == [
        "more of it in",
        "  notifier explain refused",
    ]
    assert "`notifier doctor\n" in wrap_text("see `notifier doctor -c a-very-long-name.yaml`", 22)

"""Test tables at a terminal: one line per row at any width."""

import io

from notifier.model.durations import format_in_words
from notifier.operators.terminal.output import format_age
from notifier.operators.terminal.screen import MAX_COLUMN_WIDTH, Grid, Screen

ISSUER = "https://login.customers.europe.example.org/realms/customers"
OTHER = "https://id.example.com"


def test_rows_stand_below_their_issuer() -> None:
    """Issuers keep the order of their first row; an empty column is omitted."""
    made = Grid("client", "state", "dead:", "reason", "cause")
    made.add_row("payroll-of-the-north", "rests", "1,200", "egress_denied", "", issuer=ISSUER)
    made.add_row("shop", "well", "0", "server_error 503", "", issuer=OTHER)
    made.add_row("crm", "tried now", "7", "timeout", "", issuer=ISSUER)
    out = io.StringIO()
    Screen(file=out, width=20, soft_wrap=True).print(made)
    assert out.getvalue().splitlines() == [
        "",
        " client                 state        dead   reason",
        " ───────────────────────────────────────────────────────────",
        f" {ISSUER}",
        " payroll-of-the-north   rests       1,200   egress_denied",
        " crm                    tried now       7   timeout",
        f" {OTHER}",
        " shop                   well            0   server_error 503",
        "",
    ]


def test_a_long_name_widens_no_other_row() -> None:
    """A publisher may write a name of 255 wide characters; the other rows keep their columns."""
    made = Grid("client", "dead:")
    made.add_row("宽" * 255, "1")
    made.add_row("crm", "7")
    made.add_row("n" * MAX_COLUMN_WIDTH, "12")
    out = io.StringIO()
    Screen(file=out, width=20, soft_wrap=True).print(made)
    assert out.getvalue().splitlines()[3:] == [
        f" {'宽' * 255}      1",
        f" crm{' ' * (MAX_COLUMN_WIDTH - 3)}      7",
        f" {'n' * MAX_COLUMN_WIDTH}     12",
        "",
    ]


def test_durations_have_one_unit() -> None:
    """The largest unit of which the duration has two or more."""
    assert [format_in_words(each) for each in (-1, 31, 119, 121, 7300, 200_000)] == [
        "0 s",
        "31 s",
        "119 s",
        "2 min",
        "2 h",
        "2 d",
    ]
    assert (format_age(None, 9.0), format_age(5.0, 9.0)) == ("–", "4 s ago")

"""Tables break no word and drop nothing, whatever the width."""

import io

from notifier.model.durations import in_words
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.screen import Screen, ago

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
    assert [in_words(each) for each in (-1, 31, 119, 121, 7300, 200_000)] == [
        "0 s",
        "31 s",
        "119 s",
        "2 min",
        "2 h",
        "2 d",
    ]
    assert (ago(None, 9.0), ago(5.0, 9.0)) == ("–", "4 s ago")

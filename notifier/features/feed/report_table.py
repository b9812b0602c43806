"""Shows the propagation report on a terminal, and writes its figures there and on the page."""

from collections.abc import Iterable

from notifier.features.feed.report import ClientFigures, PropagationReport
from notifier.model.moment import render_moment
from notifier.model.printable import counted
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.screen import screen

WIDTH = 130  # columns, if the output is not a terminal
FIGURES = ("delivered", "share", "dead", "retries", "median", "p99", "slowest")
NOBODY, NO_ISSUER = "(no client)", "(no issuer)"
NAMED = 10  # clients without any outcome


def show(report: PropagationReport, most: int) -> None:
    """Print the report, `most` clients at most."""
    console = screen(width=WIDTH)
    console.say(f"{moment(report.since)} to {moment(report.until)}")
    if not report.clients:
        console.say("The feed holds nothing of that time.")
        return
    console.print(_table(report, most))
    for note in notes(report, most):
        console.say(note, style="dim")


def _table(report: PropagationReport, most: int) -> Grid:
    table = Grid("client", *(f"{name}:" for name in FIGURES), "what went wrong")
    for line in report.clients[:most]:
        style = "bold red" if line.failing else "yellow" if line.dead else ""
        table.add_row(line.client_id or NOBODY, *cells(line), wrong(line), style=style, of=line.iss)
    table.add_sum(f"all {len(report.clients):,}", *cells(report.total), wrong(report.total))
    return table


def notes(report: PropagationReport, most: int) -> list[str]:
    """Return what a reader must know about the figures."""
    lines = ["From the end of the session until the client had taken the token; median and p99 within 4.4 %."]
    if report.total.undated:
        lines.append(f"{report.total.undated:,} have no time: nobody knows when their session ended.")
    if not report.complete:
        lines.append("With outcomes: failures nothing is known of what went well; set all for shares and times.")
    if nothing := sum(line.got_nothing for line in report.clients):
        lines.append(f"{counted(nothing, 'client')} got nothing at all: logouts were due, and none was delivered.")
    if report.untold:
        names = ", ".join(f"{client_id} of {iss}" for iss, client_id in report.untold[:NAMED])
        more = f" and {len(report.untold) - NAMED:,} more" if len(report.untold) > NAMED else ""
        text = f"{counted(len(report.untold), 'client')} of the registry"
        lines.append(f"Of {text} there is no outcome, for nothing was due, or all of it waits: {names}{more}.")
    if len(report.clients) > most:
        lines.append(f"{len(report.clients) - most:,} more clients, none worse than these; --clients shows more.")
    return lines


def by_issuer(lines: Iterable[ClientFigures]) -> list[tuple[str, list[ClientFigures]]]:
    """Return the clients of each issuer, the issuer of the worst client first."""
    rows: dict[str, list[ClientFigures]] = {}
    for line in lines:
        rows.setdefault(line.iss or NO_ISSUER, []).append(line)
    return list(rows.items())


def cells(line: ClientFigures) -> tuple[str, ...]:
    """Return the figures as text, in the order of FIGURES."""
    return (
        "–" if line.delivered is None else f"{line.delivered:,}",
        share(line.share),
        f"{line.dead:,}",
        f"{line.retries:,}",
        seconds(line.median),
        seconds(line.p99),
        seconds(line.slowest),
    )


def wrong(line: ClientFigures, most: int = 3) -> str:
    """Return the worst reasons, and whether the client fails now. Several reasons come with their numbers."""
    parts = ["failing now"] if line.failing and line.client_id else []
    for why in line.reasons[:most]:
        counts = [f"{why.dead:,} dead"] if why.dead else []
        counts += [f"{why.retries:,} retried"] if why.retries else []
        parts.append(f"{why.reason} ({', '.join(counts)})")
    return ", ".join(parts)


def share(value: float | None) -> str:
    """Return a share in per cent, never rounded up to 100."""
    if value is None:
        return "–"
    return "100 %" if value == 1 else f"{min(99.99, round(value * 100, 2)):.2f} %"


def seconds(value: float | None) -> str:
    """Return a duration with three digits, in the unit that people would use."""
    if value is None:
        return "–"
    for unit, size, most in (("ms", 0.001, 1.0), ("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172_800.0)):
        if value < most:
            return f"{value / size:.3g} {unit}"
    return f"{value / 86_400:.3g} d"


def moment(value: float) -> str:
    """Return a moment to the second, in UTC."""
    return render_moment(value)[:19].replace("T", " ") + " UTC"

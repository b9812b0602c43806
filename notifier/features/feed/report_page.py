"""Writes the propagation report as one HTML page. It loads nothing and runs no script, so it can be sent on."""

from collections.abc import Iterator, Sequence
from html import escape

from notifier import __version__
from notifier.features.feed.report import ClientFigures, PropagationReport
from notifier.features.feed.report_plots import clients_plot, propagation_plot, timeline_plot
from notifier.features.feed.report_table import NOBODY, by_issuer, cells, moment, notes, seconds, share, wrong
from notifier.model.printable import printable_lines

PLOTTED = 30  # clients, at most, in the plot

_STYLE = """
:root { color-scheme: light dark; --bg: #fbfbfa; --card: #ffffff; --text: #1c2126; --dim: #5d6873; --line: #dde1e5;
  --ok: #2a78b8; --warn: #c98a16; --bad: #c0392b; --p99: #7b4fb0; }
@media (prefers-color-scheme: dark) { :root { --bg: #14181c; --card: #1c2227; --text: #e4e8ec; --dim: #97a3ae;
  --line: #323a42; --ok: #58a6e0; --warn: #e0ad4c; --bad: #ec6a5c; --p99: #b690e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 28px 20px 48px; background: var(--bg); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 16px; margin: 0 0 10px; }
p { margin: 4px 0; } .dim, .none { color: var(--dim); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 12px; margin: 22px 0 12px; }
.tiles div, section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.tiles span { display: block; color: var(--dim); font-size: 13px; }
.tiles b { font-size: 21px; font-weight: 600; white-space: nowrap; }
.tiles .alarm b { color: var(--bad); }
section { margin-top: 12px; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--dim); }
.ok { fill: var(--ok); } .warn { fill: var(--warn); } .bad { fill: var(--bad); } .p99 { fill: var(--p99); }
.grid { stroke: var(--line); } .axis { stroke: var(--dim); }
.range { stroke: var(--dim); stroke-width: 3; opacity: .5; }
.mark { stroke: var(--text); stroke-dasharray: 4 3; }
.key { color: var(--dim); font-size: 13px; } .key i { display: inline-block; width: 10px; height: 10px;
  border-radius: 5px; margin: 0 5px 0 14px; } .key i:first-child { margin-left: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--dim); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
td:first-child, td:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 150px; }
.issuer th { text-align: left; color: var(--text); font-weight: 600; padding-top: 14px; overflow-wrap: anywhere;
  white-space: normal; } svg .issuer { fill: var(--text); font-weight: 600; } svg .nothing { fill: var(--bad); }
tfoot td { font-weight: 600; border-bottom: 0; } .failing td:first-child { color: var(--bad); font-weight: 600; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render_page(report: PropagationReport, most: int) -> str:
    """Return the page, with `most` clients at most in its table."""
    return printable_lines("".join(f"{part}\n" for part in _page(report, most)))


def _page(report: PropagationReport, most: int) -> Iterator[str]:
    period = f"{moment(report.since)} to {moment(report.until)}"
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Logout propagation, {period}</title><style>{_STYLE}</style></head><body>"
    yield f'<h1>Logout propagation</h1><p class="dim">{period} · notifier {escape(__version__)}</p>'
    if report.clients:
        yield from _figures(report, most)
    else:
        yield '<section><p class="none">The feed holds nothing of that time.</p></section>'
    for note in notes(report, most):
        yield f'<p class="dim">{escape(note)}</p>'
    yield "</body></html>"


def _figures(report: PropagationReport, most: int) -> Iterator[str]:
    total, shown = report.total, report.clients[:most]
    yield _tiles(report)
    yield _section("How long logouts took", propagation_plot(report.propagation, total.median, total.p99))
    if report.complete:
        yield _section("Delivered", timeline_plot(report.timeline, failures=False))
    if total.dead or total.retries:
        key = '<i style="background:var(--bad)"></i>given up<i style="background:var(--warn)"></i>retried'
        yield _section("Given up and retried", timeline_plot(report.timeline, failures=True), key)
    key = '<i style="background:var(--ok)"></i>median<i style="background:var(--p99)"></i>p99'
    yield _section("Each client", clients_plot([line for line in shown if line.client_id][:PLOTTED]), key)
    yield _section("Clients, the worst first", _table(shown, total, len(report.clients)))


def _tiles(report: PropagationReport) -> str:
    total = report.total
    failing = sum(line.failing for line in report.named)
    nothing = sum(line.got_nothing for line in report.named)
    of = f"of {len(report.named):,}"
    tiles = (
        ("delivered", share(total.share), False),
        ("median", seconds(total.median), False),
        ("p99", seconds(total.p99), False),
        ("slowest", seconds(total.slowest), False),
        ("given up", f"{total.dead:,}", total.dead > 0),
        ("failing now", f"{failing:,} {of}", failing > 0),
        ("got nothing", f"{nothing:,} {of}", nothing > 0),
    )
    inner = "".join(
        f"<div{' class=alarm' if alarm else ''}><span>{name}</span><b>{escape(value)}</b></div>"
        for name, value, alarm in tiles
    )
    return f'<div class="tiles">{inner}</div>'


def _section(title: str, inner: str, key: str = "") -> str:
    legend = f'<p class="key">{key}</p>' if key else ""
    return f"<section><h2>{escape(title)}</h2>{legend}{inner}</section>"


def _table(lines: Sequence[ClientFigures], total: ClientFigures, count: int) -> str:
    heads = ("client", "delivered", "share", "given up", "retries", "median", "p99", "slowest", "what went wrong")
    head = "".join(f"<th>{name}</th>" for name in heads)
    rows = ""
    for iss, group in by_issuer(lines):
        rows += f'<tr class="issuer"><th colspan="{len(heads)}">{escape(iss)}</th></tr>'
        rows += "".join(_row(line.client_id or NOBODY, line) for line in group)
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
        f"<tfoot>{_row(f'all {count:,}', total)}</tfoot></table>"
    )


def _row(name: str, line: ClientFigures) -> str:
    inner = "".join(f"<td>{escape(cell)}</td>" for cell in (name, *cells(line), wrong(line)))
    return f"<tr{' class=failing' if line.failing and line.client_id else ''}>{inner}</tr>"

"""Writes the propagation report as one HTML page. It loads nothing and runs no script, so it can be sent on."""

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from notifier import __version__
from notifier.features.feed.report import PropagationReport
from notifier.features.feed.report_plots import client_plots, propagation_plot, timeline_plot
from notifier.features.feed.report_table import NOBODY, by_issuer, cells, moment, notes, seconds, share, wrong
from notifier.model.printable import printable_lines

PLOTTED = 30  # clients, at most, in the plots


def render_page(report: PropagationReport, most: int) -> str:
    """Return the page, with `most` clients at most in its table."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page.globals |= {
        "by_issuer": by_issuer, "cells": cells, "wrong": wrong, "seconds": seconds,
        "propagation_plot": propagation_plot, "timeline_plot": timeline_plot,
    }  # fmt: skip
    shown = report.clients[:most]
    text = page.from_string(files(__package__).joinpath("report_page.html").read_text(encoding="utf-8")).render(
        report=report,
        period=f"{moment(report.since)} to {moment(report.until)}",
        version=__version__,
        tiles=_tiles(report),
        plots=client_plots([line for line in shown if line.client_id][:PLOTTED]),
        shown=shown,
        nobody=NOBODY,
        notes=notes(report, most),
    )
    return printable_lines(text)


def _tiles(report: PropagationReport) -> list[tuple[str, str, bool]]:
    """What is said first: a name, a figure, and whether it is an alarm."""
    total = report.total
    failing = sum(line.failing for line in report.named)
    nothing = sum(line.got_nothing for line in report.named)
    of = f"of {len(report.named):,}"
    return [
        ("delivered", share(total.share), False),
        ("median", seconds(total.median), False),
        ("p99", seconds(total.p99), False),
        ("slowest", seconds(total.slowest), False),
        ("given up", f"{total.dead:,}", total.dead > 0),
        ("failing now", f"{failing:,} {of}", failing > 0),
        ("got nothing", f"{nothing:,} {of}", nothing > 0),
    ]

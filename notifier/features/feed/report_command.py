"""`notifier report`: shows what share of logouts arrived at each client, how soon, and what went wrong."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from notifier.configuration.clients.answers import ReadNow
from notifier.configuration.clients.clients_file import load_registry
from notifier.features.feed.collect_command import OUTCOMES_FILE
from notifier.features.feed.feed_file import read_feed
from notifier.features.feed.report import PropagationReport, ReportTally, report_document
from notifier.features.feed.report_table import show
from notifier.model.errors import ConfigurationError, Mistake
from notifier.operators.letters.letter_filter import read_when
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.progress import progress_of
from notifier.settings.config_file import load_settings, read_part
from notifier.settings.service_settings import Settings


def report(
    config: Config = None,
    since: Annotated[
        str, typer.Option(metavar="AGE|MOMENT", help="The beginning: 24h or 7d (ago), or 2026-01-31T12:00:00Z.")
    ] = "24h",
    until: Annotated[str | None, typer.Option(metavar="AGE|MOMENT", help="The end. Default: now.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="A file of collect, or an embedded queue. Default: the embedded queue, else outcomes.db.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write a self-contained page with plots to this file.")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, help="Show at most this many clients.")] = 50,
    as_json: Json = False,
) -> None:
    """Show what share of logouts arrived at each client, how soon, and what went wrong.

    The time runs from the end of the session (ended_at) until the client took the logout token. The median and p99 are
    exact to 4.4 %, the slowest is exact. The share is that of the deliveries that have ended.

    The report is made of outcomes, so set outcomes: all. The embedded queue keeps them itself. With RabbitMQ, run
    notifier collect.

    Examples:
        # the last day, worst clients first
        notifier report -c n.yaml
        # a page to look at or to send on
        notifier report -c n.yaml --since 7d --html week.html
        # clients that missed more than one logout in a hundred
        notifier report -c n.yaml --json | jq '.clients[] | select((.share // 1) < 0.99)'
    """
    quiet_logs()
    settings = read_part(config, os.environ, {"queue", "outcomes"}).settings
    source = _source(settings, file)
    now = time.time()
    period = _moment(since, now, "--since"), now if until is None else _moment(until, now, "--until")
    if period[0] >= period[1]:
        raise typer.BadParameter("the period ends before it begins", param_hint="--since")
    _show(_report(config, settings, source, *period), clients, html, as_json=as_json)


def _source(settings: Settings, file: Path | None) -> Path:
    source = file or settings.queue.sqlite_file or OUTCOMES_FILE
    if not source.exists():
        if file is None and settings.queue.sqlite_file is None:
            text = f"there is no {source} here: run `notifier collect` beside the workers, or name its file by --file"
        else:
            text = f"there is no file {source}"
        raise typer.BadParameter(text, param_hint="--file")
    return source


def _moment(text: str, now: float, option: str) -> float:
    try:
        return read_when(text, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _registered(config: Path | None) -> list[tuple[str, str]]:
    """The clients that can be told, from files and caches alone. None if the registry cannot be read here."""
    try:
        registry = load_registry(load_settings(config, os.environ), ReadNow(None))
    except ConfigurationError:
        return []
    return [
        (iss, client.client_id)
        for iss in registry.issuers
        for client in registry.clients_of(iss).values()
        if client.told_at is not None
    ]


def _report(config: Path | None, settings: Settings, source: Path, since: float, until: float) -> PropagationReport:
    # The configuration says what the feed holds. Without one, only the rows can show it.
    tally = ReportTally(since, until, complete=None if settings.outcomes == "off" else settings.outcomes == "all")
    with progress_of("outcomes", plain=False) as progress:
        for row in read_feed(source, since, progress):
            tally.add(row)
    report = tally.report(_registered(config))
    if not report.clients and settings.outcomes == "off":
        text = f'is "off", so workers write no outcomes, and {source} has none of that time; set it to all, and restart'
        raise ConfigurationError([Mistake("outcomes", text)])
    return report


def _show(report: PropagationReport, clients: int, html: Path | None, *, as_json: bool) -> None:
    if html is not None:
        from notifier.features.feed.report_page import render_page  # noqa: PLC0415  its libraries take 0.1 s

        part = html.with_name(f"{html.name}.part")
        part.write_text(render_page(report, clients), encoding="utf-8")
        part.replace(html)
    if as_json:
        say_json(report_document(report), indent=2)
    else:
        show(report, clients)
    if html is not None:
        say(f"written: {html}", err=as_json)

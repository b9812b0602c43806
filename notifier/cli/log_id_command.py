"""`notifier log-id`: prints the hash of a user or session in logs, and its entries in a log."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.progress import open as progress

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.screen import make_screen
from notifier.settings.config_file import read_sections
from notifier.settings.subject_key import CREATE_COMMAND, subject_key_file
from notifier.telemetry.log_search import DELIVERED, LoggedDelivery, find_deliveries
from notifier.telemetry.logs import subject_hash


def log_id(
    sub: Annotated[str, typer.Argument(metavar="SUB", help="A sub or sid, as the events have it.")],
    config: Config = None,
    log: Annotated[
        Path | None,
        typer.Option("--in", metavar="FILE", help="Show the user's logouts in this log (JSON lines; - is stdin)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the hash under which logs show a `sub` or `sid`; with --in, show the results of that user's logouts.

    The key of the hash is in log.subject_key_file. With the embedded queue a worker makes one beside the queue's file.

    With --in it shows the last entry of the log for each event and client. The exit status is 0 if there are
    some and all were delivered, else 1. A log of level warning or error has no lines of attempts, so none are found.

    Examples:
        # did alice's logout go out?
        notifier log-id -c n.yaml alice --in notifier.log
        # the same, from a cluster
        kubectl logs -l app=notifier --tail=-1 | notifier log-id -c n.yaml alice --in -
        # every line of alice
        grep "$(notifier log-id -c n.yaml alice)" notifier.log
        # workers on RabbitMQ need one key first: make it, name it in n.yaml, start them again
        (umask 077 && openssl rand -hex 32 > log.key)   # log: {subject_key_file: log.key}
    """
    shown = _compute_log_id(sub, config, raw_too=log is not None)
    if log is None:
        say(shown)
        return
    with _open_log(log) as lines:
        deliveries = find_deliveries(lines, shown)
    if as_json:
        for fate in deliveries:
            say_json(asdict(fate))
    elif deliveries:
        _print_table(deliveries)
    else:
        say(f"notifier: no attempt for {shown} is in this log", err=True)
    if not deliveries or any(fate.fate != DELIVERED for fate in deliveries):
        raise typer.Exit(1)


def _compute_log_id(sub: str, config: Path | None, *, raw_too: bool) -> str:
    """Return the form of `sub` in logs. Raises ConfigurationError if logs do not contain it."""
    settings = read_sections(config, os.environ, {"log", "queue"}).settings
    if raw_too and settings.log.subject == "raw":
        return sub
    hashing = subject_hash(settings)
    if settings.log.subject != "hash":
        text = f'is "{settings.log.subject}", so the logs hold no hash; set it to "hash"'
        raise ConfigurationError([InputIssue("log.subject", text)])
    if not hashing.lasting:
        if (file := subject_key_file(settings)) is not None:
            text = f"is not set, and {file}, which a worker makes when it starts, is not there"
        else:
            text = f"is not set, so each worker hashes with a random key that nobody knows; set it: {CREATE_COMMAND}"
        raise ConfigurationError([InputIssue("log.subject_key_file", text)])
    return hashing.log_id(sub)


@contextmanager
def _open_log(log: Path) -> Iterator[TextIO]:
    """Yield the open log. Show the progress on a terminal."""
    if str(log) == "-":
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        yield sys.stdin
    elif sys.stderr.isatty():
        with progress(
            log, "r", encoding="utf-8", errors="replace", console=make_screen(err=True), transient=True
        ) as file:
            yield file
    else:
        with log.open(encoding="utf-8", errors="replace") as file:
            yield file


def _print_table(deliveries: "list[LoggedDelivery]") -> None:
    table = Grid("time", "event", "client", "fate", "why", "attempts:", "next")
    for fate in deliveries:
        why = "" if fate.fate == "delivered" else fate.reason
        when, due = (text[:19].replace("T", " ") + "Z" if text else "" for text in (fate.time, fate.next_due))
        table.add_row(when, fate.event_id, fate.client_id, fate.fate, why, str(fate.attempts), due)
    make_screen(width=200).print(table)

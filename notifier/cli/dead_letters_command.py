"""`notifier dead-letters list`, `show`, `export`: looking at what was given up. Looking changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifier.cli.dead_letters_access import (
    ClientId,
    EventId,
    Iss,
    Reasons,
    Since,
    Subject,
    Until,
    opened_letters,
    progress_of,
    queue_settings,
    wanted_of,
    written_anew,
)
from notifier.cli.dead_letters_repair import DISCARD_EXAMPLES, REPLAY_EXAMPLES, discard, prospect, replay
from notifier.cli.options import Config, Json, in_help, quiet_logs, register
from notifier.cli.output import say
from notifier.domain.printable import json_text, printable

if TYPE_CHECKING:
    from notifier.domain.letter_filter import LetterFilter, LetterSummary
    from notifier.domain.message import Message
    from notifier.operations.dead_letter_listing import LetterGroup
    from notifier.settings import QueueSettings

app = typer.Typer(
    no_args_is_help=True,
    help="Look at what was given up or could not be read, replay it, discard it.",
    epilog=in_help(
        (
            ("which clients do not get their logouts, and why", "notifier dead-letters list -c n.yaml"),
            ("once the cause is mended", "notifier dead-letters replay -c n.yaml --client-id shop"),
        )
    ),
)


def list_(
    *,
    config: Config = None,
    client_id: ClientId = None,
    reason: Reasons = None,
    iss: Iss = None,
    event_id: EventId = None,
    subject: Subject = None,
    since: Since = None,
    until: Until = None,
    rows: Annotated[bool, typer.Option("--rows", help="List each letter, oldest first, instead of counts.")] = False,
    as_json: Json = False,
) -> None:
    """Count dead letters by client and reason, or list them.

    --json prints one object a line for each letter: id, event_id, client_id, iss, reason, dead_since, attempts, text.
    Neither form shows a sub or sid. Looking removes nothing and changes no order.
    """
    wanted = wanted_of(None, client_id, iss, event_id, reason, since, until, subject)
    settings = _looking(config)
    from notifier.operations.dead_letter_listing import LetterCounts

    counts = LetterCounts()

    def see(row: LetterSummary, _message: Message) -> None:
        counts.add(row)
        if as_json:
            say(json_text(row.document()))
        elif rows:
            say(_line(row))

    _look_now(settings, wanted, see, quiet=rows or as_json, whole=False)
    if not (rows or as_json):
        _print_groups(counts.groups())
    if not as_json:
        say(f"{counts.total:,} dead letter{'' if counts.total == 1 else 's'}")


def show(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The letter's ID, as `list --rows` prints it.", show_default=False)
    ],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it died, what each attempt met, and what a replay would send.

    The output holds sub and sid. The exit status is 1 if there is no such letter.
    """
    from notifier.domain.letter_filter import LetterFilter
    from notifier.operations.dead_letter_export import exported

    found: list[dict[str, object]] = []
    settings = _looking(config)

    def see(_row: LetterSummary, message: Message) -> None:
        found.append(exported(message) | ({} if as_json else {"replay": prospect(message, config, settings)}))

    _look_now(settings, LetterFilter(ids=frozenset({id_})), see, first=True)
    if not found:
        say(f"notifier: there is no dead letter {id_}; `notifier dead-letters list --rows` shows them", err=True)
        raise typer.Exit(1)
    say(json_text(found[0]) if as_json else _in_words(found[0]))


def export(
    file: Annotated[
        Path, typer.Argument(allow_dash=True, help="The file, readable by its owner alone; - is stdout.")
    ] = Path("-"),
    *,
    config: Config = None,
    client_id: ClientId = None,
    reason: Reasons = None,
    iss: Iss = None,
    event_id: EventId = None,
    subject: Subject = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write whole dead letters to a file, one JSON object a line.

    The letters stay where they are. The file holds sub and sid, and the bodies that could not be read. A file that
    exists is replaced once everything is written; if the export fails, it stays as it was.
    """
    from notifier.operations.dead_letter_export import exported

    wanted = wanted_of(None, client_id, iss, event_id, reason, since, until, subject)
    settings = _looking(config)
    count = 0
    with written_anew(file) as out:

        def see(_row: LetterSummary, message: Message) -> None:
            nonlocal count
            count += 1
            out.write(json_text(exported(message)) + "\n")

        _look_now(settings, wanted, see)
    say(f"{count:,} dead letter{'' if count == 1 else 's'} exported", err=True)


def _looking(config: Config) -> QueueSettings:
    quiet_logs()
    return queue_settings(config)


def _look_now(
    settings: QueueSettings,
    wanted: LetterFilter,
    see: Callable[[LetterSummary, Message], None],
    *,
    first: bool = False,
    quiet: bool = False,
    whole: bool = True,
) -> None:
    """Tell `see` of each that is meant, or of the first."""
    import uvloop

    uvloop.run(_look(settings, wanted, see, first=first, quiet=quiet, whole=whole))


async def _look(
    settings: QueueSettings,
    wanted: LetterFilter,
    see: Callable[[LetterSummary, Message], None],
    *,
    first: bool = False,
    quiet: bool = False,
    whole: bool = True,
) -> None:
    from notifier.operations.dead_letter_listing import no_progress, rows

    with progress_of("looked at") as progress:
        async with opened_letters(settings, writing=False) as letters:
            tell = no_progress if quiet and sys.stdout.isatty() else progress
            async with aclosing(rows(letters, wanted, tell, whole=whole)) as found:
                async for row, message in found:
                    see(row, message)
                    if first:
                        return


def _line(row: LetterSummary) -> str:
    client = row.client_id or "-"
    told = row.document()["dead_since"]
    return printable(
        f"{row.id}  {told}  {row.reason:<21}  {client}  event {row.event_id or '-'}  attempts {row.attempts}"
    )


def _print_groups(groups: list[LetterGroup]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from notifier.cli.screen import screen
    from notifier.domain.moment import render_moment

    if not groups:
        return
    console = screen(width=200)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("client", "reason"):
        table.add_column(name, no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    for name in ("oldest", "newest"):
        table.add_column(name, no_wrap=True)
    several = len({group.iss for group in groups}) > 1
    if several:
        table.add_column("issuer", overflow="fold")
    for group in groups:
        moments = [render_moment(moment)[:19] + "Z" for moment in (group.oldest, group.newest)]
        cells = [printable(group.client_id) or "-", group.reason, f"{group.count:,}", *moments]
        table.add_row(*cells, *([printable(group.iss) or "-"] if several else []))
    console.print(table)


def _in_words(document: dict[str, Any]) -> str:
    document.pop("v", None)
    outcomes = document.pop("outcomes", [])
    document.get("delivery", {}).pop("history", None)  # the outcomes are it
    lines = [
        printable(f"{name:<12} {value}") for name, value in document.items() if not isinstance(value, (dict, list))
    ]
    for outcome in outcomes:
        status = "" if outcome["status"] is None else f" {outcome['status']}"
        met = f"{'met':<12} {outcome['at']}  {outcome['reason']}{status}  {outcome['text']}"
        lines.append(printable(met.rstrip()))
    for name, value in document.items():
        if isinstance(value, (dict, list)):
            lines.append(f"{name:<12} {json_text(value, indent=2)}")
    return "\n".join(lines)


list_.__name__ = "list"
register(
    app,
    list_,
    (
        ("counts by client and reason", "notifier dead-letters list -c n.yaml"),
        ("did this user's logout die?", "notifier dead-letters list -c n.yaml --subject alice --rows"),
        ("those of the last hour, for a script", "notifier dead-letters list --since 1h --json | jq .client_id"),
    ),
)
register(app, show, (("one letter whole", "notifier dead-letters show -c n.yaml 6f1c…"),))
register(app, replay, REPLAY_EXAMPLES)
register(app, discard, DISCARD_EXAMPLES)
register(
    app,
    export,
    (
        ("before they are discarded", "notifier dead-letters export -c n.yaml --reason malformed_event bad.jsonl"),
        ("the body of one", "notifier dead-letters export -c n.yaml | jq -r 'select(.id == \"6f1c…\").raw.body'"),
    ),
)

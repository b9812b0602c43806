"""The commands `notifier dead-letters list`, `show` and `export`, which change nothing."""

from pathlib import Path
from typing import Annotated

import typer

from notifier.model.message import Message
from notifier.model.printable import counted, json_text
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter, DeadLetterFilterMembers
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary, to_export_document
from notifier.operators.deliveries.dead_letters_access import DEAD_LETTER_TABLE, open_replacement, read_filter_options
from notifier.operators.deliveries.dead_letters_repair_command import discard, preview_replay, replay
from notifier.operators.deliveries.message_table import CommandContext, list_messages, read_messages
from notifier.operators.terminal.command_options import Config, Json, takes
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.output import say, say_json

app = typer.Typer()


@command_group(app)
def _group() -> None:
    """List, show, export, replay or discard deliveries that were given up and messages that could not be read.

    Examples:
        # which clients do not get their logouts, and why
        notifier dead-letters list -c n.yaml
        # once the cause is fixed
        notifier dead-letters replay -c n.yaml --client-id shop
    """


@command(app)
@takes(DeadLetterFilterMembers, without={"id"})
def list_(
    context: typer.Context,
    *,
    config: Config = None,
    members: DeadLetterFilterMembers,
    rows: Annotated[
        bool, typer.Option("--rows", help="List each dead letter, oldest first, instead of counts.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count dead letters by client and reason, or list them.

    --json prints one object per line: id, event_id, client_id, iss, reason, dead_since, attempts, text, source if it
    came from one. No output has sub or sid. The command removes nothing and keeps the order. The exit status is 1 if
    the registry does not have the client.

    Examples:
        # counts by client and reason
        notifier dead-letters list -c n.yaml
        # did this user's logout die?
        notifier dead-letters list -c n.yaml --subject alice --rows
        # those of the last hour, for a script
        notifier dead-letters list --since 1h --json | jq .client_id
    """
    filter_ = read_filter_options(members)
    list_messages(DEAD_LETTER_TABLE, CommandContext(config, context.obj), filter_, rows=rows, as_json=as_json)


@command(app)
def show(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The ID, as list --rows prints it.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it was given up, the result of each attempt, and what a replay would do.

    The output contains sub and sid. The exit status is 1 if there is no such dead letter.

    Examples:
        # one dead letter whole
        notifier dead-letters show -c n.yaml 6f1c…
    """
    documents: list[dict[str, object]] = []

    def on_message(_summary: DeadLetterSummary, message: Message) -> None:
        preview = {} if as_json else {"replay": preview_replay(message, config, context.obj)}
        documents.append(to_export_document(message) | preview)

    command_context = CommandContext(config, context.obj)
    read_messages(
        DEAD_LETTER_TABLE, command_context, DeadLetterFilter(ids=frozenset({id_})), on_message, whole=True, first=True
    )
    if not documents:
        say(f"notifier: {DEAD_LETTER_TABLE.format_missing(id_)}", err=True)
        raise typer.Exit(1)
    say_json(documents[0], indent=None if as_json else 2)


@command(app)
@takes(DeadLetterFilterMembers, without={"id"})
def export(
    file: Annotated[
        Path, typer.Argument(allow_dash=True, help="The file to write, readable by its owner only; - is stdout.")
    ] = Path("-"),
    *,
    config: Config = None,
    members: DeadLetterFilterMembers,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write whole dead letters to a file, one JSON object per line.

    The dead letters stay in the queue. The file holds sub and sid, and the bodies that could not be read. A file that
    exists is refused: it may hold dead letters that were discarded since. --force replaces it after everything is
    written; if the export fails, it is left unchanged.

    Examples:
        # before they are discarded
        notifier dead-letters export -c n.yaml --reason malformed_event bad.jsonl
        # the body of one
        notifier dead-letters export -c n.yaml | jq -r 'select(.id == "6f1c…").raw.body'
    """
    filter_ = read_filter_options(members)
    if file.is_file() and not force:
        raise typer.BadParameter(f"{file} exists; --force replaces it", param_hint="FILE")
    count = 0
    with open_replacement(file) as out:

        def on_message(_summary: DeadLetterSummary, message: Message) -> None:
            nonlocal count
            count += 1
            out.write(json_text(to_export_document(message)) + "\n")

        read_messages(DEAD_LETTER_TABLE, CommandContext(config, ()), filter_, on_message, whole=True)
    say(f"{counted(count, 'dead letter')} exported", err=True)


command(app)(replay)
command(app)(discard)

"""The commands `notifier dead-letters list`, `show` and `export`. They look at dead letters and change nothing."""

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from notifier.configuration.configured_feature import ConfiguredFeature
from notifier.model.message import Message
from notifier.model.moment import read_moment, shown_moment
from notifier.model.nearest import NOBODY_KNOWS
from notifier.model.printable import counted, json_text, printable
from notifier.operators.letters.dead_letters_access import letters_of, written_anew
from notifier.operators.letters.dead_letters_repair_command import discard, prospect, replay
from notifier.operators.letters.exported_letter import exported
from notifier.operators.letters.groups import Group, GroupCounts
from notifier.operators.letters.letter_filter import LetterFilter, LetterMembers, LetterSummary
from notifier.operators.letters.unknown_client import end_if_unknown
from notifier.operators.letters.visits import found_in
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.declared_options import takes
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.near_names import near_names, say_near_names
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.progress import progress_of
from notifier.operators.terminal.queue_access import opened_queue, queue_part
from notifier.operators.terminal.screen import ago, screen
from notifier.settings.service_settings import QueueSettings

_KNOWN = "it is registered now: notifier dead-letters replay"
MOMENTS = ("_at", "_since", "not_after")  # ends of the names of members

app = typer.Typer()


@command_group(app)
def _group() -> None:
    """List, show, export, replay or discard deliveries that were given up and messages that could not be read.

    Examples:
        # which clients do not get their logouts, and why
        notifier dead-letters list -c n.yaml
        # once the cause is mended
        notifier dead-letters replay -c n.yaml --client-id shop
    """


@command(app)
@takes(LetterMembers, without={"id"})
def list_(
    context: typer.Context,
    *,
    config: Config = None,
    asked: LetterMembers,
    rows: Annotated[bool, typer.Option("--rows", help="List each letter, oldest first, instead of counts.")] = False,
    as_json: Json = False,
) -> None:
    """Count dead letters by client and reason, or list them.

    --json prints one object per line and letter: id, event_id, client_id, iss, reason, dead_since, attempts, text, and
    source if it came from one. No form shows sub or sid. The command removes nothing and keeps the order. The exit
    status is 1 if nobody knows the client.

    Examples:
        # counts by client and reason
        notifier dead-letters list -c n.yaml
        # did this user's logout die?
        notifier dead-letters list -c n.yaml --subject alice --rows
        # those of the last hour, for a script
        notifier dead-letters list --since 1h --json | jq .client_id
    """
    chosen = letters_of(asked)
    settings = queue_part(config).settings.queue
    counts, console = GroupCounts(), screen()

    def see(summary: LetterSummary, _message: Message) -> None:
        counts.add(summary)
        if as_json:
            say_json(summary.document())
        elif rows:
            console.say_row(*_parts(summary))

    _look_now(settings, chosen, see, whole=False, rows=rows or as_json)
    if not (rows or as_json):
        _print_groups(counts.groups(), config, context.obj)
    if not as_json:
        say(counted(counts.total, "dead letter"))
    if not counts.total:
        end_if_unknown(config, context.obj, chosen.client_id, chosen.iss)


@command(app)
def show(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The letter's ID, as list --rows prints it.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it was given up, what each attempt met, and what a replay would do.

    The output holds sub and sid. The exit status is 1 if there is no such letter.

    Examples:
        # one letter whole
        notifier dead-letters show -c n.yaml 6f1c…
    """
    documents: list[dict[str, object]] = []
    settings = queue_part(config).settings.queue

    def see(summary: LetterSummary, message: Message) -> None:
        additions: dict[str, object] = {} if as_json else {"replay": prospect(message, config, context.obj)}
        if not as_json and summary.reason in NOBODY_KNOWS:
            additions["hint"] = near_names(config, context.obj, known=_KNOWN)(summary.iss, summary.client_id)
        documents.append(exported(message) | {name: value for name, value in additions.items() if value})

    _look_now(settings, LetterFilter(ids=frozenset({id_})), see, first=True)
    if not documents:
        say(f"notifier: there is no dead letter {id_}; `notifier dead-letters list --rows` shows them", err=True)
        raise typer.Exit(1)
    if as_json:
        say_json(documents[0])
    else:
        say(_in_words(documents[0]))


@command(app)
@takes(LetterMembers, without={"id"})
def export(
    file: Annotated[
        Path, typer.Argument(allow_dash=True, help="The file to write, readable by its owner only; - is stdout.")
    ] = Path("-"),
    *,
    config: Config = None,
    asked: LetterMembers,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write whole dead letters to a file, one JSON object per line.

    The letters stay in the queue. The file holds sub and sid, and the bodies that could not be read. A file that exists
    is refused: it may hold letters that were discarded since. --force replaces it after everything is written; if the
    export fails, it is left unchanged.

    Examples:
        # before they are discarded
        notifier dead-letters export -c n.yaml --reason malformed_event bad.jsonl
        # the body of one
        notifier dead-letters export -c n.yaml | jq -r 'select(.id == "6f1c…").raw.body'
    """
    chosen = letters_of(asked)
    if file.is_file() and not force:
        raise typer.BadParameter(f"{file} exists; --force replaces it", param_hint="FILE")
    settings = queue_part(config).settings.queue
    count = 0
    with written_anew(file) as out:

        def see(_summary: LetterSummary, message: Message) -> None:
            nonlocal count
            count += 1
            out.write(json_text(exported(message)) + "\n")

        _look_now(settings, chosen, see)
    say(f"{counted(count, 'dead letter')} exported", err=True)


def _look_now(
    settings: QueueSettings,
    chosen: LetterFilter,
    see: Callable[[LetterSummary, Message], None],
    *,
    first: bool = False,
    whole: bool = True,
    rows: bool = False,
) -> None:
    """Call `see` with each letter that matches, or with the first only."""

    async def look() -> None:
        with progress_of("looked at", rows=rows) as progress:
            async with (
                opened_queue(settings, opening=False) as queue,
                aclosing(found_in(queue.dead_letters(), chosen, progress, whole=whole)) as letters,
            ):
                async for summary, message in letters:
                    see(summary, message)
                    if first:
                        return

    uvloop.run(look())


def _parts(letter: LetterSummary) -> list[str]:
    parts = [letter.id, shown_moment(letter.dead_since), f"{letter.reason:<21}", letter.client_id or "–"]
    parts += [f"event {letter.event_id or '–'}", f"attempts {letter.attempts}"]
    if letter.iss:
        parts.append(f"issuer {letter.iss}")
    if letter.source is not None:
        parts.append(f"source {letter.source}")
    return list(map(printable, parts))


def _print_groups(groups: list[Group], config: Path | None, features: Sequence[ConfiguredFeature]) -> None:
    if not groups:
        return
    table, now = Grid("client", "reason", "count:", "oldest:", "newest:"), time.time()
    for group in groups:
        ages = (ago(moment, now) for moment in (group.oldest, group.newest))
        table.add_row(
            printable(group.client_id) or "–", group.reason, f"{group.count:,}", *ages, of=printable(group.iss)
        )
    screen(width=200).print(table)
    say_near_names(config, features, [(group.reason, group.iss, group.client_id) for group in groups], known=_KNOWN)


def _in_words(document: dict[str, Any]) -> str:
    document.pop("v", None)
    outcomes = document.pop("outcomes", [])
    document.get("delivery", {}).pop("history", None)  # the outcomes are it
    lines = [_member(name, value) for name, value in document.items() if not isinstance(value, (dict, list))]
    for outcome in outcomes:
        status = "" if outcome["status"] is None else f" {outcome['status']}"
        met = f"{_when(outcome['at'])}  {outcome['reason']}{status}  {outcome['text']}"
        lines.append(_member("met", met.rstrip()))
    for name, value in document.items():
        if isinstance(value, dict):
            lines += [name, *(f"  {_member(member, inner)}" for member, inner in value.items())]
        elif isinstance(value, list):
            lines.append(_member(name, value))
    return "\n".join(lines)


def _member(name: str, value: object) -> str:
    shown = _when(value) if name.endswith(MOMENTS) else value if isinstance(value, str) else json_text(value)
    return printable(f"{name:<12} {shown}")


def _when(value: object) -> str:
    """A moment as people read it, whether it is seconds since the epoch or RFC 3339."""
    try:
        return shown_moment(value if isinstance(value, (int, float)) else read_moment(str(value)))
    except ValueError:
        return str(value)


command(app)(replay)
command(app)(discard)

"""List, show and delete dead letters or pending deliveries, for commands.

A deletion asks for confirmation, writes an audit line, and prints the result.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import typer
import uvloop

from notifier.configuration.configured_feature import ConfiguredFeature
from notifier.model.frozen import frozen
from notifier.model.message import Message
from notifier.model.printable import counted, printable
from notifier.operators.deliveries.groups import Group, GroupCounts, Summary
from notifier.operators.deliveries.readmission import KeepReason
from notifier.operators.deliveries.repair import RepairAudit, remove
from notifier.operators.deliveries.unknown_client import end_if_unknown
from notifier.operators.deliveries.visits import MAX_CLIENTS, Filter, RepairResult, found_in
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.near_names import say_near_names
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import opened_queue, queue_part, run_on_queue
from notifier.operators.terminal.screen import progress_of, screen
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import operating_user, write_audit

S = TypeVar("S", bound=Summary)


@frozen
class MessageTable(Generic[S]):
    """How commands print messages: `row` for a message, `cells` for a group below the `heads`. `known`: see near_names.

    `does` is e.g. Discard, `did` discarded, `what` dead letter. Without `opening` the queue need not be open for reads.
    """

    messages: Callable[[Queue], Any]
    row: Callable[[S], Sequence[str]]
    heads: Sequence[str]
    cells: Callable[[Group, float], Sequence[str]]
    total: Callable[[int], str]
    known: str
    does: str
    did: str
    what: str
    missing: Callable[[str], str]
    opening: bool


@frozen
class RepairReport:
    """The results of the repaired messages, as a document for scripts and as lines of text."""

    document: Mapping[str, object]
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The path of the configuration, and the available features."""

    config: Path | None
    features: Sequence[ConfiguredFeature]


def list_messages(
    table: MessageTable[S], context: CommandContext, chosen: Filter[Any, S], *, rows: bool, as_json: bool,
    skip: int = 0, limit: int | None = None,
) -> None:  # fmt: skip
    """Print the counts of the chosen messages by group, or each message. Exit with 1 if the client is unknown."""
    counts, console = GroupCounts(), screen()

    def see(summary: S, _message: Message) -> None:
        counts.add(summary)
        if counts.total <= skip or (limit is not None and counts.total > skip + limit):
            return
        if as_json:
            say_json(summary.document())
        elif rows:
            console.say_row(*map(printable, table.row(summary)))

    look(table, context, chosen, see, rows=rows or as_json)
    if (groups := counts.groups()) and not (rows or as_json):
        grid, now = Grid(*table.heads), time.time()
        for group in groups:
            grid.add_row(*table.cells(group, now), of=printable(group.iss))
        screen(width=200).print(grid)
        listed = [(group.reason, group.iss, group.client_id) for group in groups]
        say_near_names(context.config, context.features, listed, known=table.known)
    if not as_json:
        say(table.total(counts.total))
    if not counts.total:
        end_if_unknown(context.config, context.features, chosen.client_id, chosen.iss)


def look(
    table: MessageTable[S], context: CommandContext, chosen: Filter[Any, S], see: Callable[[S, Message], None], *,
    whole: bool = False, rows: bool = False, first: bool = False,
) -> None:  # fmt: skip
    """Call `see` with each chosen message, or only with the first."""
    settings = queue_part(context.config).settings.queue

    async def go_through() -> None:
        with progress_of("looked at", rows=rows) as progress:
            async with (
                opened_queue(settings, opening=table.opening) as queue,
                aclosing(found_in(table.messages(queue), chosen, progress, whole=whole)) as messages,
            ):
                async for summary, message in messages:
                    see(summary, message)
                    if first:
                        return

    uvloop.run(go_through())


def require_choice(chosen: Filter[Any, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a command that selects no messages and lacks `--all`. Raises BadParameter."""
    if not (chosen.narrows or asked.get("all")):
        raise typer.BadParameter("give an ID, an option such as --client-id, or --all", param_hint="ID")


def remove_chosen(
    table: MessageTable[S],
    context: CommandContext,
    chosen: Filter[Any, S],
    asked: Mapping[str, Any],
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the chosen messages after a confirmation. Ends the command."""
    require_choice(chosen, asked)
    settings = queue_part(context.config, log_from="warning").settings.queue
    report, dry_run, limit = _report(), "dry_run" in asked, asked.get("limit")

    def run(*, dry_run: bool, what: str) -> RepairResult:
        async def act(queue: Queue, options: RepairOptions) -> RepairResult:
            return await remove(table.messages(queue), chosen, options, (lambda _: None) if dry_run else report)

        opening = table.opening or not dry_run
        return run_on_queue(settings, act, what=what, opening=opening, limit=limit, dry_run=dry_run)

    if not (yes or dry_run):
        if not sys.stdin.isatty():
            raise typer.BadParameter("stdin is not a terminal: give --yes", param_hint="--yes")
        prospect = run(dry_run=True, what="counted")
        _say_reasons(prospect, err=True)
        _say_clients(prospect, err=True)
        if prospect.done:
            _say_missing(table, prospect)
        question = f"{table.does} {counted(prospect.done, table.what)} permanently?"
        if not prospect.done or not typer.confirm(question, err=True):
            say(f"nothing was {table.did}", err=True)
            if not prospect.done:
                _end_if_missing(table, context, chosen, prospect)
            raise typer.Exit(1 if prospect.done else 0)
    result = run(dry_run=dry_run, what=table.did)
    conclude(table, table.did, context, chosen, result, dry_run=dry_run, as_json=as_json)


def conclude(
    table: MessageTable[S],
    did: str,
    context: CommandContext,
    chosen: Filter[Any, S],
    result: RepairResult,
    *,
    dry_run: bool,
    as_json: bool,
    told: RepairReport | None = None,
    **more: object,
) -> None:
    """Write the audit line (with `more`) and print the result; `told` has later results. Ends the command.

    Exits with 1 if a given ID or the client is unknown, so that a typing error does not look like a repair.
    """
    if not dry_run:
        RepairAudit(write_audit).repaired(did, operating_user(), chosen, result, **more)
    if as_json:
        became = {} if told is None else {"became": told.document}
        say_json({did: result.done, "dry_run": dry_run, **result.document(), **became})
    else:
        say(f"{result.done:,} {'would be ' if dry_run else ''}{did}")
        _say_reasons(result)
        if dry_run:
            _say_clients(result)
        for why, count in result.kept.items():
            say(f"{count:,} stay{'' if count != 1 else 's'}: {KeepReason(why).explanation}")
        for line in () if told is None else told.lines:
            say(line)
    if result.unfinished is not None:
        say(f"notifier: {result.unfinished}", err=True)
    _end_if_missing(table, context, chosen, result)
    raise typer.Exit(1 if result.ended_early else 0)


def _end_if_missing(
    table: MessageTable[S], context: CommandContext, chosen: Filter[Any, S], result: RepairResult
) -> None:
    """Exit with 1 if a given ID is unknown, or if nothing was selected and the client is unknown."""
    _say_missing(table, result)
    if result.missing:
        raise typer.Exit(1)
    if not (chosen.ids or result.done or result.kept or result.unfinished):
        end_if_unknown(context.config, context.features, chosen.client_id, chosen.iss)


def _say_missing(table: MessageTable[Any], result: RepairResult) -> None:
    if result.missing:
        say(f"notifier: {table.missing(', '.join(sorted(result.missing)))}", err=True)


def _say_reasons(result: RepairResult, *, err: bool = False) -> None:
    for reason, count in result.by_reason.items():
        say(f"  {reason or 'no attempt'}: {count:,}", err=err)


def _say_clients(result: RepairResult, *, err: bool = False) -> None:
    """Print the number of messages by client, the largest first."""
    several = len({iss for iss, _ in result.by_client}) > 1
    for (iss, client_id), count in islice(result.by_client.items(), MAX_CLIENTS):
        whose = f"client {client_id}" if client_id else "whole events"
        say(printable(f"  {whose}{f' ({iss})' if several or not client_id else ''}: {count:,}"), err=err, fold=False)
    if (more := len(result.by_client) - MAX_CLIENTS) > 0:
        rest = sum(result.by_client.values()) - sum(islice(result.by_client.values(), MAX_CLIENTS))
        say(f"  {counted(more, 'more client')}: {rest:,}", err=err)


def _report() -> Callable[[Summary], None]:
    """Return the function that logs each deleted message."""
    who, audit = operating_user(), RepairAudit(write_audit)
    if os.environ.get("NOTIFIER_LOG__LEVEL") not in ("debug", "info"):  # on a terminal, 100,000 lines hide the last
        return lambda _: None
    return lambda summary: audit.removed(who, summary)

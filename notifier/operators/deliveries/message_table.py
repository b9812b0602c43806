"""Lists, shows and deletes dead letters or pending deliveries, for commands.

Before a deletion, the operator confirms it. Then the workers log it and the result is printed.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import typer
import uvloop

from notifier.configuration.configured_feature import ConfiguredFeature
from notifier.model.message import Message
from notifier.model.printable import counted, printable
from notifier.model.record import record
from notifier.operators.deliveries.groups import Group, GroupCounts, Summary
from notifier.operators.deliveries.job_documents import name_holder
from notifier.operators.deliveries.readmission import KeepReason
from notifier.operators.deliveries.repair import RepairAudit, remove
from notifier.operators.deliveries.repair_pass import READ_OPTIONS, Filter, find_messages
from notifier.operators.deliveries.repair_result import MAX_CLIENTS, RepairResult
from notifier.operators.deliveries.replay_now import ReplayResult
from notifier.operators.status.claimed_actions import CommandAudit
from notifier.operators.terminal.known_registry import end_if_unknown
from notifier.operators.terminal.output import make_progress, say, say_json
from notifier.operators.terminal.queue_access import load_queue_part, open_queue, run_on_queue
from notifier.operators.terminal.screen import Grid, make_screen
from notifier.queues.passes import RepairOptions, no_progress
from notifier.queues.queue_port import NameHolder, Queue
from notifier.settings.queue_settings import QueueSettings
from notifier.telemetry.audit import operating_user, write_audit

S = TypeVar("S", bound=Summary)


@record
class MessageTable(Generic[S]):
    """How commands read and print dead letters or pending deliveries.

    `format_row` formats a message. `format_cells` formats a group at a time in epoch seconds, for a table with the
    columns `heads`. `verb` is e.g. Discard, `past_verb` discarded, `noun` dead letter. `opens_queue` is False if reads
    need no open queue. `job_kinds` are the kinds of jobs that hold the messages.
    """

    messages_of: Callable[[Queue, NameHolder], Any]
    job_kinds: frozenset[str]
    format_row: Callable[[S], Sequence[str]]
    heads: Sequence[str]
    format_cells: Callable[[Group, float], Sequence[str]]
    format_total: Callable[[int], str]
    verb: str
    past_verb: str
    noun: str
    format_missing: Callable[[str], str]
    opens_queue: bool

    def open_messages(self, queue: Queue) -> Any:
        """Return the messages of the queue. A pass that waits for some seconds reports on stderr for whom."""

        def report(holder: str) -> None:
            say(f"waiting: {holder} holds the messages", err=True)

        return self.messages_of(queue, partial(name_holder, queue, operating_user(), self.job_kinds, report))


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The path of the configuration file, and the available features."""

    config: Path | None
    features: Sequence[ConfiguredFeature]


def list_messages(
    table: MessageTable[S], context: CommandContext, filter_: Filter[Any, S], *, rows: bool, as_json: bool,
    skip: int = 0, limit: int | None = None,
) -> None:  # fmt: skip
    """Print the selected messages: their counts by group or, with `rows` or `as_json`, each message.

    Only `limit` messages after the first `skip` are printed. Exit with 1 if none is selected and the client is unknown.
    """
    counts = GroupCounts()

    def on_message(summary: S, _message: Message) -> None:
        counts.add(summary)
        if counts.total <= skip or (limit is not None and counts.total > skip + limit):
            return
        if as_json:
            say_json(summary.document())
        elif rows:
            say("  ".join(map(printable, table.format_row(summary))))

    read_messages(table, context, filter_, on_message, rows=rows or as_json)
    if counts.total and not (rows or as_json):
        grid, now = Grid(*table.heads), time.time()
        for group in counts.groups():
            grid.add_row(*table.format_cells(group, now), issuer=printable(group.iss))
        make_screen().print(grid)
    if not as_json:
        say(table.format_total(counts.total))
    if not counts.total:
        end_if_unknown(context.config, context.features, filter_.client_id, filter_.iss)


def read_messages(
    table: MessageTable[S], context: CommandContext, filter_: Filter[Any, S], on_message: Callable[[S, Message], None],
    *, whole: bool = False, rows: bool = False, first: bool = False,
) -> None:  # fmt: skip
    """Call `on_message` with each selected message, or only with the first. Messages have bodies only if `whole`.

    Progress is shown unless `rows`, since then the caller prints each message.
    """
    settings = load_queue_part(context.config).settings.queue
    audit = RepairAudit(CommandAudit(settings, needed=False).write)
    if whole:
        audit.log_read("shown" if first else "exported", operating_user(), filter_)
    else:
        audit.log_search(operating_user(), filter_)

    async def read() -> None:
        options = replace(READ_OPTIONS, progress=no_progress if rows else make_progress("read"))
        async with (
            open_queue(settings, opening=table.opens_queue) as queue,
            aclosing(find_messages(table.open_messages(queue), filter_, options, whole=whole)) as messages,
        ):
            async for summary, message in messages:
                on_message(summary, message)
                if first:
                    return

    uvloop.run(read())


def require_condition(filter_: Filter[Any, Any], members: Mapping[str, Any]) -> None:
    """Raise BadParameter if the command has neither a condition nor `--all`."""
    if not (filter_.has_conditions or members.get("all")):
        raise typer.BadParameter("give an ID, an option such as --client-id, or --all", param_hint="ID")


def remove_messages(
    table: MessageTable[S],
    context: CommandContext,
    filter_: Filter[Any, S],
    members: Mapping[str, Any],
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the selected messages, or count them if `members` has `dry_run`. Ends the command.

    Before a deletion, unless `yes`, count the messages and ask the operator.
    """
    require_condition(filter_, members)
    settings = load_queue_part(context.config, log_from="warning").settings.queue
    report, dry_run, limit = _get_removal_logger(), "dry_run" in members, members.get("limit")

    def run(*, dry_run: bool, progress_text: str) -> RepairResult:
        async def act(queue: Queue, options: RepairOptions) -> RepairResult:
            return await remove(table.open_messages(queue), filter_, options, report)

        opening = table.opens_queue or not dry_run
        return run_on_queue(settings, act, progress_text=progress_text, opening=opening, limit=limit, dry_run=dry_run)

    if not (yes or dry_run):
        if not sys.stdin.isatty():
            raise typer.BadParameter("stdin is not a terminal: give --yes", param_hint="--yes")
        preview = run(dry_run=True, progress_text="counted")
        _say_reasons(preview, err=True)
        _say_clients(preview, err=True)
        if not preview.done:
            say(f"nothing was {table.past_verb}", err=True)
            _end_if_missing(table, context, filter_, preview)
            raise typer.Exit
        _say_missing(table, preview)
        if not typer.confirm(f"{table.verb} {counted(preview.done, table.noun)} permanently?", err=True):
            say(f"nothing was {table.past_verb}", err=True)
            raise typer.Exit(1)
    result = run(dry_run=dry_run, progress_text=table.past_verb)
    if not dry_run:
        log_repair(table.past_verb, settings, filter_, result)
    finish_repair(table, table.past_verb, context, filter_, result, dry_run=dry_run, as_json=as_json)


def log_repair(
    past_verb: str, settings: QueueSettings, filter_: Filter[Any, Any], result: RepairResult, **details: bool
) -> None:
    """Have the workers log the repair with `details`."""
    RepairAudit(CommandAudit(settings).write).log_repair(past_verb, operating_user(), filter_, result, **details)


def finish_repair(
    table: MessageTable[S],
    past_verb: str,
    context: CommandContext,
    filter_: Filter[Any, S],
    result: RepairResult,
    *,
    dry_run: bool,
    as_json: bool,
    replay_result: ReplayResult | None = None,
) -> None:
    """Print the result of a repair, then `replay_result`. Ends the command.

    The exit status is 1 if the repair ended early, if selected messages stay, if replayed ones were given up again, or
    if their results are unknown since somebody changed the dead letters meanwhile. It is also 1 if a given ID or the
    client is unknown, so that a typing error does not look like a repair.
    """
    if as_json:
        became = {} if replay_result is None else {"became": replay_result.document()}
        say_json({past_verb: result.done, "dry_run": dry_run, **result.document(), **became})
    else:
        say(f"{result.done:,} {'would be ' if dry_run else ''}{past_verb}")
        _say_reasons(result)
        if dry_run:
            _say_clients(result)
        for reason, count in result.kept.items():
            say(f"{count:,} stay{'s' if count == 1 else ''}: {KeepReason(reason).explanation}")
        if replay_result is not None:
            for line in replay_result.format_lines():
                say(line)
    if result.unfinished is not None:
        say(f"notifier: {result.unfinished}", err=True)
    _end_if_missing(table, context, filter_, result)
    fails = replay_result is not None and (
        replay_result.account.results.dead.total() or replay_result.changed_by_others
    )
    raise typer.Exit(1 if result.ended_early or result.kept or fails else 0)


def _end_if_missing(
    table: MessageTable[S], context: CommandContext, filter_: Filter[Any, S], result: RepairResult
) -> None:
    """Exit with 1 if a given ID is unknown, or if no message was selected and the client is unknown."""
    _say_missing(table, result)
    if result.missing:
        raise typer.Exit(1)
    if not (filter_.ids or result.done or result.kept or result.unfinished):
        end_if_unknown(context.config, context.features, filter_.client_id, filter_.iss)


def _say_missing(table: MessageTable[Any], result: RepairResult) -> None:
    if result.missing:
        say(f"notifier: {table.format_missing(', '.join(sorted(result.missing)))}", err=True)


def _say_reasons(result: RepairResult, *, err: bool = False) -> None:
    for reason, count in result.by_reason.items():
        say(f"  {reason or 'no attempt'}: {count:,}", err=err)


def _say_clients(result: RepairResult, *, err: bool = False) -> None:
    """Print the number of messages of the first MAX_CLIENTS clients, and of all others together."""
    has_several_issuers = len({iss for iss, _ in result.by_client}) > 1
    for (iss, client_id), count in islice(result.by_client.items(), MAX_CLIENTS):
        name = f"client {client_id}" if client_id else "whole events"
        if has_several_issuers or not client_id:
            name += f" ({iss})"
        say(printable(f"  {name}: {count:,}"), err=err)
    other_clients = len(result.by_client) - MAX_CLIENTS
    if other_clients > 0:
        other_count = sum(islice(result.by_client.values(), MAX_CLIENTS, None))
        say(f"  {counted(other_clients, 'more client')}: {other_count:,}", err=err)


def _get_removal_logger() -> Callable[[Summary], None]:
    """Return a function that logs each deleted message, if the operator has asked for a log of level debug or info.

    By default it does nothing: on a terminal, a line per message would hide the result.
    """
    who, audit = operating_user(), RepairAudit(write_audit)
    if os.environ.get("NOTIFIER_LOG__LEVEL") not in ("debug", "info"):
        return lambda _: None
    return lambda summary: audit.log_removal(who, summary)

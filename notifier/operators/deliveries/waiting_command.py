"""The commands `notifier waiting list`, `show` and `cancel`: pending deliveries."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from notifier.configuration.configured_feature import ConfiguredFeature
from notifier.model.durations import format_in_words
from notifier.model.printable import counted, printable
from notifier.operators.deliveries.dead_letters_access import filter_or_usage_error
from notifier.operators.deliveries.groups import Group
from notifier.operators.deliveries.job_documents import WAITING_JOBS
from notifier.operators.deliveries.message_table import (
    CommandContext,
    MessageTable,
    list_messages,
    read_messages,
    remove_messages,
)
from notifier.operators.deliveries.waiting_filter import (
    CancelMembers,
    WaitingFilter,
    WaitingMembers,
    WaitingSummary,
    read_waiting_filter,
)
from notifier.operators.status.lifetime import GetLifetime, lifetime_of
from notifier.operators.terminal.command_options import Config, Json, takes
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.known_registry import load_known_registry
from notifier.operators.terminal.output import format_age, say, say_json

app = typer.Typer()


@command_group(app)
def _group() -> None:
    """List, show or cancel deliveries that wait for their next attempt.

    Examples:
        # for which clients deliveries wait, and why
        notifier waiting list -c n.yaml
        # try them now
        notifier retry -c n.yaml --client-id shop
    """


def _format_row(summary: WaitingSummary) -> Sequence[str]:
    """Return the parts of a line of `list --rows`."""
    document = summary.document()
    status = "" if summary.status is None or summary.reason != summary.failure else str(summary.status)
    reason = " ".join(filter(None, (summary.reason, status))) or "-"
    sid = {None: "", True: "  has sid", False: "  no sid"}[summary.has_sid]
    return (
        summary.id, f"due {document['due'] or '-'}", f"{summary.where:<7}", summary.client_id or "-", reason,
        f"event {summary.event_id or '-'}", f"attempts {summary.attempts}",
        f"expires {document['expires'] or '-'}{sid}",
    )  # fmt: skip


def _format_cells(group: Group, now: float) -> Sequence[str]:
    """Return the cells of a group in the table of `list`."""
    return (
        printable(group.client_id) or "–",
        group.reason or "–",
        group.where or "",
        f"{group.count:,}",
        f"{group.without_sid:,}" if group.without_sid else "",
        format_age(group.oldest, now),
        "" if group.next is None else f"in {format_in_words(group.next - now)}",
        "" if group.expires is None else f"in {format_in_words(group.expires - now)}",
    )


WAITING_TABLE = MessageTable(
    messages_of=lambda queue, namer: queue.waiting(namer),
    job_kinds=WAITING_JOBS, opens_queue=True, format_row=_format_row, format_cells=_format_cells,
    heads=("client", "reason", "where", "count:", "no sid:", "since:", "next:", "expires:"),
    format_total=lambda count: f"{counted(count, 'delivery')} wait{'s' if count == 1 else ''}",
    verb="Cancel", past_verb="cancelled",
    noun="delivery", format_missing=lambda ids: f"of {ids} none waits",
)  # fmt: skip


@command(app)
@takes(WaitingMembers, without={"id"})
def list_(
    context: typer.Context,
    *,
    config: Config = None,
    members: WaitingMembers,
    rows: Annotated[bool, typer.Option("--rows", help="List each delivery instead of counts.")] = False,
    skip: Annotated[int, typer.Option(min=0, help="Skip this many rows, to print a later page.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows.")] = None,
    as_json: Json = False,
) -> None:
    """Count the pending deliveries by client and reason, or list them.

    A delayed delivery is attempted when it is due. A parked delivery waits in a bucket until its client, whose circuit
    is open or which is paused, recovers. --reason is the cause of a deferral or the reason of the last failure.

    --json prints one object per line and delivery; with --rows or --json, --skip and --limit select a page. No output
    has sub or sid. With -c it also shows when each delivery is given up if its reason lasts until then (expires): at
    the end of registry.grace for an unknown client; later by delivery.max_paused for a paused client or an internal
    fault. And it shows whether the token has a sid: a token without sid is sent for a short time only. Listing changes
    nothing: due times, order and attempts stay. A delivery that a worker is processing is not in the list.

    On RabbitMQ the command reads all delay queues and buckets, and holds each meanwhile: a delivery that becomes due is
    attempted some seconds later. The exit status is 1 if the client is unknown.

    Examples:
        # counts by client and reason
        notifier waiting list -c n.yaml
        # the second hundred for one client
        notifier waiting list --client-id shop --rows --skip 100 --limit 100
        # for a script
        notifier waiting list -c n.yaml --json | jq -r .client_id | sort | uniq -c
    """
    filter_ = replace(
        filter_or_usage_error(read_waiting_filter(members, time.time())),
        get_lifetime=_make_lifetime_getter(config, context.obj),
    )
    command_context = CommandContext(config, context.obj)
    list_messages(WAITING_TABLE, command_context, filter_, rows=rows, as_json=as_json, skip=skip, limit=limit)


@command(app)
def show(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="As list --rows prints it.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one pending delivery: since when, why, the result of its last attempt, and when it is given up.

    The output has no sub and no sid. The exit status is 1 if the delivery is not pending.

    Examples:
        # one delivery
        notifier waiting show -c n.yaml 6f1c…
    """
    summaries: list[WaitingSummary] = []
    filter_ = WaitingFilter(ids=frozenset({id_}), get_lifetime=_make_lifetime_getter(config, context.obj))
    command_context = CommandContext(config, context.obj)
    read_messages(WAITING_TABLE, command_context, filter_, lambda summary, _: summaries.append(summary), first=True)
    if not summaries:
        say(f"notifier: no pending delivery {id_}; `notifier waiting list --rows` lists them", err=True)
        raise typer.Exit(1)
    say_json(summaries[0].document(), indent=None if as_json else 2)


@command(app)
@takes(CancelMembers)
def cancel(
    context: typer.Context,
    *,
    config: Config = None,
    members: CancelMembers,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete pending deliveries permanently: their clients are not notified of these logouts.

    Use it for a client that no longer exists. To stop calling a client for a while, use `notifier pause`.
    The command shows the number and asks for confirmation, unless --yes. A delivery that a worker is processing may
    still be sent. The workers log it with your name; with NOTIFIER_LOG__LEVEL=info, stderr names each delivery.

    Examples:
        # what would be deleted
        notifier waiting cancel -c n.yaml --client-id gone --dry-run
        # from a script
        notifier waiting cancel -c n.yaml --client-id gone --yes
    """
    filter_ = filter_or_usage_error(read_waiting_filter(members, time.time()))
    remove_messages(WAITING_TABLE, CommandContext(config, context.obj), filter_, members, yes=yes, as_json=as_json)


def _make_lifetime_getter(config: Path | None, features: Sequence[ConfiguredFeature]) -> GetLifetime | None:
    """Return a function that computes the lifetime of a delivery; None without a readable configuration.

    The function uses the registry of the configuration's files and caches.
    """
    known = load_known_registry(config, features)
    if known is None:
        return None
    return lambda pending: lifetime_of(pending, known.registry)

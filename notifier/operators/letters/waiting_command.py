"""The commands `notifier waiting list`, `show` and `cancel`: the deliveries that wait for their next attempt."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from notifier.configuration.configured_feature import ConfiguredFeature
from notifier.delivery.life import LifeOf, life_of
from notifier.model.durations import in_words
from notifier.model.nearest import NOBODY_KNOWS
from notifier.model.printable import counted, printable
from notifier.operators.letters.dead_letters_access import accepted
from notifier.operators.letters.groups import GroupCounts
from notifier.operators.letters.removal import Removal, remove_chosen
from notifier.operators.letters.unknown_client import end_if_unknown
from notifier.operators.letters.visits import found_in
from notifier.operators.letters.waiting_filter import (
    CancelMembers,
    WaitingFilter,
    WaitingMembers,
    WaitingSummary,
    read_waiting_filter,
)
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.declared_options import takes
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.near_names import known_registry, near_names, say_near_names
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import queue_part, run_on_queue
from notifier.operators.terminal.screen import ago, screen
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

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


_Rows = Annotated[bool, typer.Option("--rows", help="List each delivery instead of counts.")]
_Skip = Annotated[int, typer.Option("--skip", min=0, help="Leave out so many of the rows: for the next page.")]
_KNOWN = "it is registered now, and tried when it is due"


_CANCEL = Removal(
    messages=lambda queue: queue.waiting(), does="Cancel", did="cancelled", what="delivery",
    missing=lambda ids: f"of {ids} none waits", opening=True,
)  # fmt: skip


@command(app)
@takes(WaitingMembers, without={"id"})
def list_(
    context: typer.Context,
    *,
    config: Config = None,
    asked: WaitingMembers,
    rows: _Rows = False,
    skip: _Skip = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None,
    as_json: Json = False,
) -> None:
    """Count the deliveries that wait by client and reason, or list them.

    --json prints one object per line and delivery; with --rows or --json, --skip and --limit give one page of them. No
    form shows sub or sid. With -c it also says when each is given up (expires), and whether its token has a sid: one
    without is sent for a short time only. Looking uses nothing up: each keeps its due time, its place and its attempts.
    A delivery that a worker has in hand at the moment is not in the list.

    On RabbitMQ the command goes through all delay queues, and holds each for that time: what comes due meanwhile is
    attempted some seconds later. The exit status is 1 if nobody knows the client.

    Examples:
        # counts by client and reason
        notifier waiting list -c n.yaml
        # the second hundred for one client
        notifier waiting list --client-id shop --rows --skip 100 --limit 100
        # for a script
        notifier waiting list -c n.yaml --json | jq -r .client_id | sort | uniq -c
    """
    chosen = replace(accepted(read_waiting_filter(asked, time.time())), life=_life_by(config, context.obj))
    counts = GroupCounts()

    def see(summary: WaitingSummary) -> None:
        counts.add(summary)
        if not (rows or as_json) or counts.total <= skip or (limit is not None and counts.total > skip + limit):
            return
        if as_json:
            say_json(summary.document())
        else:
            say(_line(summary))

    _look(config, chosen, see, rows=rows or as_json)
    if not (rows or as_json):
        _print_groups(counts, config, context.obj)
    if not as_json:
        say(f"{counted(counts.total, 'delivery')} wait{'s' if counts.total == 1 else ''}")
    if not counts.total:
        end_if_unknown(config, context.obj, chosen.client_id, chosen.iss)


@command(app)
def show(
    context: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="As list --rows prints it.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one delivery that waits: since when, why, what its last attempt met, and when it is given up.

    It shows no sub and no sid. The exit status is 1 if it does not wait: it was delivered, or a worker has it in hand.

    Examples:
        # one delivery
        notifier waiting show -c n.yaml 6f1c…
    """
    summaries: list[WaitingSummary] = []
    _look(config, WaitingFilter(ids=frozenset({id_}), life=_life_by(config, context.obj)), summaries.append, first=True)
    if not summaries:
        say(f"notifier: no delivery {id_} waits; `notifier waiting list --rows` shows those that do", err=True)
        raise typer.Exit(1)
    document = summaries[0].document()
    if as_json:
        say_json(document)
        return
    if summaries[0].reason in NOBODY_KNOWS:
        document["hint"] = near_names(config, context.obj, known=_KNOWN)(summaries[0].iss, summaries[0].client_id)
    for name, value in document.items():
        if name == "has_sid" and value is False:
            say(f"{name:<10} no: the token ends all sessions of its user, and so is sent for a short time only")
        elif value not in (None, "", False):
            say(printable(f"{name:<10} {'yes' if value is True else value}"))


@command(app)
@takes(CancelMembers)
def cancel(
    context: typer.Context,
    *,
    config: Config = None,
    asked: CancelMembers,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete deliveries that wait, for good: their clients are never told of these logouts.

    It is for a client that is gone for good. To stop calling a client for a while, set `paused: true` in the registry.
    The command shows the number and asks first; --yes does not ask. What a worker has in hand may still be
    delivered. stderr says who did what; NOTIFIER_LOG__LEVEL=info names each delivery.

    Examples:
        # what would go
        notifier waiting cancel -c n.yaml --client-id gone --dry-run
        # from a script
        notifier waiting cancel -c n.yaml --client-id gone --yes
    """
    chosen = accepted(read_waiting_filter(asked, time.time()))
    settings = queue_part(config, "warning").settings.queue
    unknown = partial(end_if_unknown, config, context.obj)
    remove_chosen(unknown, settings, _CANCEL, chosen, asked=asked, yes=yes, as_json=as_json)


def _life_by(config: Path | None, features: Sequence[ConfiguredFeature]) -> LifeOf | None:
    """What tells how long a delivery may live, by the files and caches of the configuration."""
    known = known_registry(config, features)
    return None if known is None else lambda delivery: life_of(delivery, known.registry)


def _look(config: Any, chosen: WaitingFilter, see: Any, *, rows: bool = False, first: bool = False) -> None:
    """Call `see` with each delivery that is meant, or with the first only."""

    async def act(queue: Queue, options: RepairOptions) -> None:
        def progress(done: int, total: int) -> None:
            options.progress(done, total)
            if options.stop():
                raise KeyboardInterrupt

        async with aclosing(found_in(queue.waiting(), chosen, progress)) as summaries:
            async for summary, _ in summaries:
                see(summary)
                if first:
                    return

    run_on_queue(queue_part(config).settings.queue, act, what="looked at", rows=rows)


def _line(summary: WaitingSummary) -> str:
    document = summary.document()
    reason = " ".join(filter(None, (summary.reason, "" if summary.status is None else str(summary.status)))) or "-"
    line = f"{summary.id}  due {document['due'] or '-'}  {summary.where:<7}  {summary.client_id or '-'}  {reason}"
    sid = {None: "", True: "  has sid", False: "  no sid"}[summary.has_sid]
    expires = f"  expires {document['expires'] or '-'}{sid}"
    return printable(f"{line}  event {summary.event_id or '-'}  attempts {summary.attempts}{expires}")


def _print_groups(counts: GroupCounts, config: Path | None, features: Sequence[ConfiguredFeature]) -> None:
    groups = counts.groups()
    if not groups:
        return
    table, now = Grid("client", "reason", "where", "count:", "no sid:", "since:", "next:", "expires:"), time.time()
    for group in groups:
        table.add_row(
            printable(group.client_id) or "–",
            group.reason or "–",
            group.where or "",
            f"{group.count:,}",
            f"{group.without_sid:,}" if group.without_sid else "",
            ago(group.oldest, now),
            "" if group.next is None else f"in {in_words(group.next - now)}",
            "" if group.expires is None else f"in {in_words(group.expires - now)}",
            of=printable(group.iss),
        )
    screen().print(table)
    say_near_names(config, features, [(group.reason, group.iss, group.client_id) for group in groups], known=_KNOWN)

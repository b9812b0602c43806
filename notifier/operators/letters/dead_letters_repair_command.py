"""The commands `notifier dead-letters replay` and `discard`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.model.printable import counted
from notifier.operators.letters.dead_letters_access import (
    ClientId,
    EventId,
    Ids,
    Iss,
    Reasons,
    Since,
    Source,
    Subject,
    Until,
    letters_of,
)
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import queue_part, run_on_queue

if TYPE_CHECKING:
    from notifier.model.message import Message
    from notifier.operators.letters.letter_filter import LetterFilter, LetterSummary
    from notifier.operators.letters.readmission import ReplayRules
    from notifier.operators.letters.visits import RepairResult
    from notifier.queues.passes import RepairOptions
    from notifier.queues.queue_port import Queue
    from notifier.settings.service_settings import QueueSettings

REPLAY_EXAMPLES = (
    ("what would happen", "notifier dead-letters replay -c n.yaml --client-id shop --dry-run"),
    ("a client that is well again, gently", "notifier dead-letters replay -c n.yaml --client-id shop --rate 50"),
    ("one", "notifier dead-letters replay -c n.yaml 6f1c…"),
    ("a client was registered at last", "notifier dead-letters replay -c n.yaml --reason unknown_client"),
)
DISCARD_EXAMPLES = (
    ("keep a copy, then", "notifier dead-letters discard -c n.yaml --client-id gone"),
    ("what nobody needs any more, from a script", "notifier dead-letters discard -c n.yaml --until 30d --yes"),
)

All = Annotated[bool, typer.Option("--all", help="Take every dead letter.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many, oldest first.", show_default=False)]


def rate_of(text: str) -> float:
    """Read a rate of an option."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate < float("inf"):
        raise typer.BadParameter(f"{text} is not a number of letters a second, such as 50 or 0.5")
    return rate


Rate = Annotated[
    float | None,
    typer.Option(
        parser=rate_of, metavar="NUMBER", help="At most this many a second. Default: no limit.", show_default=False
    ),
]


def replay(
    *,
    ids: Ids = None,
    config: Config = None,
    client_id: ClientId = None,
    reason: Reasons = None,
    iss: Iss = None,
    event_id: EventId = None,
    source: Source = None,
    subject: Subject = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be replayed; change nothing.")] = False,
    end_newer_sessions: Annotated[
        bool,
        typer.Option(
            "--end-newer-sessions",
            help="Also replay old letters that name no session: they end newer sessions of the user.",
        ),
    ] = False,
    rate: Rate = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Deliver dead letters again, each with a new token.

    Mend the cause first: `dead-letters list` counts the letters by client and reason, and `explain REASON` says what to
    do. Then try --dry-run, which shows what a replay would do. Choose letters by ID or by options; a letter must match
    all of them. --all takes every letter.

    A replayed letter is a new delivery: attempts, waits and ages begin again. It leaves the dead letters as soon as its
    delivery is durable. If it fails again, it comes back as a dead letter and waits for the next replay.

    Some letters stay, and the answer counts them by reason: not_after has passed; the event is still malformed; or its
    token names a user and no session, and it is older than sub_only_max_age. Such a token would end sessions that the
    user has begun since. If you want that, give --end-newer-sessions.

    Ctrl-C stops after the batch at hand, with exit status 1; the same command goes on with the rest. A replay that is
    killed may deliver one batch twice on RabbitMQ, which does no harm. stderr says who did what.
    """
    chosen = letters_of(
        id=ids, client_id=client_id, reason=reason, iss=iss, event_id=event_id, source=source, subject=subject,
        since=since, until=until,
    )  # fmt: skip
    _check_chosen(chosen, everything=everything)
    settings = queue_part(config, log_from="warning").settings.queue
    rules = _rules(config, settings, end_newer_sessions=end_newer_sessions)

    async def act(queue: Queue, options: RepairOptions) -> RepairResult:
        from notifier.operators.letters import dead_letter_repair

        return await dead_letter_repair.replay(queue.dead_letters(), chosen, rules, options)

    result = run_on_queue(settings, act, what="replayed", opening=not dry_run, rate=rate, limit=limit, dry_run=dry_run)
    _conclude("replayed", chosen, result, dry_run=dry_run, as_json=as_json, end_newer_sessions=end_newer_sessions)


def discard(
    *,
    ids: Ids = None,
    config: Config = None,
    client_id: ClientId = None,
    reason: Reasons = None,
    iss: Iss = None,
    event_id: EventId = None,
    source: Source = None,
    subject: Subject = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be discarded; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Delete dead letters for good: their clients are never told.

    It shows the number and asks first; --yes does not ask. `dead-letters export` keeps a copy. stderr says who did
    what; NOTIFIER_LOG__LEVEL=info names each letter.
    """
    chosen = letters_of(
        id=ids, client_id=client_id, reason=reason, iss=iss, event_id=event_id, source=source, subject=subject,
        since=since, until=until,
    )  # fmt: skip
    _check_chosen(chosen, everything=everything)
    settings = queue_part(config, log_from="warning").settings.queue
    if not (yes or dry_run):
        _ask(settings, chosen, limit)

    async def act(queue: Queue, options: RepairOptions) -> RepairResult:
        from notifier.operators.letters import dead_letter_repair

        return await dead_letter_repair.discard(queue.dead_letters(), chosen, options, _told())

    result = run_on_queue(settings, act, what="discarded", opening=not dry_run, limit=limit, dry_run=dry_run)
    _conclude("discarded", chosen, result, dry_run=dry_run, as_json=as_json)


def _told() -> Callable[[LetterSummary], None]:
    from notifier.operators.letters.dead_letter_audit import DeadLetterAudit
    from notifier.telemetry.audit import operating_user, write_audit

    who = operating_user()
    if os.environ.get("NOTIFIER_LOG__LEVEL") not in ("debug", "info"):  # on a terminal, 100,000 lines hide the last
        return lambda _summary: None
    audit = DeadLetterAudit(write_audit)
    return lambda summary: audit.discarded(who, summary)


def _check_chosen(chosen: LetterFilter, *, everything: bool) -> None:
    if not (chosen.narrows or everything):
        raise typer.BadParameter("say which: an ID, an option such as --client-id, or --all", param_hint="ID")


def _rules(config: Path | None, settings: QueueSettings, *, end_newer_sessions: bool) -> ReplayRules:
    from notifier.configuration.clients.answers import ReadNow
    from notifier.configuration.clients.clients_file import load_registry
    from notifier.model.errors import ConfigurationError
    from notifier.model.ids import new_id
    from notifier.operators.letters.readmission import SUB_ONLY_MAX_AGE, ReplayRules
    from notifier.settings.config_file import load_settings

    registry = None
    if config is not None:
        try:
            registry = load_registry(load_settings(config, os.environ), ReadNow())
        except ConfigurationError:
            text = f"a delivery without sid counts as too old after {SUB_ONLY_MAX_AGE:g} s"
            say(f"notifier: the registry of clients cannot be read; {text}", err=True)
    return ReplayRules(
        registry=registry, new_id=new_id, max_event=settings.max_event, end_newer_sessions=end_newer_sessions
    )


def prospect(message: Message, config: Path | None, settings: QueueSettings) -> str:
    """Say what a replay would do with this letter."""
    from notifier.model.documents.dead_letter import load_dead_letter
    from notifier.model.errors import UnknownVersion
    from notifier.operators.letters.readmission import KeptLetter, readmit

    try:
        found = readmit(load_dead_letter(message), _rules(config, settings, end_newer_sessions=False), time.time())
    except UnknownVersion as newer:
        return f"stays: {newer}"
    return f"stays: {found.text}" if isinstance(found, KeptLetter) else f"would go to {found.queue} anew"


def _ask(settings: QueueSettings, chosen: LetterFilter, limit: int | None) -> None:
    from notifier.operators.letters import dead_letter_repair

    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on; give --yes", param_hint="--yes")

    async def act(queue: Queue, options: RepairOptions) -> RepairResult:
        return await dead_letter_repair.discard(queue.dead_letters(), chosen, options)

    found = run_on_queue(settings, act, what="counted", opening=False, limit=limit, dry_run=True)
    for reason, count in found.by_reason.items():
        say(f"  {reason}: {count:,}", err=True)
    if not found.done or not typer.confirm(f"Discard {counted(found.done, 'dead letter')} for good?", err=True):
        say("nothing was discarded", err=True)
        raise typer.Exit(1 if found.done else 0)


def _conclude(
    action: str, chosen: LetterFilter, result: RepairResult, *, dry_run: bool, as_json: bool, **more: object
) -> None:
    from notifier.operators.letters.dead_letter_audit import DeadLetterAudit
    from notifier.operators.letters.readmission import KeepReason
    from notifier.telemetry.audit import operating_user, write_audit

    if not dry_run:
        DeadLetterAudit(write_audit).repaired(action, operating_user(), chosen, result, **more)
    if as_json:
        say_json({action: result.done, "dry_run": dry_run, **result.document()})
    else:
        would = "would be " if dry_run else ""
        say(f"{result.done:,} {would}{action}")
        for reason, count in result.by_reason.items():
            say(f"  {reason}: {count:,}")
        for why, count in result.kept.items():
            say(f"{count:,} stay{'' if count != 1 else 's'}: {KeepReason(why).explanation}")
    if result.unfinished is not None:
        say(f"notifier: {result.unfinished}", err=True)
    # A typing error in an ID must not look like a repair.
    missed = chosen.ids and not (result.done or result.kept or result.unfinished)
    if missed:
        ids = ", ".join(sorted(chosen.ids))
        say(f"notifier: there is no dead letter {ids}; `notifier dead-letters list --rows` shows them", err=True)
    raise typer.Exit(1 if result.ended_early or missed else 0)

"""Deletes dead letters, or what waits, for commands. It asks first, logs who did it, and shows the result."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import typer

from notifier.model.frozen import frozen
from notifier.model.printable import counted, printable
from notifier.operators.letters.groups import Summary
from notifier.operators.letters.readmission import KeepReason
from notifier.operators.letters.repair import remove
from notifier.operators.letters.repair_audit import RepairAudit
from notifier.operators.letters.visits import MAX_CLIENTS, Filter, RepairResult
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import run_on_queue
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.settings.service_settings import QueueSettings
from notifier.telemetry.audit import operating_user, write_audit

S = TypeVar("S", bound=Summary)


@frozen
class Removal:
    """Which messages are deleted, and in which words: `does` is Discard, `did` discarded, `what` dead letter.

    Without `opening` the queue need not be open to be looked at.
    """

    messages: Callable[[Queue], Any]
    does: str
    did: str
    what: str
    missing: Callable[[str], str]
    opening: bool


@frozen
class Told:
    """What became of messages after the repair, for scripts and in words."""

    document: Mapping[str, object]
    lines: Sequence[str]


EndIfUnknown: TypeAlias = Callable[[str | None, str | None], None]
"""Ends the command if nobody knows this client of this issuer."""


def require_choice(chosen: Filter[Any, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a command that does not choose messages."""
    if not (chosen.narrows or asked.get("all")):
        raise typer.BadParameter("say which: an ID, an option such as --client-id, or --all", param_hint="ID")


def remove_chosen(
    end_if_unknown: EndIfUnknown,
    settings: QueueSettings,
    removal: Removal,
    chosen: Filter[Any, S],
    *,
    asked: Mapping[str, Any],
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the chosen messages, once somebody has agreed. Ends the command."""
    require_choice(chosen, asked)
    report, dry_run, limit = _report(), "dry_run" in asked, asked.get("limit")

    def run(*, dry_run: bool, what: str) -> RepairResult:
        async def act(queue: Queue, options: RepairOptions) -> RepairResult:
            return await remove(removal.messages(queue), chosen, options, (lambda _: None) if dry_run else report)

        opening = removal.opening or not dry_run
        return run_on_queue(settings, act, what=what, opening=opening, limit=limit, dry_run=dry_run)

    if not (yes or dry_run):
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; give --yes", param_hint="--yes")
        prospect = run(dry_run=True, what="counted")
        _say_reasons(prospect, err=True)
        _say_clients(prospect, err=True)
        question = f"{removal.does} {counted(prospect.done, removal.what)} for good?"
        if not prospect.done or not typer.confirm(question, err=True):
            say(f"nothing was {removal.did}", err=True)
            if not prospect.done:
                _end_if_missing(end_if_unknown, chosen, removal.missing)
            raise typer.Exit(1 if prospect.done else 0)
    conclude(
        removal.did,
        end_if_unknown,
        chosen,
        run(dry_run=dry_run, what=removal.did),
        removal.missing,
        dry_run=dry_run,
        as_json=as_json,
    )


def conclude(
    did: str,
    end_if_unknown: EndIfUnknown,
    chosen: Any,
    result: RepairResult,
    missing: Callable[[str], str],
    *,
    dry_run: bool,
    as_json: bool,
    told: Told | None = None,
    **more: object,
) -> None:
    """Log who did it (`more` as well), and say what came of it; `told` is what became of the rest. Ends the command.

    `missing` says that none of the given IDs was there: a typing error must not look like a repair, nor one in the
    client's name.
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
    nothing = not (result.done or result.kept or result.unfinished)
    if nothing:
        _end_if_missing(end_if_unknown, chosen, missing)
    raise typer.Exit(1 if result.ended_early else 0)


def _end_if_missing(end_if_unknown: EndIfUnknown, chosen: Any, missing: Callable[[str], str]) -> None:
    """Exit with 1 if none of the given IDs exists, or if the client is unknown."""
    if chosen.ids:
        say(f"notifier: {missing(', '.join(sorted(chosen.ids)))}", err=True)
        raise typer.Exit(1)
    end_if_unknown(chosen.client_id, chosen.iss)


def _say_reasons(result: RepairResult, *, err: bool = False) -> None:
    for reason, count in result.by_reason.items():
        say(f"  {reason or 'no attempt'}: {count:,}", err=err)


def _say_clients(result: RepairResult, *, err: bool = False) -> None:
    """Show of which clients the messages are, those with most first."""
    several = len({iss for iss, _ in result.by_client}) > 1
    for (iss, client_id), count in islice(result.by_client.items(), MAX_CLIENTS):
        whose = f"client {client_id}" if client_id else "whole events"
        say(printable(f"  {whose}{f' ({iss})' if several or not client_id else ''}: {count:,}"), err=err, fold=False)
    if (more := len(result.by_client) - MAX_CLIENTS) > 0:
        rest = sum(result.by_client.values()) - sum(islice(result.by_client.values(), MAX_CLIENTS))
        say(f"  {counted(more, 'more client')}: {rest:,}", err=err)


def _report() -> Callable[[Summary], None]:
    """What logs each that is deleted."""
    who, audit = operating_user(), RepairAudit(write_audit)
    if os.environ.get("NOTIFIER_LOG__LEVEL") not in ("debug", "info"):  # on a terminal, 100,000 lines hide the last
        return lambda _: None
    return lambda summary: audit.removed(who, summary)

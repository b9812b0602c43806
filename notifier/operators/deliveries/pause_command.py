"""The commands `notifier pause`, `resume` and `pauses`: pause clients at run time."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.loading import load
from notifier.configuration.provenance import find_pausing_source
from notifier.model.client import Client, ClientKey
from notifier.model.errors import ConfigurationError
from notifier.model.moment import format_moment_for_people, parse_moment
from notifier.model.printable import counted, printable
from notifier.model.registry import Registry
from notifier.operators.deliveries.pause_request import (
    PauseMembers,
    PauseResult,
    ResumeMembers,
    describe_pausing_source,
    list_pauses,
    plan_pauses,
    request_pause,
    request_resume,
    select_clients,
)
from notifier.operators.deliveries.retry_command import find_issuer
from notifier.operators.terminal.command_options import Config, Json, takes
from notifier.operators.terminal.known_registry import KnownRegistry, end_if_missing, load_known_registry
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import load_queue_part, opened, run_request
from notifier.operators.terminal.screen import Grid, make_screen
from notifier.settings.config_file import PartialSettings
from notifier.telemetry.audit import operating_user

MAX_CLOCK_DIFFERENCE_SECONDS = 5.0
NOT_APPLIED_STATUS = 3  # the exit status if a worker does not apply the pauses (yet)
UNVERIFIED_TEXT = (
    "is not verified: this command cannot read the whole registry, so a mistyped ID or an alias"
    " pauses no client, and followers are not found"
)
STOPPED_TEXT = "stopped; `notifier pauses` shows whether the change was made"


@takes(PauseMembers)
def pause(context: typer.Context, *, config: Config = None, members: PauseMembers, as_json: Json = False) -> None:
    """Pause a client: its deliveries wait until the end, and are then attempted.

    All workers stop calling the client within a second; attempts under way end. Nothing is lost: the time of a pause
    does not count as age, for the client's max_paused in all, which is also the longest pause. Deliveries that are
    parked may expire, and the command counts them. A pause holds through restarts, also if no worker runs, and ends by
    itself. Another pause of the client replaces it.

    It needs no API: it reaches the workers through the queue. The client must be registered. The exit status is 3 if a
    worker does not apply the pause, such as one of a former release: it may still call the client.

    Examples:
        # during its maintenance
        notifier pause -c n.yaml --client-id shop --for 2h --reason "database upgrade"
        # until a moment, with the clients that follow it
        notifier pause -c n.yaml --client-id shop --until 2026-12-01T06:00:00+01:00 --reason incident --followers
        # earlier
        notifier resume -c n.yaml --client-id shop
    """
    part, key, client, known = _find_client(context, config, members)
    if client is None:
        end_if_missing(known, members["client_id"], key[0], registered_only=True)
        say(printable(f"notifier: {key[1]} {UNVERIFIED_TEXT}"), err=True)
    registry, who = _registry_of(known), operating_user()
    pauses, mistakes = plan_pauses(registry, key, members, who, time.time())
    for mistake in mistakes:
        raise typer.BadParameter(mistake.text, param_hint=f"--{mistake.path}")
    result = run_request(
        part.settings.queue,
        lambda queue: request_pause(queue, registry, pauses, time.time, opening=opened),
        STOPPED_TEXT,
    )
    _end_with_result(result, _describe_pause(result), as_json=as_json)


def _describe_pause(result: PauseResult) -> Sequence[str]:
    end = format_moment_for_people(result.made[0].until)
    lines = [f"{', '.join(each.client_id for each in result.made)}: paused until {end}"]
    lines += [f"this replaces: {each.client_id} {each.text}" for each in result.former]
    if result.followers:
        lines.append(f"still called, since they are its followers: {', '.join(result.followers)}; --followers")
    if result.expiring is None:
        lines.append("unknown: how many pending deliveries may expire before the end")
    elif result.expiring:
        lines.append(f"{counted(result.expiring, 'pending delivery')} may expire before the end")
    return lines


@takes(ResumeMembers)
def resume(context: typer.Context, *, config: Config = None, members: ResumeMembers, as_json: Json = False) -> None:
    """End the pause of a client now: its deliveries are attempted, as fast as the client and its limits allow.

    If a registry source has `paused: true` for the client, it remains paused, and the command says so. The exit status
    is 1 if the client is unknown and was not paused, and 3 if a worker does not apply the change yet.

    Examples:
        notifier resume -c n.yaml --client-id shop
        # with the clients that follow it
        notifier resume -c n.yaml --client-id shop --followers
        # for a script
        notifier resume -c n.yaml --client-id shop --json | jq -r '.former[].who'
    """
    part, key, client, known = _find_client(context, config, members)
    registry, who = _registry_of(known), operating_user()
    keys = select_clients(registry, key, members)
    result = run_request(
        part.settings.queue, lambda queue: request_resume(queue, registry, keys, who, time.time), STOPPED_TEXT
    )
    if client is None and not result.former:
        end_if_missing(known, members["client_id"], key[0], registered_only=True)
    lines = [f"{each.client_id}: resumed; it was {each.text}" for each in result.former]
    lines = lines or [f"{key[1]} was not paused by an operator"]
    if result.followers:
        lines.append(f"still paused, since they are its followers: {', '.join(result.followers)}; --followers")
    note = None if client is None or not client.paused else describe_pausing_source(_find_source(context, config, key))
    _end_with_result(result, lines if note is None else [*lines, note], as_json=as_json, note=note)


def pauses(context: typer.Context, *, config: Config = None, as_json: Json = False) -> None:
    """List the clients that operators have paused: who, why, and until when. Also the last pauses that have ended.

    The command shows how many pending deliveries may expire before the end, and which workers do not apply the pauses,
    such as those of a former release. The exit status is then 3.

    Examples:
        notifier pauses -c n.yaml
        # those in force
        notifier pauses -c n.yaml --json | jq '.pauses[] | select(.ended_at == null)'
    """
    part = load_queue_part(config, log_from="warning")
    registry = _registry_of(load_known_registry(config, context.obj))
    rows, asked = run_request(
        part.settings.queue,
        lambda queue: list_pauses(
            queue, registry, operating_user(), time.time, selects=lambda _: True, counts=True, opening=opened
        ),
        "stopped",
    )  # fmt: skip
    if as_json:
        say_json({"pauses": rows, "workers": asked.document()["workers"]})
        raise typer.Exit(_status_of(asked))
    table = Grid("client", "issuer", "paused by", "until", "ended", "may expire:", "reason")
    for row in rows:
        ended = "" if row["ended_at"] is None else format_moment_for_people(parse_moment(row["ended_at"]))
        by = "" if row["ended_by"] is None else f" by {row['ended_by']}"
        until = format_moment_for_people(parse_moment(row["until"]))
        count = "" if ended else "unknown" if row["expiring"] is None else f"{row['expiring'] or ''}"
        table.add_row(
            *map(printable, (row["client_id"], row["iss"], row["who"], until, ended + by, count, row["reason"]))
        )
    if rows:
        make_screen().print(table)
    else:
        say("no client is paused by an operator")
    say("\n".join(map(printable, _list_worker_lines(asked))))
    raise typer.Exit(_status_of(asked))


def _find_client(
    context: typer.Context, config: Path | None, members: ResumeMembers
) -> tuple[PartialSettings, ClientKey, Client | None, KnownRegistry | None]:
    """Return the settings of the queue, the client whose ID or alias is given, and the registry, as far as known."""
    part = load_queue_part(config, log_from="warning")
    iss, client_id = find_issuer(part, members.get("iss")), members["client_id"]
    known = load_known_registry(config, context.obj)
    client = _registry_of(known).resolve(iss, client_id, None)
    return part, (iss, client_id) if client is None else client.key, client, known


def _registry_of(known: KnownRegistry | None) -> Registry:
    return Registry() if known is None else known.registry


def _find_source(context: typer.Context, config: Path | None, key: ClientKey) -> str | None:
    try:
        loaded = load(config, os.environ, context.obj, answer_of=DirectReader(None), keep_rows=True)
    except ConfigurationError:  # `notifier check` reports it
        return None
    return find_pausing_source(loaded, key)


def _list_worker_lines(result: PauseResult) -> Sequence[str]:
    """Return the lines that show which workers apply the pauses, and which do not."""
    if not result.seen:
        return ["no worker runs: the next one reads the pauses before it delivers"]
    lines = [f"{len(result.applied)} of {counted(result.seen, 'worker')} applied it"]
    lines += [f"  {worker}: {problem}; it may still call the client" for worker, problem in result.late]
    if silent := result.seen - len(result.applied) - len(result.late):
        lines.append(f"  {counted(silent, 'worker')} did not answer, and reads the pauses within 30 s")
    if result.clock_difference > MAX_CLOCK_DIFFERENCE_SECONDS:
        lines.append(f"the clock of a worker differs by {result.clock_difference:.0f} s, and so does the end there")
    return lines


def _status_of(result: PauseResult) -> int:
    return 0 if result.is_applied else NOT_APPLIED_STATUS


def _end_with_result(result: PauseResult, lines: Sequence[str], *, as_json: bool, **members: Any) -> NoReturn:
    """Print the result, and exit with 0 if all workers apply it."""
    if as_json:
        say_json(result.document() | members)
    else:
        say("\n".join(map(printable, [*lines, *_list_worker_lines(result)])))
    raise typer.Exit(_status_of(result))

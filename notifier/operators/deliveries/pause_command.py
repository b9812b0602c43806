"""The commands `notifier pause`, `resume` and `pauses`: pause clients at run time."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NoReturn, TypeVar

import typer

from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.loading import load
from notifier.configuration.provenance import describe_pausing_source
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.moment import format_moment_for_people, parse_moment
from notifier.model.printable import counted, printable
from notifier.model.registry import Registry
from notifier.operators.deliveries.pause_request import PauseCoverage, PauseMembers, PauseRequests, ResumeMembers
from notifier.operators.terminal.command_options import Config, Json, takes
from notifier.operators.terminal.known_registry import end_if_missing, find_client, load_known_registry
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import load_queue_part, opened, run_request
from notifier.operators.terminal.screen import Grid, make_screen
from notifier.settings.config_file import PartialSettings
from notifier.telemetry.audit import operating_user

T = TypeVar("T")

MAX_CLOCK_DIFFERENCE_SECONDS = 5.0
NOT_APPLIED_STATUS = 3  # the exit status if a worker does not apply the pauses (yet)
UNVERIFIED_TEXT = (
    "is not verified: this command cannot read the whole registry, so a mistyped ID or an alias"
    " pauses no client, and followers are not found"
)


@takes(PauseMembers)
def pause(context: typer.Context, *, config: Config = None, members: PauseMembers, as_json: Json = False) -> None:
    """Pause a client: its deliveries wait until the end, and are then attempted.

    All workers stop calling the client within a second; attempts under way end. Nothing is lost: the time of a pause
    does not count as age, for the client's max_paused in all, which is also the longest pause. Deliveries that are
    parked may expire, and the command counts them. A pause holds through restarts, also if no worker runs, and ends by
    itself. Another pause of the client replaces it.

    It needs no API: it reaches the workers through the queue. The client must be registered. The exit status is 3 if a
    worker does not apply the pause, such as a worker of a former release: it may still call the client.

    Examples:
        # during its maintenance
        notifier pause -c n.yaml --client-id shop --for 2h --reason "database upgrade"
        # until a moment, with the clients that follow it
        notifier pause -c n.yaml --client-id shop --until 2026-12-01T06:00:00+01:00 --reason incident --followers
        # earlier
        notifier resume -c n.yaml --client-id shop
    """
    part = load_queue_part(config, log_from="warning")
    target = find_client(part, config, context.obj, members)
    if target.client is None:
        end_if_missing(target.known, members["client_id"], target.key[0], registered_only=True)
        say(printable(f"notifier: {target.key[1]} {UNVERIFIED_TEXT}"), err=True)
    result = _run(part, target.registry, lambda requests: requests.pause(target.key, members))
    if isinstance(result, InputIssue):
        raise typer.BadParameter(result.text, param_hint=f"--{result.path}")
    names, end = ", ".join(each.client_id for each in result.paused), format_moment_for_people(result.paused[0].until)
    lines = [f"{names}: paused until {end}"]
    lines += [f"this replaces: {each.client_id} {each.text}" for each in result.former]
    if result.followers:
        lines.append(f"still called, since they are its followers: {', '.join(result.followers)}; --followers")
    if result.expiring is None:
        lines.append("unknown: how many pending deliveries may expire before the end")
    elif result.expiring:
        lines.append(f"{counted(result.expiring, 'pending delivery')} may expire before the end")
    _end(result.document(), lines, result.workers, as_json=as_json)


@takes(ResumeMembers)
def resume(context: typer.Context, *, config: Config = None, members: ResumeMembers, as_json: Json = False) -> None:
    """End the pause of a client now: its deliveries are attempted, as fast as the client and its limits allow.

    If a registry source has `paused: true` for the client, it remains paused, and the command prints that source. The
    exit status is 1 if the client is unknown and was not paused, and 3 if a worker does not apply the change yet.

    Examples:
        notifier resume -c n.yaml --client-id shop
        # with the clients that follow it
        notifier resume -c n.yaml --client-id shop --followers
        # for a script
        notifier resume -c n.yaml --client-id shop --json | jq -r '.former[].who'
    """
    part = load_queue_part(config, log_from="warning")
    target = find_client(part, config, context.obj, members)
    result = _run(part, target.registry, lambda requests: requests.resume(target.key, members))
    if target.client is None and not result.former:
        end_if_missing(target.known, members["client_id"], target.key[0], registered_only=True)
    lines = [f"{each.client_id}: resumed; it was {each.text}" for each in result.former]
    lines = lines or [f"{target.key[1]} was not paused by an operator"]
    if result.followers:
        lines.append(f"still paused, since they are its followers: {', '.join(result.followers)}; --followers")
    note = None
    if target.client is not None and target.client.paused:
        loaded = None
        with suppress(ConfigurationError):  # `notifier check` reports it
            loaded = load(config, os.environ, context.obj, answer_of=DirectReader(None), keep_rows=True)
        lines.append(note := describe_pausing_source(loaded, target.key))
    _end(result.document() | {"note": note}, lines, result.workers, as_json=as_json)


def pauses(context: typer.Context, *, config: Config = None, as_json: Json = False) -> None:
    """List the clients that operators have paused: who, why, and until when. Also the last pauses that have ended.

    The command shows how many pending deliveries may expire before the end, and which workers do not apply the pauses,
    such as workers of a former release. The exit status is then 3.

    Examples:
        notifier pauses -c n.yaml
        # the pauses in force
        notifier pauses -c n.yaml --json | jq '.pauses[] | select(.ended_at == null)'
    """
    part = load_queue_part(config, log_from="warning")
    known = load_known_registry(config, context.obj)
    registry = Registry() if known is None else known.registry
    rows, workers = _run(part, registry, lambda requests: requests.list_pauses(lambda _: True, counts=True))
    table = Grid("client", "issuer", "paused by", "until", "ended", "may expire:", "reason")
    for row in rows:
        ended = "" if row["ended_at"] is None else format_moment_for_people(parse_moment(row["ended_at"]))
        by = "" if row["ended_by"] is None else f" by {row['ended_by']}"
        until = format_moment_for_people(parse_moment(row["until"]))
        count = "" if ended else "unknown" if row["expiring"] is None else f"{row['expiring'] or ''}"
        table.add_row(
            *map(printable, (row["client_id"], row["iss"], row["who"], until, ended + by, count, row["reason"]))
        )
    if rows and not as_json:
        make_screen().print(table)
    lines = [] if rows else ["no client is paused by an operator"]
    _end({"pauses": rows, "workers": asdict(workers)}, lines, workers, as_json=as_json)


def _run(part: PartialSettings, registry: Registry, act: Callable[[PauseRequests], Awaitable[T]]) -> T:
    """Call `act` with the requests of this operator, and return its result. Raises QueueError, UnknownVersion."""
    who = operating_user()
    return run_request(
        part.settings.queue,
        lambda queue: act(PauseRequests(queue=queue, registry=registry, who=who, opening=opened)),
        "stopped; `notifier pauses` shows whether a change was made",
    )


def _list_worker_lines(workers: PauseCoverage) -> Sequence[str]:
    """Return the lines that show which workers apply the pauses, and which do not."""
    if not workers.seen:
        return ["no worker runs: the next one reads the pauses before it delivers"]
    lines = [f"{len(workers.applied)} of {counted(workers.seen, 'worker')} applied it"]
    lines += [f"  {each['worker']}: {each['problem']}; it may still call the client" for each in workers.late]
    if silent := workers.seen - len(workers.applied) - len(workers.late):
        lines.append(f"  {counted(silent, 'worker')} did not answer, and reads the pauses within 30 s")
    if workers.clock_difference > MAX_CLOCK_DIFFERENCE_SECONDS:
        lines.append(f"the clock of a worker differs by {workers.clock_difference:.0f} s, and so does the end there")
    return lines


def _end(document: Mapping[str, Any], lines: Sequence[str], workers: PauseCoverage, *, as_json: bool) -> NoReturn:
    """Print the document as JSON, or the lines and which workers apply the pauses. Exit with 0 if all do."""
    if as_json:
        say_json(document)
    else:
        say("\n".join(map(printable, [*lines, *_list_worker_lines(workers)])))
    raise typer.Exit(0 if len(workers.applied) == workers.seen else NOT_APPLIED_STATUS)

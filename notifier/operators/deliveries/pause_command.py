"""The command `notifier pause`: pauses a client at run time; and what `resume` and `pauses` share with it."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from notifier.configuration.configured_feature import ConfiguredFeature
from notifier.model.client import Client, ClientKey
from notifier.model.errors import InputIssue
from notifier.model.ids import new_id
from notifier.model.moment import format_moment_for_people
from notifier.model.pauses import Pause
from notifier.model.printable import counted, printable
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.operators.deliveries.pause_request import (
    MAX_CLOCK_DIFFERENCE_SECONDS,
    PauseResult,
    check_reason,
    count_expiring,
    list_followers,
    read_end,
    request_pause,
)
from notifier.operators.deliveries.retry_command import find_issuer
from notifier.operators.status.pause_watch import max_paused_of, write_pause_audit
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.known_registry import end_if_unknown, load_known_registry
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import load_queue_part, run_on_queue
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.settings.config_file import PartialSettings
from notifier.telemetry.audit import operating_user

ClientOption = Annotated[str, typer.Option("--client-id", help="The client, or an alias of it.")]
IssuerOption = Annotated[str | None, typer.Option("--iss", help="Its issuer. Needed if there are several.")]


def pause(
    context: typer.Context,
    *,
    config: Config = None,
    client_id: ClientOption,
    iss: IssuerOption = None,
    duration: Annotated[str | None, typer.Option("--for", help="How long, such as 30m or 2h.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="The end: RFC 3339 with an offset.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Shown wherever the pause is: 1 to 200 characters.")],
    followers: Annotated[bool, typer.Option("--followers", help="Also the clients that follow this one.")] = False,
    as_json: Json = False,
) -> None:
    """Pause a client: its deliveries wait until the end, and are then attempted.

    All workers stop calling the client within a second; attempts under way end. Nothing is lost: the time of a pause
    does not count as age, for the client's max_paused in all, which is also the longest pause. A pause holds through
    restarts, also if no worker runs, and ends by itself. Another pause of the client replaces it.

    It needs no API: it reaches the workers through the queue. The exit status is 1 if a worker does not apply the
    pause, such as one of a former release: it may still call the client.

    Examples:
        # during its maintenance
        notifier pause -c n.yaml --client-id shop --for 2h --reason "database upgrade"
        # until a moment, with the clients that follow it
        notifier pause -c n.yaml --client-id shop --until 2026-12-01T06:00:00+01:00 --reason incident --followers
        # earlier
        notifier resume -c n.yaml --client-id shop
    """
    part, key, registry, _ = find_client(context, config, client_id, iss)
    now = time.time()
    times = {name: value for name, value in (("for", duration), ("until", until)) if value is not None}
    end = read_end(times, now, max_paused_of(registry, key))
    for mistake in (end, check_reason(reason)):
        if isinstance(mistake, InputIssue):
            raise typer.BadParameter(mistake.text, param_hint=f"--{mistake.path}")
    assert isinstance(end, float)
    known_followers = list_followers(registry, key)
    ids, who = [key[1], *(known_followers if followers else ())], operating_user()
    pauses = [
        Pause(id=new_id(), iss=key[0], client_id=each, who=who, reason=reason, since=now, until=end) for each in ids
    ]

    async def act(queue: Queue, _options: RepairOptions) -> PauseResult:
        result = await request_pause(queue, pauses, time.time)
        counts = await count_expiring(queue, {each.key: end for each in pauses}, registry)
        left = [each for each in known_followers if each not in ids]
        return copy_record(result, expiring=None if counts is None else counts.total(), followers=left)

    result = run_on_queue(part.settings.queue, act, progress_text="read", opening=False)
    if not result.applied:  # otherwise each worker logs it
        for each in pauses:
            write_pause_audit("client_paused", each, who)
    lines = [f"{', '.join(ids)}: paused until {format_moment_for_people(end)}"]
    lines += [f"this replaces: {each.client_id} {each.text}" for each in result.former]
    if result.followers:
        lines.append(f"still called, since they are its followers: {', '.join(result.followers)}; --followers")
    if result.expiring is None:
        lines.append("unknown: how many pending deliveries expire before the end")
    elif result.expiring:
        lines.append(f"{counted(result.expiring, 'pending delivery')} would expire before the end")
    end_with_result(result, lines, as_json=as_json)


def find_client(
    context: typer.Context, config: Path | None, client_id: str, iss: str | None, *, may_be_paused: bool = False
) -> tuple[PartialSettings, ClientKey, Registry, Client | None]:
    """Return the settings of the queue, the client whose ID or alias is given, and what is known of the registry.

    Exits with 1 for an unknown client, unless `may_be_paused`: then a pause of it may outlive its registration.
    """
    part = load_queue_part(config, log_from="warning")
    iss = find_issuer(part, iss)
    features: tuple[ConfiguredFeature, ...] = context.obj
    known = load_known_registry(config, features)
    registry = Registry() if known is None else known.registry
    client = registry.resolve(iss, client_id, None)
    if client is None and not may_be_paused:
        end_if_unknown(config, features, client_id, iss)
        if known is not None and not known.unread:
            raise typer.Exit(1)
    return part, (iss, client_id) if client is None else client.key, registry, client


def list_worker_lines(result: PauseResult) -> list[str]:
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


def end_with_result(result: PauseResult, lines: list[str], *, as_json: bool, **members: Any) -> None:
    """Print the result, and exit with 0 if all workers apply it, else with 1."""
    if as_json:
        say_json(result.document() | members)
    else:
        say("\n".join(map(printable, [*lines, *list_worker_lines(result)])))
    raise typer.Exit(0 if result.is_applied else 1)

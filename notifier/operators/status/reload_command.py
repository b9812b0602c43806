"""The command `notifier reload`: makes all workers read their configuration and their registry sources now."""

import asyncio
import os
from typing import Annotated

import typer

from notifier.model.printable import counted, printable
from notifier.operators.status.reload_request import ReloadRequest, ReloadResults, WorkerReload, reload_all
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import read_queue
from notifier.queues.building import build_queue
from notifier.settings.queue_settings import QueueSettings
from notifier.telemetry.audit import operating_user

QUIET_SECONDS = 2.0  # after which the command reports that it waits for the workers


def reload(
    config: Config = None,
    url: Annotated[str | None, typer.Option(help="The queue, like queue.url; wins over the configuration.")] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Also if many or all clients could no longer be notified.")
    ] = False,
    drop: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Drop the answers and cache of this registry source, and read it again."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Have all workers read their configuration and their registry sources now, and show what each did.

    A worker reads the files on its machine, and applies all of them or none: it keeps the old files if one has a
    mistake, or if more than one client and more than a fifth of all, or the last client, could no longer be notified.
    It lists these clients. It applies a registry source's answer except for such a loss. If the loss is intended, use
    --accept-loss, which the log records with your name. If a source was poisoned, correct it and use --drop: all its
    earlier answers are dropped, and no file is read. Until it answers, logouts of its clients are deferred, and events
    for "*" for a day at most. A stopped worker keeps its cache: repeat the command when it runs.

    The command sends its request through the queue, whose settings it reads; it needs an operator's permissions there.
    A worker that does not answer within 60 s is missing. The exit status is 0 if every worker has applied everything.

    Examples:
        # what each worker did, and why it does not apply the new files
        notifier reload -c n.yaml
        # the removal of these clients is intended
        notifier reload -c n.yaml --accept-loss
        # the list was poisoned: drop its answers
        notifier reload -c n.yaml --drop keycloak
        # for a script
        notifier reload -c n.yaml --json | jq -r '.workers.each[].problems[]'
    """
    environ = os.environ if url is None else {**os.environ, "NOTIFIER_QUEUE__URL": url}
    quiet_logs()
    queue = read_queue(config, environ, "-c FILE, --url URL").settings.queue
    reloads = asyncio.run(
        _request_reload(queue, ReloadRequest(who=operating_user(), accept_loss=accept_loss, dropped_source=drop))
    )
    if as_json:
        say_json(reloads.document(), indent=2)
    else:
        _print_reloads(reloads, drop)
    raise typer.Exit(0 if reloads.is_applied else 1)


async def _request_reload(settings: QueueSettings, reload: ReloadRequest) -> ReloadResults:
    """Request the reload from all workers. Report on stderr if they take long."""
    reloading = asyncio.ensure_future(reload_all(build_queue(settings), reload))
    await asyncio.wait({reloading}, timeout=QUIET_SECONDS)
    if not reloading.done():
        say("waiting for the workers …", err=True)
    return await reloading


def _print_reloads(reloads: ReloadResults, dropped_source: str | None) -> None:
    """Print the results, once for all workers with the same result, then how many workers applied everything."""
    workers_by_result: dict[tuple[str, ...], list[str]] = {}
    for worker in reloads.workers:
        workers_by_result.setdefault(tuple(_format_worker(worker)), []).append(worker.worker)
    for lines, workers in workers_by_result.items():
        say(printable(", ".join(workers)))
        for line in lines:
            say(printable(f"  {line}"))
    if not reloads.seen:
        say("no worker runs: the next one reads the files as they are when it starts")
    elif not reloads.is_applied:
        applied_count = sum(not worker.problems for worker in reloads.workers)
        silent_count = reloads.seen - len(reloads.workers)
        missing = f"; {silent_count} did not answer" if silent_count else ""
        say(f"{applied_count} of {counted(reloads.seen, 'worker')} applied everything{missing}")
    if dropped_source is not None:
        say(f"a stopped worker keeps its cache of {printable(dropped_source)}: repeat the command when it runs")


def _format_worker(worker: WorkerReload) -> list[str]:
    """Return the lines that show what the worker did."""
    lines = [f"not applied: {problem}" for problem in worker.problems]
    result = worker.result
    if result is None:
        return lines
    if not worker.problems:
        lines.append(f"applied: {counted(result.issuers, 'issuer')}, {counted(result.clients, 'client')}")
    if result.restart_needed:
        lines.append(f"needs a restart for: {', '.join(result.restart_needed)}")
    return lines + [f"does not sign: {text}" for text in result.signers]

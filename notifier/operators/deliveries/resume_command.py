"""The command `notifier resume`: ends the pause of a client."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.loading import load
from notifier.configuration.provenance import find_pausing_source
from notifier.model.client import ClientKey
from notifier.model.errors import ConfigurationError
from notifier.operators.deliveries.pause_command import ClientOption, IssuerOption, end_with_result, find_client
from notifier.operators.deliveries.pause_request import (
    PauseResult,
    describe_pausing_source,
    list_followers,
    request_resume,
)
from notifier.operators.status.pause_watch import write_pause_audit
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.queue_access import run_on_queue
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import operating_user


def resume(
    context: typer.Context,
    *,
    config: Config = None,
    client_id: ClientOption,
    iss: IssuerOption = None,
    followers: Annotated[bool, typer.Option("--followers", help="Also the clients that follow this one.")] = False,
    as_json: Json = False,
) -> None:
    """End the pause of a client now: its deliveries are attempted, as fast as the client and its limits allow.

    If a registry source has `paused: true` for the client, it remains paused, and the command says so. The exit status
    is 1 if a worker does not apply the change yet.

    Examples:
        notifier resume -c n.yaml --client-id shop
        # for a script
        notifier resume -c n.yaml --client-id shop --json | jq -r '.former[].who'
    """
    part, key, registry, client = find_client(context, config, client_id, iss, may_be_paused=True)
    keys = [key, *((key[0], each) for each in (list_followers(registry, key) if followers else ()))]
    who = operating_user()

    async def act(queue: Queue, _options: RepairOptions) -> PauseResult:
        return await request_resume(queue, keys, who, time.time)

    result = run_on_queue(part.settings.queue, act, progress_text="read", opening=False)
    note = None if client is None or not client.paused else describe_pausing_source(_find_source(context, config, key))
    if not result.applied:
        for each in result.former:
            write_pause_audit("client_resumed", each, who)
    lines = [f"{each.client_id}: resumed; it was {each.text}" for each in result.former]
    lines = lines or [f"{key[1]} was not paused by an operator"]
    end_with_result(result, lines if note is None else [*lines, note], as_json=as_json, note=note)


def _find_source(context: typer.Context, config: Path | None, key: ClientKey) -> str | None:
    try:
        loaded = load(config, os.environ, context.obj, answer_of=DirectReader(None), keep_rows=True)
    except ConfigurationError:  # `notifier check` reports it
        return None
    return find_pausing_source(loaded, key)

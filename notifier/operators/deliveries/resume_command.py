"""The command `notifier resume`: ends the pause of a client."""

import time
from typing import Annotated

import typer

from notifier.operators.deliveries.pause_command import ClientOption, IssuerOption, end_with_result, find_client
from notifier.operators.deliveries.pause_request import PauseResult, describe_source, list_followers, request_resume
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.queue_access import run_on_queue
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import operating_user, write_audit


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
    note = describe_source(client)
    if not result.applied:
        for each in result.former:
            write_audit("client_resumed", who=who, iss=each.iss, client_id=each.client_id, pause=each.id)
    lines = [f"{each.client_id}: resumed; it was {each.text}" for each in result.former]
    lines = lines or [f"{key[1]} was not paused by an operator"]
    end_with_result(result, lines if note is None else [*lines, note], as_json=as_json, note=note)

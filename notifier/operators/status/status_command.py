"""The command `notifier status`: the state of queues, workers and clients, as a page or as JSON."""

import asyncio
import os
import time
from typing import Annotated

import typer

from notifier.configuration.configured_feature import bindings_in
from notifier.model.errors import QueueUnavailable
from notifier.model.printable import printable
from notifier.operators.status.own_state import read_status
from notifier.operators.status.status_document import document_of
from notifier.operators.status.status_page import status_page
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import require_queue
from notifier.operators.terminal.screen import make_screen
from notifier.queues.building import build_queue
from notifier.settings.config_file import read_sections

_REMEDIES = """\
  Workers connect again by themselves, and nothing that the broker has confirmed is lost.
  What to do: notifier explain NotifierQueueDisconnected; notifier doctor tries each step.
  What a worker knows meanwhile: GET /v1/status of its API, and its console."""


def status(
    context: typer.Context,
    config: Config = None,
    every_client: Annotated[bool, typer.Option("--all", help="Show clients without trouble too.")] = False,
    as_json: Json = False,
) -> None:
    """Show the pending messages, the rates, and the state of workers and clients.

    The command asks all workers. A worker that does not answer within 2 s counts as missing: it is busy, draining or
    of an older release, or the broker blocks publishing. If no worker runs, the page shows the queues alone. The
    command changes nothing, and reads only `queue` of the configuration, and what `sources` bind.

    While the broker is unreachable or blocked, the command reports that and the remedy within 2 s. Each worker's API
    (`GET /v1/status`) still has the state of its clients then.

    Clients in trouble come first; --all shows the others too. Counts begin when the workers start.

    Examples:
        # the pending messages, and which clients do not get their logouts
        notifier status -c n.yaml
        # the same, refreshed
        watch notifier status -c n.yaml
        # unreachable clients, for a script
        notifier status -c n.yaml --json | jq -r '.clients[] | select(.circuit == "open").client_id'
    """
    quiet_logs()
    part = read_sections(config, os.environ, {"queue"})
    require_queue(config, os.environ, part)
    queue = build_queue(part.settings.queue, bindings_in(context.obj, part.document))
    try:
        service_status = asyncio.run(read_status(queue, time.time))
    except QueueUnavailable as error:
        if part.settings.queue.sqlite_file is not None:
            raise
        say(printable(f"notifier: {error}"), err=True)
        say(_REMEDIES, err=True)
        raise typer.Exit(1) from None
    if as_json:
        say_json(document_of(service_status), indent=2)
    else:
        make_screen().print(status_page(service_status, every_client=every_client))

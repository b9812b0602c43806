"""The command `notifier status`: the state of queues, workers and clients, as a page or as JSON."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.live import Live
from rich.text import Text

from notifier.configuration.configured_feature import bindings_in
from notifier.model.errors import QueueUnavailable
from notifier.model.printable import printable
from notifier.operators.status.own_state import read_status_from_outside
from notifier.operators.status.service_status import ServiceStatus
from notifier.operators.status.status_document import document_of
from notifier.operators.status.status_page import PAGE_WIDTH, status_page
from notifier.operators.status.status_request import fetch_status
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import require_queue
from notifier.operators.terminal.screen import make_screen
from notifier.queues.building import build_queue
from notifier.settings.config_file import PartialSettings, read_sections
from notifier.settings.secret_text import read_secret
from notifier.settings.service_settings import ApiSettings
from notifier.settings.values import Listen, ListenAddress, is_in_clear

REFRESH_SECONDS = 2.0
_UNKNOWN_API_URL = "http://HOST:PORT of its API"
_LISTEN: TypeAdapter[Listen] = TypeAdapter(ListenAddress)


def status(
    context: typer.Context,
    config: Config = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 2 s until Ctrl-C.")] = False,
    every_client: Annotated[bool, typer.Option("--all", help="Show clients without trouble too.")] = False,
    from_url: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Ask this worker's API instead of the queue.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --from: a file with an API token of scope read.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the pending messages, the rates, and the state of workers and clients.

    The command asks all workers. A worker that does not answer within 2 s counts as missing: it is busy, draining or
    of an older release, or the broker blocks publishing. If no worker runs, the page shows the queues alone. The
    command changes nothing, and reads only `queue` of the configuration, and what `sources` bind.

    While the broker is unreachable or blocked, the command reports that and the remedy within 2 s. --from URL asks one
    worker's API, such as http://127.0.0.1:8080, which also knows its clients then. It needs no configuration.

    Clients in trouble come first; --all shows the others too. Counts begin when the workers start. --json with --watch
    prints one object per line.

    Examples:
        # the pending messages, and which clients do not get their logouts
        notifier status -c n.yaml
        # the same, refreshed
        notifier status -c n.yaml --watch
        # the broker is unreachable: the state of one worker
        notifier status --from http://127.0.0.1:8080 --token-file read.token
        # clients that are down and rest, for a script
        notifier status -c n.yaml --json | jq -r '.clients[] | select(.circuit == "open").client_id'
    """
    quiet_logs()
    read = _make_queue_reader(context, config) if from_url is None else _make_worker_reader(from_url, token_file)
    try:
        if not watch:
            _print_status(read(), every_client=every_client, as_json=as_json, indent=2)
        elif as_json or not sys.stdout.isatty():
            while True:
                _print_status(read(), every_client=every_client, as_json=as_json, indent=None)
                time.sleep(REFRESH_SECONDS)
        else:
            _watch(read, every_client=every_client)
    except _Away as away:
        for line in (f"notifier: {away}", *away.advice):
            say(printable(line), err=True)
        raise typer.Exit(1) from None


class _Away(QueueUnavailable):
    """The broker is unreachable. `advice`: the remedies, in lines."""

    def __init__(self, why: str, advice: Sequence[str]) -> None:
        super().__init__(why)
        self.advice = advice


def _make_queue_reader(context: typer.Context, config: Path | None) -> Callable[[], ServiceStatus]:
    part = read_sections(config, os.environ, {"queue"})
    require_queue(config, os.environ, part)
    bindings = bindings_in(context.obj, part.document)
    settings = part.settings.queue

    def read() -> ServiceStatus:
        try:
            return asyncio.run(read_status_from_outside(build_queue(settings, bindings), time.time))
        except QueueUnavailable as away:
            if settings.sqlite_file is not None:
                raise
            raise _Away(str(away), [*_list_remedies(part)]) from None

    return read


def _list_remedies(part: PartialSettings) -> Iterator[str]:
    yield "  Workers connect again by themselves, and nothing that the broker has confirmed is lost."
    yield "  What to do: notifier explain NotifierQueueDisconnected; notifier doctor tries each step."
    yield f"  What a worker knows meanwhile: notifier status --from {_api_of(part.document.get('api'))}"


def _api_of(section: object) -> str:
    """Return the `--from` options for a worker on this machine, from an `api` section that may be invalid."""
    if not isinstance(section, dict):
        return _UNKNOWN_API_URL
    try:
        listen = _LISTEN.validate_python(section.get("listen", ApiSettings().listen))
    except ValidationError:
        return _UNKNOWN_API_URL
    if listen.host in ("0.0.0.0", "::"):  # noqa: S104  not an address to connect to
        listen = Listen("127.0.0.1", listen.port)
    scheme = "https" if section.get("tls") else "http"
    return f"{scheme}://{listen}{' --token-file FILE' if section.get('tokens_file') else ''}"


def _make_worker_reader(url: str, token_file: Path | None) -> Callable[[], ServiceStatus]:
    if not url.lower().startswith(("http://", "https://")):
        raise typer.BadParameter("must begin with http:// or https://", param_hint="--from")
    try:
        clear = is_in_clear(url)
    except ValueError:
        raise typer.BadParameter("is no address, such as http://127.0.0.1:8080", param_hint="--from") from None
    token = None
    if token_file is not None:
        if clear:
            raise typer.BadParameter("the token would be sent in clear: name an https:// address", param_hint="--from")
        token = read_secret(token_file).strip()
    return lambda: asyncio.run(fetch_status(url, token))


def _print_status(status: ServiceStatus, *, every_client: bool, as_json: bool, indent: int | None) -> None:
    if as_json:
        say_json(document_of(status), indent=indent)
        return
    console = make_screen(width=PAGE_WIDTH)
    console.print(status_page(status, every_client=every_client))


def _watch(read: Callable[[], ServiceStatus], *, every_client: bool) -> None:
    with Live(Text("asking the workers …"), console=make_screen(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                page = status_page(read(), every_client=every_client)
            except QueueUnavailable as away:  # retried at the next refresh
                page = Text(f"{time.strftime('%H:%M:%S')}  {away}", style="bold red")
            live.update(page, refresh=True)
            time.sleep(REFRESH_SECONDS)

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
from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from notifier.configuration.clients.registry_refresh import SourceState
from notifier.configuration.configured_feature import bindings_in
from notifier.model.durations import in_words
from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, PARKED, Lane
from notifier.model.printable import counted, printable
from notifier.model.trouble import MILD
from notifier.operators.status.asked_worker import look_at_worker
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.own_state import look_from_outside
from notifier.operators.status.service_status import (
    ServiceStatus,
    bindings_missing,
    consumed,
    delayed,
    messages_held,
    rates_of,
    troubles_of,
    vanished,
)
from notifier.operators.status.status_document import document_of
from notifier.operators.terminal.command_options import Config, Json, quiet_logs
from notifier.operators.terminal.grid import Grid
from notifier.operators.terminal.output import columns, joined, say, say_json
from notifier.operators.terminal.queue_access import require_queue
from notifier.operators.terminal.screen import ago, screen
from notifier.queues.building import build_queue
from notifier.settings.config_file import ReadPart, read_part
from notifier.settings.secret_text import read_secret
from notifier.settings.service_settings import ApiSettings
from notifier.settings.values import Listen, ListenAddress, in_clear

EVERY = 2.0  # seconds
ROWS = 20  # clients
WIDTH = 120  # columns, if neither COLUMNS nor a terminal says it
_UNKNOWN = "http://HOST:PORT of its API"
_LISTEN: TypeAdapter[Listen] = TypeAdapter(ListenAddress)
STATES = {
    "well": "well",
    "fails": "fails",
    "put_off": "put off",
    "tried": "tried now",
    "hangs": "hangs",
    "rests": "rests",
}


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
    """Show what waits in the queues, the rates, and the state of workers and clients.

    The command asks all workers. A worker that does not answer within 2 s counts as missing: it is busy, draining or
    of an older release, or the broker blocks publishing. If no worker runs, the page shows the queues alone. The
    command changes nothing, and reads only `queue` of the configuration, and what `sources` bind.

    While the broker is away, or takes no message, the command says so within 2 s, and what to do. --from URL asks one
    worker's API, such as http://127.0.0.1:8080, which also knows its clients then. It needs no configuration.

    Clients in trouble come first; --all shows the others too. Counts begin when the workers start. --json with --watch
    prints one object per line.

    Examples:
        # what waits, and which clients do not get their logouts
        notifier status -c n.yaml
        # the same, refreshed
        notifier status -c n.yaml --watch
        # the broker is away: what a worker knows
        notifier status --from http://127.0.0.1:8080 --token-file read.token
        # clients that are down and rest, for a script
        notifier status -c n.yaml --json | jq -r '.clients[] | select(.circuit == "open").client_id'
    """
    quiet_logs()
    look = _at_queue(context, config) if from_url is None else _at_worker(from_url, token_file)
    try:
        if not watch:
            _show(look(), every_client=every_client, as_json=as_json, indent=2)
        elif as_json or not sys.stdout.isatty():
            while True:
                _show(look(), every_client=every_client, as_json=as_json, indent=None)
                time.sleep(EVERY)
        else:
            _watch(look, every_client=every_client)
    except _Away as away:
        for line in (f"notifier: {away}", *away.advice):
            say(printable(line), err=True)
        raise typer.Exit(1) from None


class _Away(QueueUnavailable):
    """The broker is away. `advice`: what to do, in lines."""

    def __init__(self, why: str, advice: Sequence[str]) -> None:
        super().__init__(why)
        self.advice = advice


def _at_queue(context: typer.Context, config: Path | None) -> Callable[[], ServiceStatus]:
    """What asks all workers, through the queue."""
    part = read_part(config, os.environ, {"queue"})
    require_queue(config, os.environ, part)
    bindings = bindings_in(context.obj, part.document)
    settings = part.settings.queue

    def look() -> ServiceStatus:
        try:
            return asyncio.run(look_from_outside(build_queue(settings, bindings), time.time))
        except QueueUnavailable as away:
            if settings.sqlite_file is not None:
                raise
            raise _Away(str(away), [*_advice(part)]) from None

    return look


def _advice(part: ReadPart) -> Iterator[str]:
    """What to do while the broker is away."""
    yield "  Workers connect again by themselves, and nothing that the broker has confirmed is lost."
    yield "  What to do: notifier explain NotifierQueueDisconnected; notifier doctor tries each step."
    yield f"  What a worker knows meanwhile: notifier status --from {_api_of(part.document.get('api'))}"


def _api_of(section: object) -> str:
    """How to ask the API of a worker on this machine, by a section `api` that nobody has checked."""
    if not isinstance(section, dict):
        return _UNKNOWN
    try:
        listen = _LISTEN.validate_python(section.get("listen", ApiSettings().listen))
    except ValidationError:
        return _UNKNOWN
    if listen.host in ("0.0.0.0", "::"):  # noqa: S104  no address that one can ask
        listen = Listen("127.0.0.1", listen.port)
    scheme = "https" if section.get("tls") else "http"
    return f"{scheme}://{listen}{' --token-file FILE' if section.get('tokens_file') else ''}"


def _at_worker(url: str, token_file: Path | None) -> Callable[[], ServiceStatus]:
    """What asks one worker's API."""
    if not url.lower().startswith(("http://", "https://")):
        raise typer.BadParameter("must begin with http:// or https://", param_hint="--from")
    try:
        clear = in_clear(url)
    except ValueError:
        raise typer.BadParameter("is no address, such as http://127.0.0.1:8080", param_hint="--from") from None
    token = None
    if token_file is not None:
        if clear:
            raise typer.BadParameter("the token would be sent in clear: name an https:// address", param_hint="--from")
        token = read_secret(token_file).strip()
    return lambda: asyncio.run(look_at_worker(url, token))


def _show(status: ServiceStatus, *, every_client: bool, as_json: bool, indent: int | None) -> None:
    if as_json:
        say_json(document_of(status), indent=indent)
        return
    console = screen(width=WIDTH)
    console.print(_page(status, every_client=every_client))


def _watch(look: Callable[[], ServiceStatus], *, every_client: bool) -> None:
    with Live(Text("asking the workers …"), console=screen(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                page = _page(look(), every_client=every_client)
            except QueueUnavailable as away:  # it may come back
                page = Text(f"{time.strftime('%H:%M:%S')}  {away}", style="bold red")
            live.update(page, refresh=True)
            time.sleep(EVERY)


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _page(status: ServiceStatus, *, every_client: bool) -> RenderableType:
    waiting = _queues(status) if status.depths else Text("The queue is away: what waits there is not known.\n")
    parts: list[RenderableType] = [*_troubles(status), waiting]
    parts += [Text(str(binding), style="yellow") for binding in bindings_missing(status)]
    parts += [Text(_workers(status)), Text(_rates(status))]
    shown = [client for client in status.clients if every_client or client.state != "well" or client.waits]
    if shown:
        rows = shown if every_client else shown[:ROWS]
        parts.append(_clients(rows, status.at))
        parts += [Text(joined(line, columns(sys.stdout, WIDTH))) for line in _failures(rows)]
    parts.append(Text(_others(status, len(shown), every_client=every_client)))
    return Group(*parts)


def _troubles(status: ServiceStatus) -> Iterator[RenderableType]:
    """What is wrong, first of all: a line each, with where to read on."""
    troubles = troubles_of(status)
    for shared in troubles[:ROWS]:
        trouble = shared.trouble
        of = f"({trouble.iss})" if trouble.client_id else trouble.iss or trouble.subject
        whom = " ".join(filter(None, (trouble.client_id, of)))
        since = "" if trouble.since is None else f", since {in_words(status.at - trouble.since)}"
        many = len(status.workers) > 1 and bool(shared.workers)
        where = f", at {len(shared.workers)} of {len(status.workers)} workers" if many else ""
        count = f", {counted(trouble.count, trouble.counted)}" if trouble.count else ""
        head = f"{trouble.kind.replace('_', ' ')}{f' {whom}' if whom else ''}{since}{where}{count}"
        sign, style = ("!", "yellow") if trouble.kind in MILD else ("✗", "bold red")
        yield Text(f"{sign} {head}", style=style)
        more = f" (notifier explain {trouble.explained})" if trouble.explained else ""
        yield Padding(Text(joined(f"{trouble.text}{more}", columns(sys.stdout, WIDTH) - 2)), (0, 0, 0, 2))
    if len(troubles) > ROWS:
        yield Text(f"and {len(troubles) - ROWS:,} more: --json shows them")
    if troubles:
        yield Text("")


def _queues(status: ServiceStatus) -> Grid:
    table = Grid("queue", "ready:", "held:", "oldest:", "")
    what = {Lane.EVENTS: "fresh events", Lane.RETRIES: "deliveries that came due", Lane.BULK: "mass logouts"}
    contents: dict[str, str] = {lane.value: text for lane, text in what.items()}
    for queue in consumed(status):
        oldest, ready = ago(status.oldest.get(queue), status.at), status.depths[queue].ready
        held_here = messages_held(status, queue)
        table.add_row(queue, f"{ready:,}", f"{held_here:,}", oldest, contents.get(queue, "events of this source"))
    table.add_row("delayed", f"{delayed(status):,}", "", "", "wait for their next attempt")
    if PARKED in status.depths:
        table.add_row(PARKED, f"{status.depths[PARKED].ready:,}", "", "", "wait until their client is well")
    if DEAD in status.depths:
        ready = status.depths[DEAD].ready
        style = "bold red" if ready else ""
        oldest = ago(status.oldest.get(DEAD), status.at)
        table.add_row(DEAD, f"{ready:,}", "", oldest, "given up: notifier dead-letters list", style=style)
    return table


def _workers(status: ServiceStatus) -> str:
    answered = len(status.workers)
    present = max(status.seen, answered)
    if not present and status.depths:
        return (
            "No worker consumes the queue: nothing is delivered. Start one: notifier run. If one runs, its /readyz "
            "says why it does not consume."
        )
    lines = [f"{answered} of {counted(present, 'worker')} answered."]
    if not answered and not status.blocked:
        lines.append("They are busy or of an older release, or cannot be reached: their figures are missing.")
    for worker in status.workers:
        life = "draining" if worker.draining else f"up {in_words(status.at - worker.since)}"
        lines.append(f"  {worker.worker}  {worker.version}  {life}, {worker.in_flight:,} in flight")
        lines += [
            f"    registry source {source.name}: not read yet" for source in worker.registry if _is_unread(source)
        ]
    lines += [f"  {worker}  last seen {ago(seen, status.at)}" for worker, seen in vanished(status)]
    return "\n".join(lines)


def _is_unread(source: SourceState) -> bool:
    return not source.up and source.problem is None


def _rates(status: ServiceStatus) -> str:
    if not status.workers:
        return ""
    rates = ", ".join(f"{rate:,.1f} {name}" for name, rate in rates_of(status).items())
    return f"A second, over the last minute: {rates}.\n"


def _clients(clients: list[ClientState], now: float) -> Grid:
    table = Grid(
        "client", "state", "waits:", "dead:", "last success:", "last failure:", "reason", "waits for", "next attempt:",
        "expires:",
    )  # fmt: skip
    for client in clients:
        reason = " ".join(filter(None, (client.reason, "" if client.status is None else str(client.status))))
        if client.state == "hangs":
            reason = f"no answer for {client.silent:.0f} s"
        table.add_row(
            client.client_id,
            STATES[client.state],
            f"{client.waits:,}",
            f"{client.dead:,}",
            ago(client.last_success, now),
            ago(client.last_failure, now),
            reason,
            client.cause,
            "" if client.next_attempt is None else f"in {in_words(client.next_attempt - now)}",
            _expires(client, now),
            style="red" if client.circuit else "" if client.state == "well" else "yellow",
            of=client.iss,
        )
    return table


def _expires(client: ClientState, now: float) -> str:
    """When the first delivery that waits is given up; soon, if its token has no sid."""
    if client.expires is None:
        return ""
    sid = ", no sid" if client.expires == client.expires_without_sid else ""
    return f"in {in_words(client.expires - now)}{sid}"


def _failures(clients: list[ClientState]) -> Iterator[str]:
    """What each client that fails met last, in words."""
    issuers = {client.iss for client in clients}
    for client in clients:
        if client.text and client.troubled:
            name = client.client_id if len(issuers) == 1 else f"{client.client_id} ({client.iss})"
            yield f"{name}: {client.text}"
    yield ""


def _others(status: ServiceStatus, shown: int, *, every_client: bool) -> str:
    lines = []
    if not every_client and shown > ROWS:
        lines.append(f"{shown - ROWS:,} more clients are not well: --all shows them.")
    well = len(status.clients) - shown
    if well:
        lines.append(f"{well:,} client{' is' if well == 1 else 's are'} well: --all shows them.")
    if status.left_out:
        lines.append(f"{status.left_out:,} more clients were left out by their workers; none is in greater trouble.")
    if status.workers and not status.clients:
        lines.append("No delivery was attempted since the workers started.")
    return "\n".join(lines)

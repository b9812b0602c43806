"""Lays out the status of the service as a page for a terminal."""

from collections import Counter
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from notifier.model.durations import format_in_words
from notifier.model.message import DEAD, PARKED, Lane
from notifier.model.printable import counted
from notifier.operators.status.client_status import ClientStatus
from notifier.operators.status.service_status import (
    ServiceStatus,
    consumed_queues_of,
    count_delayed,
    count_held_messages,
    count_set_aside,
    missing_bindings_of,
    rates_of,
    relays_of,
    troubles_of,
)
from notifier.operators.terminal.output import format_age
from notifier.operators.terminal.screen import Grid

MAX_CLIENT_ROWS = 20  # and troubles
STATE_WORDS = {
    "well": "healthy",
    "fails": "failing",
    "put_off": "deferred",
    "tried": "probing",
    "hangs": "unresponsive",
    "rests": "unreachable",
    "paused": "paused",
}


def status_page(status: ServiceStatus, *, every_client: bool) -> RenderableType:
    """Return the page: troubles, queues, workers, rates, and the clients in trouble or with pending deliveries."""
    queues = _format_queues(status) if status.depths else Text("The queue is unavailable: its messages are unknown.\n")
    parts: list[RenderableType] = [*_format_troubles(status), queues]
    parts += [Text(str(binding), style="yellow") for binding in missing_bindings_of(status)]
    parts += [Text(_format_workers(status)), Text(_format_rates(status))]
    shown = [client for client in status.clients if every_client or client.state != "well" or client.pending_count]
    if shown:
        rows = shown if every_client else shown[:MAX_CLIENT_ROWS]
        parts.append(_format_clients(rows, status.at))
        parts += [Text(line) for line in _list_failures(rows)]
    parts.append(Text(_count_others(status, len(shown), every_client=every_client)))
    return Group(*parts)


def _format_troubles(status: ServiceStatus) -> Iterator[RenderableType]:
    """Yield a headline for each trouble, and its text with the command that explains it."""
    troubles = troubles_of(status)
    for shared in troubles[:MAX_CLIENT_ROWS]:
        trouble = shared.trouble
        subject = f"{trouble.client_id} ({trouble.iss})" if trouble.client_id else trouble.iss or trouble.subject
        headline = f"{trouble.kind.replace('_', ' ')} {subject}".rstrip()
        if trouble.since is not None:
            headline += f", since {format_in_words(status.at - trouble.since)}"
        if len(status.workers) > 1 and shared.workers:
            headline += f", at {len(shared.workers)} of {len(status.workers)} workers"
        if trouble.count:
            headline += f", {trouble.format_count()}"
        sign, style = ("!", "yellow") if trouble.mild else ("✗", "bold red")
        yield Text(f"{sign} {headline}", style=style)
        more = f" (notifier explain {trouble.explained})" if trouble.explained else ""
        yield Text(f"  {trouble.text}{more}")
    if len(troubles) > MAX_CLIENT_ROWS:
        yield Text(f"and {len(troubles) - MAX_CLIENT_ROWS:,} more: --json shows them")
    unreachable = sum(client.state in ("rests", "tried") for client in status.clients)
    if unreachable > 1:  # one is the first row of its table
        at_least = "at least " if status.left_out else ""
        yield Text(f"✗ {at_least}{unreachable:,} clients are unreachable", style="bold red")
    if troubles or unreachable > 1:
        yield Text("")


def _format_queues(status: ServiceStatus) -> Grid:
    """Return the table of queues: their ready messages, and the messages that workers hold."""
    table = Grid("queue", "ready:", "held:", "oldest:", "")
    contents: dict[str, str] = {
        Lane.EVENTS.value: "fresh events", Lane.RETRIES.value: "deliveries that came due",
        Lane.BULK.value: "mass logouts",
    }  # fmt: skip
    for queue in consumed_queues_of(status):
        oldest, ready = format_age(status.oldest.get(queue), status.at), status.depths[queue].ready
        held, set_aside = count_held_messages(status, queue), count_set_aside(status, queue)
        cell = f"{held:,} ({set_aside:,} late)" if set_aside else f"{held:,}"
        table.add_row(queue, f"{ready:,}", cell, oldest, contents.get(queue, "events of this source"))
    table.add_row("delayed", f"{count_delayed(status):,}", "", "", "wait for their next attempt")
    if PARKED in status.depths:
        table.add_row(PARKED, f"{status.depths[PARKED].ready:,}", "", "", "wait until their client recovers")
    if DEAD in status.depths:
        ready = status.depths[DEAD].ready
        style = "bold red" if ready else ""
        oldest = format_age(status.oldest.get(DEAD), status.at)
        table.add_row(DEAD, f"{ready:,}", "", oldest, "given up: notifier dead-letters list", style=style)
    return table


def _format_workers(status: ServiceStatus) -> str:
    """Return a line about all workers, then a line for each, with its registry sources that are unread."""
    answered_count = len(status.workers)
    if not status.seen and status.depths:
        return (
            "No worker consumes the queue: nothing is delivered. Start one: notifier run. If one runs, its /readyz "
            "returns why it does not consume."
        )
    lines = [f"{answered_count} of {counted(status.seen, 'worker')} answered."]
    if not answered_count and not status.blocked:
        lines.append("They are busy or of an older release, or cannot be reached: their figures are missing.")
    versions = Counter(worker.version for worker in status.workers)
    if len(versions) > 1:
        each = ", ".join(f"{version} at {count}" for version, count in sorted(versions.items()))
        lines.append(f"! {len(versions)} versions, as during an upgrade: {each}.")
    for worker in status.workers:
        phase = "draining" if worker.draining else f"up {format_in_words(status.at - worker.since)}"
        if worker.consuming is False and not worker.draining:
            phase += f", not ready: {worker.problem}" if worker.problem else ", not ready"
        lines.append(f"  {worker.worker}  {worker.version}  {phase}, {worker.in_flight:,} in flight")
        unread = (source.name for source in worker.registry if not source.up and source.problem is None)
        lines += [f"    registry source {name}: not read yet" for name in unread]
    for relay in relays_of(status):
        keys = f"keys {relay.keys}" if relay.is_served else f"! its JWK Set is not served ({relay.keys})"
        last = "none" if relay.last_token is None else format_age(relay.last_token, status.at)
        lines.append(f"  relay {relay.relay}  {keys}, last token: {last}")
    return "\n".join(lines)


def _format_rates(status: ServiceStatus) -> str:
    if not status.workers:
        return ""
    words = {"deferred": "deferrals"}  # of one delivery there may be many
    rates = ", ".join(f"{rate:,.1f} {words.get(name, name)}" for name, rate in rates_of(status).items())
    return f"A second, over the last minute: {rates}.\n"


def _format_clients(clients: list[ClientStatus], now: float) -> Grid:
    table = Grid(
        "client", "state", "waits:", "dead:", "last success:", "last failure:", "reason", "waits for", "next attempt:",
        "expires:",
    )  # fmt: skip
    for client in clients:
        style = "" if client.state == "well" else "yellow"
        if client.state in ("rests", "tried"):
            style = "red"
        reason = " ".join(filter(None, (client.reason, "" if client.status is None else str(client.status))))
        if client.state == "hangs":
            reason = f"no answer for {client.silent:.0f} s"
        table.add_row(
            client.client_id,
            STATE_WORDS[client.state],
            f"{client.pending_count:,}",
            f"{client.dead:,}",
            format_age(client.last_success, now),
            format_age(client.last_failure, now),
            reason,
            client.cause,
            "" if client.next_attempt is None else f"in {format_in_words(client.next_attempt - now)}",
            _format_expiry(client, now),
            style=style,
            issuer=client.iss,
        )
    return table


def _format_expiry(client: ClientStatus, now: float) -> str:
    """Return in how long the first pending delivery expires, and whether its token lacks a `sid`."""
    if client.expires is None:
        return ""
    sid = ", no sid" if client.expires == client.expires_without_sid else ""
    return f"in {format_in_words(client.expires - now)}{sid}"


def _list_failures(clients: list[ClientStatus]) -> Iterator[str]:
    """Yield the pause or the last failure of each client in trouble, then an empty line."""
    issuers = {client.iss for client in clients}
    for client in clients:
        text = client.text if client.is_failing else ""
        if client.pause is not None:
            text = client.pause.text
        if text:
            name = client.client_id if len(issuers) == 1 else f"{client.client_id} ({client.iss})"
            yield f"{name}: {text}"
    yield ""


def _count_others(status: ServiceStatus, shown: int, *, every_client: bool) -> str:
    """Return lines with the numbers of clients that the table omits, by kind. `shown` clients were selected for it."""
    lines = []
    if not every_client and shown > MAX_CLIENT_ROWS:
        lines.append(f"{shown - MAX_CLIENT_ROWS:,} more clients are not healthy: --all shows them.")
    healthy = len(status.clients) - shown
    if healthy:
        lines.append(f"{healthy:,} client{' is' if healthy == 1 else 's are'} healthy: --all shows them.")
    if status.left_out:
        lines.append(f"{status.left_out:,} more clients were omitted by their workers; none is in a more severe state.")
    if status.workers and not status.clients:
        lines.append("No delivery was attempted since the workers started.")
    return "\n".join(lines)

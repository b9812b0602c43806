"""Shows the demo: an introduction, and the result at the end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from notifier.demo.bookkeeping import ClientResult, DemoResult
from notifier.demo.receivers import Behaviour, Receiver
from notifier.operators.terminal.screen import Grid

STORY_BY_BEHAVIOUR = {
    Behaviour.HEALTHY: ("answers 204 at once", "delivered"),
    Behaviour.SLOW: ("answers 204 after a while", "delivered; nobody waits for it"),
    Behaviour.FLAKY: ("answers 503 to every other request", "delivered, after a retry or two"),
    Behaviour.REJECTING: ("answers 400 to every token", "dead letters after 4 attempts"),
    Behaviour.DEAD: ("nobody listens on its port", "dead letters after 8 s"),
}


def print_introduction(console: Console, receivers: Sequence[Receiver], *, events: int, folder: Path) -> None:
    """Print what the demo does, and the expected results."""
    console.print(
        f"[bold]{events} users sign out.[/] Each has a session at {len(receivers)} clients, and each client must be"
        f" notified: [bold]{events * len(receivers)} deliveries[/].\n",
        markup=True,
        highlight=False,
    )
    console.print(
        "  identity server ──event──▶ queue ──▶ worker ──signed logout token──▶ client\n", style="cyan", highlight=False
    )
    table = Grid("client", "what it does", "what to expect")
    for receiver in receivers:
        table.add_row(receiver.client_id, *STORY_BY_BEHAVIOUR[receiver.kind])
    console.print(table, soft_wrap=True)
    console.print(
        "Every client verifies its tokens: signature, issuer, audience, age, none twice.\n"
        f"Queue, key and configuration are in {folder} until the end.\n",
        style="dim",
        highlight=False,
    )


def print_result(console: Console, account: DemoResult) -> None:
    """Print the result of each client, and whether every delivery is accounted for."""
    table = Grid("client", "kind", "events:", "delivered:", "attempts:", "doubled:", "median:", "dead letters")
    for row in account.rows:
        table.add_row(*_format_cells(row))
    console.print(table, soft_wrap=True)
    console.print("Median: from the sign-out to the end of the session, as the client saw it.\n", style="dim")
    _print_account(console, account)


def _format_cells(row: ClientResult) -> tuple[str, ...]:
    median = "–" if row.median is None else f"{row.median * 1000:,.0f} ms"
    numbers = (row.deliveries, row.delivered, row.attempts, row.duplicates)
    return (row.client_id, row.kind.value, *map(str, numbers), median, _format_counts(row.dead) or "–")


def _format_counts(dead: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dead.items()))


def _print_account(console: Console, account: DemoResult) -> None:
    dead = account.dead
    parts = [f"{account.delivered} delivered"]
    if dead:
        parts.append(f"{sum(dead.values())} dead letters ({_format_counts(dead)})")
    missing = len(account.unaccounted)
    if missing:
        parts.append(f"{missing} UNACCOUNTED FOR")
    end = "" if missing else ": every one is accounted for"
    style = "bold green" if account.is_complete else "bold red"
    console.print(f"{account.deliveries} deliveries = {' + '.join(parts)}{end}.", style=style, highlight=False)
    if account.invalid:
        console.print(f"{len(account.invalid)} tokens were found invalid:", style="bold red", highlight=False)
    for client_id, reason in account.invalid[:20]:
        console.print(f"  {client_id}: {reason}", highlight=False, soft_wrap=True, markup=False)
    for event_id, client_id in account.unaccounted[:20]:
        console.print(f"  event {event_id}: {client_id} neither accepted it nor is it a dead letter", highlight=False)

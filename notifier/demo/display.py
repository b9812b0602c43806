"""Shows the demo: an introduction, the progress, and the result at the end.

The progress is one line every two seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from notifier.demo.bookkeeping import ClientResult, DemoResult, DemoTally, SignOut
from notifier.demo.receivers import Behaviour, Receiver
from notifier.model.printable import counted

PROGRESS_INTERVAL_SECONDS = 2.0  # between two lines

STORY_BY_BEHAVIOUR = {
    Behaviour.HEALTHY: ("answers 204 at once", "delivered"),
    Behaviour.SLOW: ("answers 204 after a while", "delivered; nobody waits for it"),
    Behaviour.FLAKY: ("answers 503 to every other request", "delivered, after a retry or two"),
    Behaviour.REJECTING: ("answers 400 to every token", "dead letters after 4 attempts"),
    Behaviour.DEAD: ("nobody listens on its port", "dead letters after 8 s"),
}


Display = Callable[[float], None]
"""Shows the progress. The argument is the seconds since the start."""


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
    table = _make_table("client", "what it does", "what to expect")
    for receiver in receivers:
        table.add_row(receiver.client_id, *STORY_BY_BEHAVIOUR[receiver.kind])
    console.print(table)
    console.print(
        "Every client verifies its tokens: signature, issuer, audience, age, none twice.\n"
        f"Queue, key and configuration are in {folder} until the end.\n",
        style="dim",
        highlight=False,
    )


def make_display(console: Console, tally: DemoTally, receivers: Sequence[Receiver], *, events: int) -> Display:
    """Return the display for this console."""
    due = 0.0

    def tell(seconds: float) -> None:
        nonlocal due
        if seconds >= due or tally.is_settled:
            due = seconds + PROGRESS_INTERVAL_SECONDS
            console.print(_format_progress(seconds, tally, receivers, events), highlight=False, soft_wrap=True)

    return tell


def _format_progress(seconds: float, tally: DemoTally, receivers: Sequence[Receiver], events: int) -> str:
    standing = [tally.progress(receiver.client_id) for receiver in receivers]
    delivered, waiting, dead, attempts = (
        sum(getattr(receiver, name) for receiver in standing) for name in ("delivered", "waiting", "dead", "attempts")
    )
    return (
        f"{seconds:5.1f} s  {attempts} attempts: {delivered} delivered, {waiting} to be retried, {dead} dead,"
        f" of {events * len(receivers)}"
    )


def print_result(
    console: Console, account: DemoResult, sign_outs: Sequence[SignOut], receivers: Sequence[Receiver]
) -> None:
    """Print the result of each client, and whether every delivery is accounted for."""
    table = _make_table(
        "client",
        "kind",
        "events",
        "delivered",
        "attempts",
        "doubled",
        "median",
        "dead letters",
        right=5,
        last=1,
        gap=0,  # fits 80 columns
    )
    for row in account.rows:
        table.add_row(*_format_cells(row))
    console.print(table)
    console.print("Median: from the sign-out to the end of the session, as the client saw it.", style="dim")
    _print_sign_out(console, sign_outs, receivers)
    _print_account(console, account)


def _format_cells(row: ClientResult) -> tuple[str, ...]:
    median = "–" if row.median is None else f"{row.median * 1000:,.0f} ms"
    numbers = (row.deliveries, row.delivered, row.attempts, row.duplicates)
    return (row.client_id, row.kind.value, *map(str, numbers), median, _format_counts(row.dead) or "–")


def _format_counts(dead: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dead.items()))


def _print_sign_out(console: Console, sign_outs: Sequence[SignOut], receivers: Sequence[Receiver]) -> None:
    """Print the logouts of one session, to explain the numbers."""
    sign_out = sign_outs[len(sign_outs) // 2]
    ends: list[str] = []
    for receiver in receivers:
        visit = receiver.visits.get(sign_out.sid)
        if visit is not None and visit.logged_out_at is not None:
            after = visit.logged_out_at - sign_out.at
            ends.append(f"at {receiver.client_id} after {after * 1000:,.0f} ms ({counted(visit.posts, 'request')})")
        else:
            ends.append(f"not at {receiver.client_id}")
    console.print(f"Session {sign_out.sid} ended {', '.join(ends)}.\n", highlight=False)


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


def _make_table(*columns: str, right: int = 0, last: int = 0, gap: int = 1) -> Table:
    """Return a table with `right` columns of numbers before the `last` columns."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), caption_justify="left")
    until = len(columns) - last
    for index, name in enumerate(columns):
        number = until - right <= index < until
        table.add_column(name, justify="right" if number else "left", no_wrap=number)
    return table

"""The story of `notifier demo`: users sign out of five sample clients, and each delivery is followed to its end.

The demo runs the real service with a configuration in a temporary folder, and checks it from outside: by the clients'
records and the dead letters. `StartService` starts the service, so that this module needs neither queue nor worker.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml
from rich.console import Console

from notifier.delivery.facts import Observer
from notifier.demo.bookkeeping import ClientResult, DemoResult, DemoTally, SignOut, build_result
from notifier.demo.receivers import LOOPBACK, Behaviour, Receiver, sample_receivers
from notifier.model.client import Algorithm
from notifier.model.documents.dead_letter import DeadLetter
from notifier.operators.terminal.screen import Grid
from notifier.tokens.key_files import KeySource, generate_key, load_keys

ISS = "https://id.example.com"
POLL_SECONDS = 0.1  # between two checks
PROGRESS_INTERVAL_SECONDS = 2.0  # between two lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The pace of the demo: number and interval of sign-outs, the slow client's response time, and the time limit.

    All deliveries are settled after about 12 s: 4 s of sign-outs, and 8 s of retries of the dead client's last one.
    """

    events: int = 40
    interval_seconds: float = 0.1
    slow_answer_seconds: float = 0.6
    max_seconds: float = 25.0


class RunningService(Protocol):
    """The part of a running service that the story uses."""

    async def publish(self, event: Mapping[str, object]) -> None:
        """Publish this event."""

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """Return the dead letters, and leave them in the queue."""


StartService = Callable[[Path, Observer], AbstractAsyncContextManager[RunningService]]
"""Runs the service with a configuration file while entered, and passes its facts to the observer."""


async def play_story(start: StartService, console: Console, pace: Pace | None = None) -> int:
    """Run the demo. Return the exit status: 0 if every delivery has a result and every token was valid, otherwise 1."""
    pace = pace or Pace()
    with tempfile.TemporaryDirectory(prefix="notifier-demo-") as name:
        folder = Path(name)
        jwks = write_key(folder)
        async with sample_receivers(iss=ISS, jwks=jwks, clock=time.time, pause=pace.slow_answer_seconds) as sample:
            receivers = tuple(sample.values())
            for receiver in receivers:
                receiver.sessions.update(_sid(number) for number in range(pace.events))
            config = write_configuration(folder, sample, {"museum": "8s"})
            print_introduction(console, receivers, events=pace.events, folder=folder)
            tally = DemoTally(pace.events * len(receivers))
            async with start(config, tally) as service:
                sign_outs = await _play_sign_outs(service, console, tally, receivers, pace)
                result = build_result(sign_outs, receivers, await service.dead_letters(), tally)
            print_result(console, result)
    return 0 if result.is_complete else 1


async def _play_sign_outs(
    service: RunningService, console: Console, tally: DemoTally, receivers: Sequence[Receiver], pace: Pace
) -> list[SignOut]:
    """Sign the users out one by one, then wait until all deliveries are settled. All this takes `max_seconds` at most.

    Return the sign-outs. The progress is printed regularly.
    """
    clients = [receiver.client_id for receiver in receivers]
    sign_outs: list[SignOut] = []
    started_at = time.monotonic()
    next_progress = 0.0

    def print_progress() -> None:
        nonlocal next_progress
        seconds = time.monotonic() - started_at
        if seconds >= next_progress or tally.is_settled:
            next_progress = seconds + PROGRESS_INTERVAL_SECONDS
            console.print(f"{seconds:5.1f} s  {tally.summary()}", highlight=False)

    for number in range(pace.events):
        sign_out = SignOut(event_id=f"sign-out-{number:02}", sid=_sid(number), at=time.time())
        sign_outs.append(sign_out)
        await service.publish(event_of(sign_out, f"user-{number:02}", clients))
        print_progress()
        await asyncio.sleep(pace.interval_seconds)
    while not tally.is_settled and time.monotonic() - started_at < pace.max_seconds:
        print_progress()
        await asyncio.sleep(POLL_SECONDS)
    print_progress()
    return sign_outs


def event_of(sign_out: SignOut, sub: str, clients: Sequence[str]) -> Mapping[str, object]:
    """Return the event that the identity server publishes for a sign-out."""
    return {
        "id": sign_out.event_id,
        "iss": ISS,
        "sub": sub,
        "sid": sign_out.sid,
        "clients": list(clients),
        "ended_at": datetime.fromtimestamp(sign_out.at, UTC).isoformat(),
        "reason": "user_logout",
    }


def _sid(number: int) -> str:
    return f"s-{number:02}"


# ── the configuration ───────────────────────────────────────────────────────────────────────────────────────────


def write_key(folder: Path) -> Mapping[str, Any]:
    """Write the issuer's signing key to this folder. Return the JWK Set that the issuer publishes."""
    path = folder / "key.pem"
    path.touch(mode=0o600)
    path.write_bytes(generate_key(Algorithm.RS256))
    return load_keys({ISS: [KeySource(path=path)]}).jwks(ISS)


def write_configuration(
    folder: Path, receivers: Mapping[str, Receiver], max_ages: Mapping[str, str], **settings: object
) -> Path:
    """Write the clients and a configuration with short retry delays. Return the path of the main file.

    `max_ages`: how long logouts are tried, by client; the default for the others. `settings` replace sections.
    """
    sections: dict[str, object] = {
        "queue": {"url": "sqlite:notifier.db"},
        "ops": {"listen": f"{LOOPBACK}:0"},
        "issuers": {ISS: {"keys": [{"file": "key.pem"}]}},
        "delivery": {"retry": {"base": "1s", "max_delay": "2s"}},
        "egress": {"allow": ["127.0.0.0/8"], "allow_http": True},  # the sample clients are on this machine
        "registry": {"file": "clients.yaml"},
        "log": {"level": "error"},
    }
    path = folder / "notifier.yaml"
    path.write_text(yaml.safe_dump(sections | settings, sort_keys=False))
    clients = [
        {"client_id": name, "issuer": ISS, "backchannel_logout_uri": receiver.backchannel_logout_uri}
        | ({"notifier": {"max_age": max_ages[name]}} if name in max_ages else {})
        for name, receiver in receivers.items()
    ]
    (folder / "clients.yaml").write_text(yaml.safe_dump(clients, sort_keys=False))
    return path


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

"""The story that `notifier demo` plays: users sign out of five sample clients; each delivery is followed to its end.

It runs the real service on a configuration written into a temporary folder, and judges it from outside: by what the
clients saw and by the dead letters in the queue. The service is asked for through `Start`, so that this file knows
neither queue nor worker.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml
from rich.console import Console

from notifier.adapters.keys import KeySource, generate_key, load_keys
from notifier.demo.account import SignOut, Tally, settle_account
from notifier.demo.receivers import Kind, Receiver, SampleReceivers
from notifier.demo.screen import conclude, display, introduce
from notifier.domain.client import Algorithm
from notifier.domain.dead_letter import DeadLetter
from notifier.pipeline.facts import Observer

ISS = "https://id.example.com"
EVENTS = 40
LIMIT = 27.0  # seconds until whatever is not settled counts as unaccounted for
TICK = 0.1  # seconds between two looks at the progress


class Service(Protocol):
    """What the story needs of a running service."""

    async def publish(self, events: Sequence[Mapping[str, object]]) -> None:
        """Make these *session ended* events durable in the queue."""

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """The dead letters in the queue, none taken away."""


Start = Callable[[Path, Observer], AbstractAsyncContextManager[Service]]
"""Runs the service by a configuration file, its facts going to the observer, for as long as the block lasts."""


async def play(
    start: Start, console: Console, *, events: int = EVENTS, limit: float = LIMIT, pause: float = 0.6
) -> int:
    """Play it; the exit status is 0 if every delivery is accounted for and every token was valid, else 1."""
    with tempfile.TemporaryDirectory(prefix="notifier-demo-") as name:
        folder = Path(name)
        jwks = write_key(folder)
        async with SampleReceivers(iss=ISS, jwks=jwks, clock=time.time, pause=pause) as sample:
            receivers = tuple(sample.by_client_id.values())
            sample.sign_in([_sid(number) for number in range(events)])
            config = write_configuration(folder, receivers)
            introduce(console, receivers, events=events, folder=folder)
            tally = Tally(events * len(receivers))
            async with start(config, tally) as service:
                sign_outs = await _sign_out(service, receivers, events)
                await _follow(console, tally, receivers, events=events, limit=limit)
                account = settle_account(sign_outs, receivers, await service.dead_letters(), tally)
            conclude(console, account, sign_outs, receivers)
    return 0 if account.holds else 1


async def _sign_out(service: Service, receivers: Sequence[Receiver], events: int) -> list[SignOut]:
    clients = [receiver.client_id for receiver in receivers]
    now = time.time()
    sign_outs = [SignOut(event_id=f"sign-out-{number:02}", sid=_sid(number), at=now) for number in range(events)]
    await service.publish(
        [
            {
                "id": sign_out.event_id,
                "iss": ISS,
                "sub": f"user-{number:02}",
                "sid": sign_out.sid,
                "clients": clients,
                "ended_at": datetime.fromtimestamp(sign_out.at, UTC).isoformat(),
                "reason": "user_logout",
            }
            for number, sign_out in enumerate(sign_outs)
        ]
    )
    return sign_outs


async def _follow(console: Console, tally: Tally, receivers: Sequence[Receiver], *, events: int, limit: float) -> None:
    """Show how it goes until all is settled or the limit is reached."""
    started = time.monotonic()
    with display(console, tally, receivers, events=events) as screen:
        while True:
            passed = time.monotonic() - started
            screen.show(passed)
            if tally.settled or passed > limit:
                return
            await asyncio.sleep(TICK)


def _sid(number: int) -> str:
    return f"s-{number:02}"


# ── the configuration ───────────────────────────────────────────────────────────────────────────────────────────


def write_key(folder: Path) -> Mapping[str, Any]:
    """Make the issuer's signing key in this folder; returns the JWK Set that the issuer would publish."""
    path = folder / "key.pem"
    path.touch(mode=0o600)
    path.write_bytes(generate_key(Algorithm.RS256))
    return load_keys({ISS: [KeySource(path=path)]}).jwks(ISS)


def write_configuration(folder: Path, receivers: Sequence[Receiver]) -> Path:
    """Write what `notifier run` would be given, with waits short enough to watch; returns the path of the main file."""
    path = folder / "notifier.yaml"
    path.write_text(yaml.safe_dump(_settings(), sort_keys=False))
    (folder / "clients.yaml").write_text(yaml.safe_dump([_registration(one) for one in receivers], sort_keys=False))
    return path


def _settings() -> Mapping[str, object]:
    return {
        "queue": {"url": "sqlite:notifier.db"},
        "ops": {"listen": "127.0.0.1:0"},
        "issuers": {ISS: {"keys": [{"file": "key.pem"}]}},
        "delivery": {
            "retry": {"base": "1s", "factor": 2, "max_delay": "2s"},
            # Circuits stay closed, so that every delivery is seen to live through attempts of its own.
            "circuit": {"failures": 100_000, "failure_rate": 1.0},
        },
        "egress": {"allow": ["127.0.0.0/8"], "allow_http": True},  # the sample clients are on this machine
        "registry": {"file": "clients.yaml"},
        "log": {"level": "error"},
    }


def _registration(receiver: Receiver) -> Mapping[str, object]:
    registration: dict[str, object] = {
        "client_id": receiver.client_id,
        "issuer": ISS,
        "backchannel_logout_uri": receiver.backchannel_logout_uri,
    }
    if receiver.kind is Kind.DEAD:
        registration["notifier"] = {"max_age": "8s"}
    return registration

"""A queue to publish to, and the events that it received."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aio_pika
from logout_notifier_publisher import PublisherSettings, SessionEnded

from publishers.tests.tap import Tap, tap

ISSUER = "https://id.example.com"
PATIENCE = 60.0


class Queue:
    """Two exchanges, and every event that came to them, in order."""

    def __init__(self, prefix: str, came: Tap) -> None:
        self.prefix = prefix
        self.came = came

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the events, oldest first."""
        return [dict(each.event) for each in self.came.seen]

    @property
    def ids(self) -> list[str]:
        """Of the events."""
        return [each.id for each in self.came.seen]

    async def until(self, count: int) -> None:
        """Wait until so many different events have come."""
        await until(lambda: len(set(self.ids)) >= count, lambda: f"{len(set(self.ids))} of {count} came")


async def until(
    good: Callable[[], object], found: Callable[[], object] = lambda: "", patience: float = PATIENCE
) -> None:
    """Wait for what can be seen."""
    give_up = time.monotonic() + patience
    while not good():
        assert time.monotonic() < give_up, found()
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def queue_at(url: str, prefix: str) -> AsyncIterator[Queue]:
    """Exchanges that a tap listens at. They stay where the broker stays, and go at the end."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        made = [
            await channel.declare_exchange(f"{prefix}.{lane}", aio_pika.ExchangeType.TOPIC, durable=True)
            for lane in ("events", "bulk")
        ]
        async with tap(url, prefix) as came:
            yield Queue(prefix, came)
        for exchange in made:
            await exchange.delete()


def settings(url: str, outbox: Path, prefix: str = "notifier", **more: Any) -> PublisherSettings:
    """Of a publisher on this broker."""
    return PublisherSettings(
        url=url, outbox=outbox, exchange=f"{prefix}.events", bulk_exchange=f"{prefix}.bulk", **more
    )


def ended(sid: str = "s1", **more: Any) -> SessionEnded:
    """A session of a user's."""
    return SessionEnded(**{"iss": ISSUER, "sub": "secret-user", "sid": sid, "clients": ["shop"], **more})


def files(outbox: Path, suffix: str = "") -> list[Path]:
    """Return the files in the outbox's folders, oldest first."""
    return sorted(path for path in outbox.glob(f"*/*{suffix}") if path.name != "lock")

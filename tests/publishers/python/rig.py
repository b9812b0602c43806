"""A queue to publish to, and what has come of it there."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiormq
import aiormq.abc
from aiormq.abc import DeliveredMessage
from pamqp import commands

from notifier.publisher import PublisherSettings, SessionEnded

ISSUER = "https://id.example.com"
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Came:
    """A message."""

    exchange: str
    routing_key: str
    properties: commands.Basic.Properties
    body: bytes


class Queue:
    """Classic queues bound to two exchanges, and every message that came, in order."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.messages: list[Came] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came, first to last."""
        return [json.loads(message.body) for message in self.messages]

    @property
    def ids(self) -> list[str]:
        """Of the events."""
        return [event["id"] for event in self.events]

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
    """Exchanges with a queue each. They stay where the broker stays, and go at the end."""
    queue = Queue(prefix)
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        for lane in ("events", "bulk"):
            await channel.exchange_declare(f"{prefix}.{lane}", exchange_type="topic", durable=True)
            await channel.queue_declare(f"{prefix}.{lane}", durable=True)
            await channel.queue_bind(f"{prefix}.{lane}", f"{prefix}.{lane}", "#")

        async def came(message: DeliveredMessage) -> None:
            to, properties = message.delivery, message.header.properties
            assert isinstance(to, commands.Basic.Deliver)
            queue.messages.append(Came(to.exchange, to.routing_key or "", properties, message.body))
            if message.delivery_tag is not None:
                await message.channel.basic_ack(message.delivery_tag)

        for lane in ("events", "bulk"):
            await channel.basic_consume(f"{prefix}.{lane}", came)
        yield queue
        for lane in ("events", "bulk"):
            await channel.queue_delete(f"{prefix}.{lane}")
            await channel.exchange_delete(f"{prefix}.{lane}")
    finally:
        await connection.close()


def settings(url: str, outbox: Path, prefix: str = "notifier", **more: Any) -> PublisherSettings:
    """Of a publisher on this broker."""
    return PublisherSettings(
        url=url, outbox=outbox, exchange=f"{prefix}.events", bulk_exchange=f"{prefix}.bulk", **more
    )


def ended(sid: str = "s1", **more: Any) -> SessionEnded:
    """A session of a user's."""
    return SessionEnded(**{"iss": ISSUER, "sub": "secret-user", "sid": sid, "clients": ["shop"], **more})


def files(outbox: Path, ending: str = "") -> list[Path]:
    """What lies in the outbox's folders, oldest first."""
    return sorted(path for path in outbox.glob(f"*/*{ending}") if path.name != "lock")

"""A queue of its own on the exchanges that the plug-in publishes to: every event as it came, in order."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.system.waiting import PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One message: its lane, the event, and the properties that a publisher owes to the broker."""

    lane: str
    event: Mapping[str, Any]
    properties: Mapping[str, Any]

    @property
    def sid(self) -> str:
        """The session that it is about."""
        return str(self.event["sid"])

    @property
    def clients(self) -> frozenset[str]:
        """The names of those that must be told."""
        return frozenset(each if isinstance(each, str) else each["client_id"] for each in self.event["clients"])


class Tap:
    """What has come so far. Made by `tap`."""

    def __init__(self) -> None:
        self.seen: list[Published] = []
        self._changed = asyncio.Condition()

    def of(self, *sids: str) -> list[Published]:
        """Those about these sessions."""
        return [each for each in self.seen if each.sid in sids]

    async def until(self, condition: Callable[[Sequence[Published]], bool], patience: float = PATIENCE) -> None:
        """Return once the condition holds for what has come."""
        try:
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(lambda: condition(self.seen))
        except TimeoutError:
            told = [(each.lane, each.sid, sorted(each.clients)) for each in self.seen[-10:]]
            raise AssertionError(f"waited {patience} s in vain; the last of {len(self.seen)} events: {told}") from None

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Keep one."""
        properties = {
            "message_id": message.message_id,
            "user_id": message.user_id,
            "content_type": message.content_type,
            "delivery_mode": message.delivery_mode,
            "routing_key": message.routing_key,
        }
        lane = (message.exchange or "").rpartition(".")[2]
        async with self._changed:
            self.seen.append(Published(lane=lane, event=json.loads(message.body), properties=properties))
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def tap(url: str, prefix: str) -> AsyncIterator[Tap]:
    """Listen at both exchanges of this prefix."""
    made = Tap()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        for lane in ("events", "bulk"):
            await queue.bind(await channel.get_exchange(f"{prefix}.{lane}", ensure=False), "#")
        await queue.consume(made.take, no_ack=True)
        yield made

"""A queue of its own on the exchanges that a publisher writes to: every event as it came, in order.

What has not come is lost only if the tap itself is whole: `TapBroken` says that it is not.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aio_pika
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError

from tests.system.waiting import PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One message: its lane, the event, and the properties that a publisher owes to the broker."""

    lane: str
    event: Mapping[str, Any]
    properties: Mapping[str, Any]

    @classmethod
    def read(cls, message: AbstractIncomingMessage) -> Self:
        """As it lay in a queue."""
        owed = {name: getattr(message, name) for name in properties("", "")}
        lane = (message.exchange or "").rpartition(".")[2]
        return cls(lane=lane, event=json.loads(message.body), properties=owed)

    @property
    def id(self) -> str:
        """The event's own."""
        return str(self.event.get("id", ""))

    @property
    def sid(self) -> str:
        """The session that it is about."""
        return str(self.event["sid"])

    @property
    def clients(self) -> frozenset[str]:
        """The names of those that must be told."""
        return frozenset(each if isinstance(each, str) else each["client_id"] for each in self.event["clients"])


def properties(event_id: str, user: str | None) -> Mapping[str, Any]:
    """Those that docs/publishing.md asks for."""
    return {
        "message_id": event_id, "user_id": user, "content_type": "application/json", "delivery_mode": 2,
        "routing_key": "session.ended",
    }  # fmt: skip


class TapBroken(Exception):  # noqa: N818  the text says what is broken
    """The tap has failed: what has come says nothing of the publisher."""


class Tap:
    """What has come so far. Made by `tap`."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue) -> None:
        self.seen: list[Published] = []
        self._channel = channel
        self._queue = queue
        self._marks: set[str] = set()
        self._broken = ""
        self._changed = asyncio.Condition()

    def of(self, *whom: str) -> list[Published]:
        """Those about these sessions, or users."""
        return [each for each in self.seen if {each.event.get("sid"), each.event.get("sub")} & {*whom}]

    @property
    def subs(self) -> set[str]:
        """The users that an event is about."""
        return {each.event["sub"] for each in self.seen}

    @property
    def ids(self) -> set[str]:
        """Of all events."""
        return {each.event["id"] for each in self.seen}

    async def until_of(self, whom: str, count: int = 1) -> list[Published]:
        """The events about a session or a user, once there are so many."""
        await self.until(lambda _: len(self.of(whom)) >= count)
        return self.of(whom)

    async def until(self, condition: Callable[[Sequence[Published]], bool], patience: float = PATIENCE) -> None:
        """Return once the condition holds for what has come."""
        try:
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(lambda: self._broken or condition(self.seen))
            self._hold()
        except TimeoutError:
            await self.catch_up()
            told = [
                (each.lane, each.event.get("sid", each.event.get("sub")), sorted(each.clients))
                for each in self.seen[-10:]
            ]
            raise AssertionError(f"waited {patience} s in vain; the last of {len(self.seen)} events: {told}") from None

    async def catch_up(self, patience: float = PATIENCE) -> None:
        """Return once all has come that the broker has given to the queue so far. Raises TapBroken if it does not come.

        A message of ours goes into the same queue, behind it.
        """
        self._hold()
        mark = secrets.token_hex(8)
        try:
            async with asyncio.timeout(patience):
                await self._channel.default_exchange.publish(Message(b"", message_id=mark), self._queue.name)
                async with self._changed:
                    await self._changed.wait_for(lambda: self._broken or mark in self._marks)
        except (TimeoutError, AMQPError) as error:
            raise TapBroken(f"a message to its queue does not come back: {error!r}") from None
        self._hold()

    def _hold(self) -> None:
        if self._broken:
            raise TapBroken(self._broken)

    async def break_off(self, _sender: object, reason: BaseException | None = None) -> None:
        """The connection or the channel has been closed, and the queue is gone with what was in it."""
        async with self._changed:
            self._broken = f"its connection ended: {reason!r}"
            self._changed.notify_all()

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Keep one."""
        if not message.exchange:
            async with self._changed:
                self._marks.add(message.message_id or "")
                self._changed.notify_all()
            return
        async with self._changed:
            self.seen.append(Published.read(message))
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def tap(url: str, prefix: str) -> AsyncIterator[Tap]:
    """Listen at both exchanges of this prefix."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        made = Tap(channel, queue)
        for each in (connection, channel):
            each.close_callbacks.add(made.break_off)
        for lane in ("events", "bulk"):
            await queue.bind(await channel.get_exchange(f"{prefix}.{lane}", ensure=False), "#")
        await queue.consume(made.take, no_ack=True)
        yield made

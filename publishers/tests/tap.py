"""A separate queue on the exchanges that a publisher writes to: every event as it was published, in order."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.system.waiting import PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One message: its lane, the event, the properties that a publisher owes to the broker, and its bytes."""

    lane: str
    event: Mapping[str, Any]
    properties: Mapping[str, Any]
    size: int = 0

    @classmethod
    def read(cls, message: AbstractIncomingMessage) -> Self:
        """As it lay in a queue."""
        owed = {name: getattr(message, name) for name in properties("", "")}
        lane = (message.exchange or "").rpartition(".")[2]
        return cls(lane=lane, event=json.loads(message.body), properties=owed, size=len(message.body))

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
        """Return the names of the clients to notify."""
        return frozenset(each if isinstance(each, str) else each["client_id"] for each in self.event["clients"])


def properties(event_id: str, user: str | None) -> Mapping[str, Any]:
    """Those that docs/publishing.md asks for."""
    return {
        "message_id": event_id, "user_id": user, "content_type": "application/json", "delivery_mode": 2,
        "routing_key": "session.ended",
    }  # fmt: skip


class Tap:
    """The events so far. Made by `tap`."""

    def __init__(self) -> None:
        self.seen: list[Published] = []
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
        """Return once the condition holds for the events so far."""
        try:
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(lambda: self._broken or condition(self.seen))
            assert not self._broken, f"the tap itself is broken: {self._broken}"
        except TimeoutError:
            last = [
                (each.lane, each.event.get("sid", each.event.get("sub")), sorted(each.clients))
                for each in self.seen[-10:]
            ]
            raise AssertionError(f"not within {patience} s; the last of {len(self.seen)} events: {last}") from None

    async def break_off(self, _sender: object, reason: BaseException | None = None) -> None:
        """Note that the connection or the channel was closed, which deleted the queue with its content."""
        async with self._changed:
            self._broken = f"its connection ended: {reason!r}"
            self._changed.notify_all()

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Keep one."""
        async with self._changed:
            self.seen.append(Published.read(message))
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def tap(url: str, prefix: str) -> AsyncIterator[Tap]:
    """Listen at both exchanges of this prefix."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        made = Tap()
        for each in (connection, channel):
            each.close_callbacks.add(made.break_off)
        for lane in ("events", "bulk"):
            await queue.bind(await channel.get_exchange(f"{prefix}.{lane}", ensure=False), "#")
        await queue.consume(made.take, no_ack=True)
        yield made

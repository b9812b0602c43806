"""What reaches notifier's exchanges: every event with its properties, in order, as its worker would get it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.system.waiting import PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One message."""

    event: Mapping[str, Any]
    message: AbstractIncomingMessage

    @property
    def bulk(self) -> bool:
        """Whether it came on the lane of mass logouts."""
        return str(self.message.exchange).endswith(".bulk")

    @property
    def clients(self) -> Mapping[str, Mapping[str, Any]]:
        """The entries, by `client_id`."""
        return {each["client_id"]: each for each in self.event["clients"]}


class Events:
    """What came so far."""

    def __init__(self) -> None:
        self.all: list[Published] = []
        self._changed = asyncio.Condition()

    def of(self, sub: str) -> list[Published]:
        """Those of one user."""
        return [each for each in self.all if each.event.get("sub") == sub]

    @property
    def ids(self) -> set[str]:
        """Those of all."""
        return {each.event["id"] for each in self.all}

    @property
    def subs(self) -> set[str]:
        """The users that an event is about."""
        return {each.event["sub"] for each in self.all}

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Return once the condition holds. It is looked at after each event."""
        try:
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            came = [(each.event["sub"], each.event["reason"], each.event["id"][:6]) for each in self.all]
            raise AssertionError(f"waited {patience} s in vain; so far came {came[-30:]}") from None

    async def until_of(self, sub: str, count: int = 1, patience: float = PATIENCE) -> list[Published]:
        """The events of one user, once there are so many."""
        await self.until(lambda: len(self.of(sub)) >= count, patience)
        return self.of(sub)

    async def add(self, message: AbstractIncomingMessage) -> None:
        """One that came."""
        async with self._changed:
            self.all.append(Published(event=json.loads(message.body), message=message))
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def listening(url: str, prefix: str) -> AsyncIterator[Events]:
    """A queue of our own at both exchanges, besides notifier's."""
    events = Events()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        for lane in ("events", "bulk"):
            await queue.bind(f"{prefix}.{lane}", "#")
        await queue.consume(events.add, no_ack=True)
        yield events

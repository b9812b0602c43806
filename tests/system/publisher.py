"""An identity server that never gives up: numbered events at a pace, each sent again until it is confirmed.

Plain aio-pika. It finds another host, or the same one again, whenever its connection is lost or silent for too long.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange

from tests.system.site import ISSUER

CONFIRM_WITHIN = 5.0  # seconds
IN_FLIGHT = 50


class Publisher:
    """`confirmed`: the clients of every event that the broker has, by event id; `resent`: those sent more than once."""

    again = 0.1  # seconds

    def __init__(
        self, urls: str | Sequence[str], prefix: str, clients: Sequence[str], *, exchange: str = "events"
    ) -> None:
        self.confirmed: dict[str, Sequence[str]] = {}
        self.resent: set[str] = set()
        self._urls = [urls] if isinstance(urls, str) else list(urls)
        self._exchange_name = f"{prefix}.{exchange}"
        self._clients = clients
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._connecting = asyncio.Lock()
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)

    def event(self, number: int) -> Mapping[str, Any]:
        """One session of one user; its id, where it has one, is the session's."""
        return {"id": str(number), "iss": ISSUER, "sub": "alice", "sid": str(number), "clients": list(self._clients)}

    async def publish(self, numbers: Iterable[int], *, rate: float) -> None:
        """Publish so many events a second, as far as the broker accepts them; return once all are confirmed."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for count, number in enumerate(numbers):
                await asyncio.sleep(start + count / rate - loop.time())
                await self._in_flight.acquire()
                group.create_task(self._insist(number))

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._connection.close(), 2)

    async def _insist(self, number: int) -> None:
        try:
            event = self.event(number)
            while not await self._try(json.dumps(event).encode()):
                self.resent.add(str(event["sid"]))
                await asyncio.sleep(self.again)
            self.confirmed[str(event["sid"])] = event["clients"]
        finally:
            self._in_flight.release()

    async def _try(self, body: bytes) -> bool:
        """Return whether it was confirmed. Runs in a separate task: aiormq may cancel callers on a lost connection."""
        exchange = await self._connected()
        message = aio_pika.Message(
            body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        sending = asyncio.ensure_future(exchange.publish(message, "session.ended"))
        await asyncio.wait({sending}, timeout=CONFIRM_WITHIN)
        if sending.done() and not sending.cancelled() and sending.exception() is None:
            return True
        sending.cancel()
        await self._abandon(exchange)
        return False

    async def _abandon(self, exchange: AbstractExchange) -> None:
        """Give up this connection. Another is made whether or not it closes."""
        if self._exchange is exchange:
            connection, self._connection, self._exchange = self._connection, None, None
            if connection is not None:
                closing = asyncio.ensure_future(connection.close())
                closing.add_done_callback(lambda done: done.cancelled() or done.exception())
                await asyncio.wait({closing}, timeout=1)
                closing.cancel()

    async def _connected(self) -> AbstractExchange:
        async with self._connecting:
            while self._exchange is None:
                for url in self._urls:
                    connecting = asyncio.ensure_future(self._connect(url))
                    await asyncio.wait({connecting}, timeout=5)
                    if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                        self._connection, self._exchange = connecting.result()
                        break
                    connecting.cancel()
                    await asyncio.sleep(0.2)
            return self._exchange

    async def _connect(self, url: str) -> tuple[AbstractConnection, AbstractExchange]:
        connection = await aio_pika.connect(url)
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        return connection, await channel.get_exchange(self._exchange_name, ensure=False)

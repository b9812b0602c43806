"""An identity server that misses most confirms: it disconnects right after sending, and sends each event twice.

The copy follows up to `COPY_WITHIN` seconds after the missed confirm, so that it meets its event at every
stage: pending, in flight, delivered, waiting for a retry, and during the retry.
"""

import asyncio
import json
import random
from collections.abc import Sequence

import aio_pika

from tests.system.publisher import IN_FLIGHT, Publisher

COPY_WITHIN = 2.0  # seconds; a retry comes after one
HANG_UP = 40  # one event in so many


class ForgetfulPublisher(Publisher):
    """See the module. `hung_up` counts the connections that it closed in the face of a confirm, `repeated` the events
    that had to be sent once more since they were under way there."""

    def __init__(self, urls: str | Sequence[str], prefix: str, clients: Sequence[str], chance: random.Random) -> None:
        super().__init__(urls, prefix, clients)
        self.hung_up = self.repeated = 0
        self._chance = chance
        # Those that wait for their second time are in flight too.
        self._in_flight = asyncio.Semaphore(20 * IN_FLIGHT)

    async def _insist(self, number: int) -> None:
        try:
            event = self.event(number)
            body = json.dumps(event).encode()
            self.resent.add(str(event["id"]))
            if self._chance.randrange(HANG_UP) == 0:
                await self._send_and_hang_up(body)
            for wait in (0.0, self._chance.uniform(0, COPY_WITHIN)):
                await asyncio.sleep(wait)
                while not await self._try(body):
                    self.repeated += 1
                self.confirmed[str(event["id"])] = self._clients
        finally:
            self._in_flight.release()

    async def _send_and_hang_up(self, body: bytes) -> None:
        """The broker gets it, and its confirm finds nobody; nor do those of everything else that is under way."""
        exchange = await self._connected()
        message = aio_pika.Message(
            body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        sending = asyncio.ensure_future(exchange.publish(message, "session.ended"))
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)  # it is on its way to the socket, before the close that follows
        self.hung_up += 1
        await self._abandon(exchange)

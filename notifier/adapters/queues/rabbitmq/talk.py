"""What workers say beside the logouts: replies to publishers who asked, and answers to who asks how the workers stand.

It has a channel of its own on the publishing connection, and no word of it is worth a logout: nothing is confirmed,
nothing waited for, and what finds the outbox full or the broker blocking is dropped and counted. Whatever goes wrong
closes that channel alone, which is opened again; no error leaves `serve`. What goes to a name that a publisher gave
goes by a connection that stands for as long as there is any (`outside`).

Each worker has an exclusive queue, bound to a fanout exchange that goes with the last of them. Where its user may not
declare them (`topology: verify`), it replies to publishers and does not answer.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiormq
import aiormq.abc
import structlog
from aiormq.exceptions import AMQPError, ChannelAccessRefused
from pamqp import commands

from notifier.adapters.queues.rabbitmq.connection import (
    Connection,
    close_channel,
    ending,
    named_losses,
    open_channel,
    reason_of,
)
from notifier.adapters.queues.rabbitmq.options import RabbitOptions
from notifier.adapters.queues.rabbitmq.outbox import MOST, TRANSIENT, Outbox
from notifier.adapters.queues.rabbitmq.outside import Outside
from notifier.adapters.queues.rabbitmq.wire.publish import DIRECT
from notifier.domain.errors import QueueUnavailable
from notifier.domain.reply import asked_by_publisher

QUESTION = "notifier.question"  # the AMQP `type` of one who asks how the workers stand
MADE_UP = "amq."  # how names begin that the broker makes up, and that a publisher may have made up
RPC_TIMEOUT = 10.0
AGAIN = 5.0  # seconds until a channel that was closed is opened anew
UNREAD = 30_000  # milliseconds; who asked has gone by then
_TROUBLE = (AMQPError, OSError, RuntimeError, QueueUnavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who speaks for this worker. Both must return at once and never raise.

    `answer` tells how it stands; `heard` is given the replies that come to it, by their correlation ids.
    """

    answer: Callable[[], bytes]
    heard: Callable[[str, bytes], None]


class Talk:
    """Replies to publishers, and answers to whoever asks how the workers stand.

    Without a listener it does nothing.
    """

    def __init__(self, options: RabbitOptions, name: str) -> None:
        self._exchange = f"{options.prefix}.workers"
        self.address = f"{options.prefix}.worker.{name}"
        self._outside = Outside(options)
        self._listener: Listener | None = None
        self._connection: Connection | None = None
        self._outbox = Outbox()
        self._cancelled = asyncio.Event()  # the broker took our queue away
        self._allowed = True
        self._told = ""
        self._log = structlog.get_logger(__name__)

    @property
    def listens(self) -> bool:
        """Whether there is anybody to speak for."""
        return self._listener is not None

    def listen(self, listener: Listener) -> None:
        """From the next connection on."""
        self._listener = listener

    @property
    def dropped(self) -> int:
        """How many replies and answers were lost here."""
        return self._outbox.dropped + self._outside.outbox.dropped

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Best effort. Never waits, never raises."""
        if to.startswith(MADE_UP):
            self._outside.outbox.put(to, correlation_id, body)
        elif self._connection is None:
            self._outbox.dropped += 1
        else:
            self._outbox.put(to, correlation_id, body)

    async def run(self) -> None:
        """Reply to publishers, until cancelled."""
        await self._outside.run()

    async def serve(self, connection: Connection) -> None:
        """Until cancelled."""
        if self._listener is None:
            return
        while not ending():
            try:
                await self._hold(connection, self._listener)
            except _TROUBLE as trouble:
                if isinstance(trouble, ChannelAccessRefused):
                    self._allowed = False
                if self._told != (told := reason_of(trouble)):  # not the same line again and again
                    self._told = told
                    self._log.info("workers_not_asked", reason=told)
            finally:
                self._connection = None
                self._outbox.clear()
            await asyncio.sleep(AGAIN)

    async def _hold(self, connection: Connection, listener: Listener) -> None:
        """Speak and listen on one channel until it is closed."""
        channel = await open_channel(connection)
        try:
            if self._allowed:
                await self._bind(channel, listener)
            self._connection, self._told = connection, ""
            self._log.debug("replying", answering=self._allowed)
            writing = asyncio.ensure_future(self._outbox.write(channel, connection))
            cancelled = asyncio.ensure_future(self._cancelled.wait())
            closing = channel.closing
            try:
                await asyncio.wait({closing, writing, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                closing.cancel()
                cancelled.cancel()
                writing.cancel()
                await asyncio.wait({writing})
                writing.cancelled() or writing.exception()  # looked at, or asyncio complains
        finally:
            await close_channel(channel)

    async def _bind(self, channel: aiormq.Channel, listener: Listener) -> None:
        async def on_message(delivered: aiormq.abc.DeliveredMessage) -> None:
            self._hear(delivered, listener)

        self._cancelled.clear()
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())
        with named_losses():
            async with asyncio.timeout(RPC_TIMEOUT):
                await channel.exchange_declare(self._exchange, exchange_type="fanout", auto_delete=True)
                await channel.queue_declare(
                    self.address, exclusive=True, arguments={"x-message-ttl": UNREAD, "x-max-length": MOST}
                )
                await channel.queue_bind(self.address, self._exchange)
                await channel.basic_consume(self.address, on_message, no_ack=True)

    def _hear(self, delivered: aiormq.abc.DeliveredMessage, listener: Listener) -> None:
        properties = delivered.header.properties
        if properties.message_type == QUESTION:
            asked = asked_by_publisher(properties.reply_to or "", properties.correlation_id)
            if asked is not None:
                self.reply(asked.to, asked.correlation_id, listener.answer())
        elif properties.correlation_id:
            listener.heard(properties.correlation_id, delivered.body)

    async def ask(self, within: float, enough: int) -> list[bytes]:
        """The answers of all workers, this one among them, that came within so many seconds."""
        if self._connection is None:
            return []
        return await ask_workers(self._connection, self._exchange, within=within, enough=enough)


async def ask_workers(connection: Connection, exchange: str, *, within: float, enough: int) -> list[bytes]:
    """How each worker stands, in its own words: as many as answer in time, no longer than until `enough` have.

    Raises QueueUnavailable. Where no worker ever was, nobody answers.
    """
    answers: list[bytes] = []
    all_here = asyncio.Event()

    async def on_message(delivered: aiormq.abc.DeliveredMessage) -> None:
        answers.append(delivered.body)
        if len(answers) >= enough:
            all_here.set()

    channel = await open_channel(connection)
    try:
        with named_losses():
            async with asyncio.timeout(RPC_TIMEOUT):
                await channel.basic_consume(DIRECT, on_message, no_ack=True)
                properties = commands.Basic.Properties(
                    message_type=QUESTION,
                    reply_to=DIRECT,
                    delivery_mode=TRANSIENT,
                    expiration=str(round(within * 1000)),
                )
                await channel.basic_publish(b"", exchange=exchange, properties=properties)
        waiting, closing = asyncio.ensure_future(all_here.wait()), channel.closing
        try:
            # A closed channel says that there is no such exchange, and so no worker.
            await asyncio.wait({closing, waiting}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            closing.cancel()
    except (AMQPError, OSError, RuntimeError) as error:
        raise QueueUnavailable(f"cannot ask the workers: {reason_of(error)}") from error
    finally:
        await close_channel(channel)
    return answers

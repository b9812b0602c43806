"""A private RabbitMQ with notifier's queues, a publisher's account with no more rights than it needs, and faults.

The publisher is led through proxies, so that the broker can be unreachable or mute for it without a restart. A separate
consumer collects the messages.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from notifier.queues.rabbitmq.administration import declare_topology
from notifier.queues.rabbitmq.settling import Settling
from publishers.tests.tap import Published
from tests.support.certificates import authority
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode
from tests.system.tcp_proxy import Ending, TcpProxy, Way

USER = "idp"
LANES = ("events", "bulk")
_ADD_USER = """rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"{password}">>, <<"tests">>),
rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"/">>, <<"^$">>, <<"^notifier\\\\.(events|bulk)$">>,
    <<"^$">>, <<"tests">>)."""  # as in docs/publishing.md
_CHANGE_PASSWORD = 'rabbit_auth_backend_internal:change_password(<<"{user}">>, <<"{password}">>, <<"tests">>).'


class Broker:
    """See the module. Made by `broker`. `received` is everything that came, in order."""

    def __init__(self, node: RabbitmqNode, proxy: TcpProxy, folder: Path) -> None:
        self.node = node
        self.proxy = proxy
        self.folder = folder
        self.secret_file = folder / "broker-password"
        self.passwords: list[str] = []
        self.received: list[Published] = []

    @property
    def url(self) -> str:
        """Where the publisher finds it: behind the proxy."""
        return f"amqp://{USER}@127.0.0.1:{self.proxy.port}/"

    # ── what the publisher meets ──

    def go_away(self) -> None:
        """Connections are reset, new ones refused."""
        self.proxy.refuse()
        self.proxy.end(Ending.RESET)

    async def come_back(self) -> None:
        """Well again, whatever it was; connections that hung are reset."""
        self.node.thaw()
        await asyncio.sleep(0)
        if self.mute:
            self.proxy.end(Ending.RESET)
            self.mute = False
        self.proxy.flow()
        await self.proxy.accept()

    mute = False

    def go_mute(self) -> None:
        """Let the broker receive everything, and drop its answers, such as confirms."""
        self.mute = True
        self.proxy.stall(Way.DOWN)

    async def add_user(self) -> None:
        """The account of docs/publishing.md."""
        await self._eval(_ADD_USER, self._new_password())
        self.write_password()

    async def change_password(self) -> None:
        """At the broker alone: the file keeps the old one until `write_password`."""
        await self._eval(_CHANGE_PASSWORD, self._new_password())

    def write_password(self) -> None:
        """Write the newest password into the publisher's secret file, at one stroke."""
        part = self.secret_file.with_suffix(".part")
        part.write_text(f"{self.passwords[-1]}\n")
        part.chmod(0o600)
        part.replace(self.secret_file)

    def _new_password(self) -> str:
        self.passwords.append(f"pw-{secrets.token_hex(12)}")
        return self.passwords[-1]

    async def _eval(self, terms: str, password: str) -> None:
        await asyncio.to_thread(self.node.ctl, "eval", terms.format(user=USER, password=password))

    @contextlib.asynccontextmanager
    async def unbound(self, lane: str) -> AsyncIterator[None]:
        """The lane's exchange has no queue for a while."""
        async with self._administrator() as channel:
            queue = await channel.get_queue(f"notifier.{lane}", ensure=False)
            await queue.unbind(f"notifier.{lane}", "#")
            try:
                yield
            finally:
                await queue.bind(f"notifier.{lane}", "#")

    @contextlib.asynccontextmanager
    async def without_exchange(self, lane: str) -> AsyncIterator[None]:
        """The lane's exchange does not exist for a while."""
        async with self._administrator() as channel:
            await channel.exchange_delete(f"notifier.{lane}")
            try:
                yield
            finally:
                exchange = await channel.declare_exchange(f"notifier.{lane}", aio_pika.ExchangeType.TOPIC, durable=True)
                queue = await channel.get_queue(f"notifier.{lane}", ensure=False)
                await queue.bind(exchange, "#")

    @contextlib.asynccontextmanager
    async def _administrator(self) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        async with await aio_pika.connect(self.node.url) as connection:
            yield await connection.channel()

    # ── what it got ──

    @contextlib.asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        """Take everything from both queues, also after the broker was killed."""
        task = asyncio.create_task(self._collect_for_ever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _collect_for_ever(self) -> None:
        while True:
            with contextlib.suppress(aio_pika.exceptions.AMQPError, OSError, TimeoutError, RuntimeError):
                async with await aio_pika.connect(self.node.url, timeout=5) as connection:
                    channel = await connection.channel()
                    lost = asyncio.Event()
                    channel.close_callbacks.add(lambda *_, lost=lost: lost.set())
                    connection.close_callbacks.add(lambda *_, lost=lost: lost.set())
                    await channel.set_qos(prefetch_count=500)
                    for lane in LANES:
                        queue = await channel.get_queue(f"notifier.{lane}", ensure=False)
                        await queue.consume(self._take)
                    await lost.wait()
            await asyncio.sleep(0.2)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        self.received.append(Published.read(message))
        with contextlib.suppress(aio_pika.exceptions.AMQPError, aio_pika.exceptions.ChannelInvalidStateError):
            await message.ack()


class TlsDoor:
    """The same broker over TLS, with a certificate that can be changed: `show`."""

    def __init__(self, broker: Broker) -> None:
        folder = broker.folder / "tls"
        ours, theirs = authority(folder / "ours"), authority(folder / "theirs", "Another CA")
        self.ca_file = ours.ca_file
        self._contexts = {
            "right": ours.server("127.0.0.1", "localhost"),
            "wrong name": ours.server("elsewhere.example"),
            "wrong authority": theirs.server("127.0.0.1", "localhost"),
        }
        self._broker = broker
        self._server: asyncio.Server | None = None
        self._port = 0
        self._proxy: TcpProxy | None = None

    @property
    def url(self) -> str:
        """Where the publisher finds it."""
        assert self._proxy is not None
        return f"amqps://{USER}@127.0.0.1:{self._proxy.port}/"

    @property
    def attempts(self) -> int:
        """How many connections were ever made, whatever became of them."""
        assert self._proxy is not None
        return self._proxy.made

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["TlsDoor"]:
        """Open for the length of the block."""
        await self.show("right")
        try:
            async with TcpProxy("127.0.0.1", self._port) as self._proxy:
                yield self
        finally:
            self._close()

    async def show(self, which: str) -> None:
        """Show this certificate from now on. Connections end."""
        self._close()
        if self._proxy is not None:
            self._proxy.end(Ending.RESET)
        context: ssl.SSLContext = self._contexts[which]
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=context)
        self._port = self._server.sockets[0].getsockname()[1]

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._broker.proxy.port)
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def broker(node: RabbitmqNode, folder: Path) -> AsyncIterator[Broker]:
    """The node with notifier's queues declared, and everything collected that comes into them."""
    await declare_topology(rabbit_options(node.url), Settling(seconds=0))
    async with TcpProxy("127.0.0.1", node.port) as proxy:
        made = Broker(node, proxy, folder)
        await made.add_user()
        async with made.collecting():
            yield made

"""Publish to RabbitMQ: persistent, mandatory, confirmed, with `user_id`. Declares nothing.

This module opens the socket itself, so that it can abort the connection to an unresponsive broker at once. When the
connection is lost, aiormq raises an error or cancels the task that waits for the operation. Each operation therefore
runs in its own task, and the result is checked.
"""

import asyncio
import ssl
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import aiormq
from aiormq.connection import TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ConnectionClosed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from pamqp import commands
from yarl import URL

from logout_notifier_publisher.address import Host, Server
from logout_notifier_publisher.event_transport import (
    Confirmed,
    FailureReason,
    OnOutcome,
    OutgoingEvent,
    PublishFailure,
    PublishOutcome,
)
from logout_notifier_publisher.publisher_settings import PublisherSettings, format_error

ROUTING_KEY = "session.ended"
HEARTBEAT_SECONDS = 10
CLOSE_HANDSHAKE_TIMEOUT_SECONDS = 1.0  # likewise for the background tasks, which are awaited after it

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _BrokerConnection:
    """A broker connection, possibly still opening: socket, AMQP connection and channel."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self.connection: aiormq.Connection | None = None
        self.channel: aiormq.Channel | None = None

    @property
    def has_open_channel(self) -> bool:
        """Whether there is a channel to publish on."""
        return self.channel is not None and not self.channel.is_closed

    async def open(self, server: Server, host: Host, secret: str, context: ssl.SSLContext | None, name: str) -> None:
        """Connect to this host. Raises any error of asyncio, ssl or aiormq."""
        reader, self.writer = await asyncio.open_connection(host.name, host.port, ssl=context)
        url = URL.build(
            scheme="amqps" if server.tls else "amqp",
            user=server.user,
            password=secret,
            host=host.name,
            port=host.port,
            path="/" if server.vhost == "/" else "/" + server.vhost.replace("/", "%2F"),
            query={"heartbeat": str(HEARTBEAT_SECONDS)},
        )
        self.connection = aiormq.Connection(url, transport_factory=_PreconnectedTransportFactory((reader, self.writer)))
        await self.connection.connect({"connection_name": name})
        channel = await self.connection.channel(publisher_confirms=True, on_return_raises=True)
        assert isinstance(channel, aiormq.Channel)
        self.channel = channel


class AmqpTransport:
    """One connection and one channel, for one lane. `threads`: the executor that reads secret and certificate files."""

    def __init__(self, settings: PublisherSettings, server: Server, exchange: str, threads: Executor) -> None:
        self._settings = settings
        self._server = server
        self._exchange = exchange
        self._threads = threads
        self._limit = settings.publish_limit
        self._next_host = 0
        self._broker = _BrokerConnection()
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def connected(self) -> bool:
        """Whether there is a channel to publish on."""
        return self._broker.has_open_channel

    async def connect(self) -> PublishFailure | None:
        """Connect to the first host that accepts a connection, unless already connected."""
        if self._broker.has_open_channel:
            return None
        self._abort()
        try:
            secret, context = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._read_secret_and_certificates
            )
        except (OSError, ValueError) as error:
            file = getattr(error, "filename", None) or "secret_file, ca_file, certificate_file, key_file"
            return PublishFailure(reason=FailureReason.FILES, text=f"{file}: {format_error(error)}")
        failed: PublishFailure | None = None
        for _ in self._server.hosts:
            host = self._server.hosts[self._next_host]
            failed = await self._connect_to_host(host, secret or "", context)
            if failed is None:
                return None
            self._next_host = (self._next_host + 1) % len(self._server.hosts)
        return failed

    def _read_secret_and_certificates(self) -> tuple[str | None, ssl.SSLContext | None]:
        return self._settings.read_secret(), self._settings.create_tls_context() if self._server.tls else None

    async def _connect_to_host(self, host: Host, secret: str, context: ssl.SSLContext | None) -> PublishFailure | None:
        """Connect to one host. A connection that opens too late is dropped, even if aiormq ignores its cancellation."""
        broker = _BrokerConnection()
        name = f"notifier.publisher {self._exchange}"
        task = asyncio.ensure_future(broker.open(self._server, host, secret, context, name))
        try:
            await asyncio.wait({task}, timeout=self._limit)
        finally:
            if not task.done():
                task.add_done_callback(
                    lambda _: self._abort(broker)
                )  # drop again: the cancelled attempt may still open a connection
                self._track(task)
                task.cancel()
                self._abort(broker)
        if not task.done():
            text = f"{host} did not respond within {self._limit:g} s: check the broker and the network"
            return PublishFailure(reason=FailureReason.TIMED_OUT, text=text)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._abort(broker)
            return _to_connect_failure(error, str(host), self._server)
        self._broker = broker
        return None

    async def publish(self, events: Sequence[OutgoingEvent], on_outcome: OnOutcome) -> None:
        """Publish all events, then wait for the confirms. Give up when none arrives within `publish_limit`."""
        failed = await self.connect()
        channel = self._broker.channel
        if failed is not None or channel is None:
            on_outcome(0, failed or PublishFailure(reason=FailureReason.DISCONNECTED, text="the connection was lost"))
            return
        tasks = [asyncio.ensure_future(self._publish_one(channel, event)) for event in events]
        try:
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=self._limit, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
        finally:
            late = {task for task in tasks if not task.done()}
            if late:
                self._abort()
                for task in late:
                    task.cancel()
                    self._track(task)
        for index, task in enumerate(tasks):
            on_outcome(index, self._to_outcome(task, late=task in late))
        if channel.is_closed:
            self._abort()

    async def _publish_one(self, channel: aiormq.Channel, event: OutgoingEvent) -> None:
        properties = commands.Basic.Properties(
            content_type="application/json", delivery_mode=2, message_id=event.id, user_id=self._server.user
        )
        await channel.basic_publish(
            event.body,
            exchange=self._exchange,
            routing_key=ROUTING_KEY,
            properties=properties,
            mandatory=True,
            wait=False,
        )

    def _to_outcome(self, task: "asyncio.Task[None]", *, late: bool) -> PublishOutcome:
        if late:
            text = (
                f"no confirm within {self._limit:g} s: the broker is unresponsive, or blocks publishing (memory, disk)"
            )
            return PublishFailure(reason=FailureReason.TIMED_OUT, text=text)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        return Confirmed() if error is None else _to_publish_failure(error, self._exchange)

    async def close(self) -> None:
        """Wait up to 1 s for the AMQP close handshake, abort the socket, then wait up to 1 s for background tasks."""
        connection = self._broker.connection
        if connection is not None and not connection.is_closed:
            task = asyncio.ensure_future(connection.close())
            await asyncio.wait({task}, timeout=CLOSE_HANDSHAKE_TIMEOUT_SECONDS)
            self._track(task)
        self._abort()
        if self._background:
            await asyncio.wait(self._background, timeout=CLOSE_HANDSHAKE_TIMEOUT_SECONDS)

    def _abort(self, broker: _BrokerConnection | None = None) -> None:
        """Abort the socket. aiormq cleans up in the background."""
        if broker is None:
            broker, self._broker = self._broker, _BrokerConnection()
        if broker.writer is not None:
            broker.writer.transport.abort()
        if broker.connection is not None and not broker.connection.is_closed:
            self._track(asyncio.ensure_future(broker.connection.close(ConnectionError("dropped"))))

    def _track(self, task: "asyncio.Task[Any]") -> None:
        self._background.add(task)

        def on_done(done: "asyncio.Task[Any]") -> None:
            self._background.discard(done)
            done.cancelled() or done.exception()  # retrieve the exception, otherwise asyncio logs it as never retrieved

        task.add_done_callback(on_done)


class _PreconnectedTransportFactory(TransportFactory):
    """Passes streams that are already open to aiormq, so that AmqpTransport can abort their socket."""

    def __init__(self, streams: _Streams) -> None:
        self._streams = streams

    async def create(self, url: URL, **kwargs: Any) -> _Streams:
        """Return the open streams."""
        del url, kwargs
        return self._streams


def _to_connect_failure(error: BaseException, host: str, server: Server) -> PublishFailure:
    match error:
        case ProbableAuthenticationError():
            text = f"{host} refused the user {server.user!r} or its password: check `url` and `secret_file`"
            return PublishFailure(reason=FailureReason.DENIED, text=text)
        case InvalidFrameError() if "OpenOk" in str(error):  # aiormq drops the broker's text
            text = f"{host}: virtual host {server.vhost!r} does not exist, or user {server.user!r} has no access to it"
            return PublishFailure(reason=FailureReason.DENIED, text=text)
        case ConnectionClosed():
            return PublishFailure(
                reason=FailureReason.DENIED, text=f"{host} refused the connection: {_format_amqp_error(error)}"
            )
        case ssl.SSLError():
            text = f"{host}: no TLS connection: {format_error(error)}: check `ca_file`, and the name in the certificate"
            return PublishFailure(reason=FailureReason.UNREACHABLE, text=text)
        case _:
            return PublishFailure(reason=FailureReason.UNREACHABLE, text=f"{host}: {_format_amqp_error(error)}")


def _to_publish_failure(error: BaseException, exchange: str) -> PublishFailure:
    match error:
        case PublishError():
            text = f"no queue is bound to {exchange}: run a notifier worker, or `notifier topology declare`"
            return PublishFailure(reason=FailureReason.UNROUTABLE, text=text)
        case DeliveryError():
            text = f"a queue bound to {exchange} rejected the event: check its length limits"
            return PublishFailure(reason=FailureReason.REJECTED, text=text)
        case ChannelNotFoundEntity():
            text = f"there is no exchange {exchange}: run a notifier worker, or check the virtual host and `exchange`"
            return PublishFailure(reason=FailureReason.UNROUTABLE, text=text)
        case ChannelAccessRefused():
            text = f"the user may not write to {exchange}: give it the permission (docs/publishing.md, Who may publish)"
            return PublishFailure(reason=FailureReason.DENIED, text=text)
        case ChannelClosed():
            return PublishFailure(
                reason=FailureReason.DENIED, text=f"the broker closed the channel: {_format_amqp_error(error)}"
            )
        case _:
            return PublishFailure(
                reason=FailureReason.DISCONNECTED,
                text=f"no confirm arrived: {_format_amqp_error(error)}",
            )


def _format_amqp_error(error: BaseException) -> str:
    if isinstance(error, AMQPError):
        text = " ".join(str(part) for part in error.args if part not in (None, "", 0))
        return " ".join(text.split())[:300] or type(error).__name__
    return "closed" if isinstance(error, asyncio.CancelledError) else format_error(error) or type(error).__name__

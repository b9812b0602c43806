"""Connects to the broker, opens channels, bounds each request, and translates the broker's errors into ours.

No error includes a URL, since that may contain a password.

aiormq's timeouts use `wait_for`, which in Python 3.11 loses a cancellation that coincides with an answer: the cancelled
task runs forever. So `asyncio.timeout` bounds requests. Closing always uses a timeout of aiormq, so it runs in a
separate task (`close_bounded`).
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import aio_pika
import aiormq
import aiormq.abc
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ConnectionClosed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp import commands
from yarl import URL

from notifier.model.client import TlsFiles
from notifier.model.errors import InternalFault, QueueError, QueueUnavailable
from notifier.model.own_thread import FileTimeoutError, read_in_thread
from notifier.model.printable import excerpt
from notifier.network.http.pem_files import build_client_context
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.wire import aiormq_hooks

CONNECT_TIMEOUT_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 5.0
BLOCKED_CLOSE_TIMEOUT_SECONDS = 0.1  # the broker does not read the close of a connection that it blocks
HEARTBEAT_SECONDS = 10  # aiormq gives up a silent peer after three: 33 s, instead of 3 min with its default of 60
RPC_TIMEOUT_SECONDS = 10.0  # for an answer of the broker
DEFAULT_CHANNEL_MAX = 2047  # of RabbitMQ
REFUSALS = ("403 ", "530 ")  # reply codes of the handshake for which waiting does not help
CONNECTION_ERRORS = (AMQPError, OSError, RuntimeError)
"""The errors of a request without an answer: TimeoutError is an OSError, a closed channel a RuntimeError."""

Connection = aio_pika.abc.AbstractConnection


class _Attempt(aio_pika.Connection):
    """Closes itself when connecting fails. aio-pika closes it at garbage collection, when the loop may have ended."""

    async def connect(self, timeout: aiormq.abc.TimeoutType = None) -> None:  # noqa: ASYNC109  aio-pika's signature
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


async def connect(options: RabbitOptions, purpose: str, within: float = math.inf) -> Connection:
    """Return a new connection to the first host that accepts it, `within` this number of seconds in all.

    Raises QueueError (refused), QueueUnavailable (unreachable), ConfigurationError (a library behaves differently).
    """
    aiormq_hooks.install()
    failure: QueueError = QueueUnavailable("no host to connect to")
    each = min(CONNECT_TIMEOUT_SECONDS, within / max(1, len(options.urls)))
    for text in options.urls:
        url = URL(text)
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=HEARTBEAT_SECONDS)
        try:
            async with asyncio.timeout(each):
                credentials = await read_in_thread("queue.password_file", options.credentials)
                if credentials is not None:
                    url = url.with_user(credentials[0]).with_password(credentials[1])
                context = await read_in_thread("queue.tls", partial(_tls_context, options.tls, url))
                return await aio_pika.connect(
                    url,
                    ssl_context=context,
                    client_properties={"connection_name": f"{options.name} {purpose}"},
                    connection_class=_Attempt,
                )
        # StopAsyncIteration: the stream ended after the broker's first frame.
        except (AMQPError, OSError, TimeoutError, RuntimeError, ValueError, StopAsyncIteration) as error:
            failure = _translate(error, url, each)
    raise failure


def _tls_context(tls: TlsFiles | None, url: URL) -> ssl.SSLContext | None:
    if tls is None and url.scheme != "amqps":
        return None
    try:
        return build_client_context(tls or TlsFiles())
    except InternalFault as fault:
        raise QueueError(f"queue.tls: {fault}") from fault


def _translate(error: Exception, url: URL, waited: float) -> QueueError:
    host = f"{url.host}:{url.port}" if url.port else str(url.host)
    by_certificate = url.query.get("auth", "").lower() == "external"
    match error:
        case ProbableAuthenticationError() if by_certificate:
            return QueueError(f"{host} has no user of our certificate's name (see its ssl_cert_login_from)")
        case ProbableAuthenticationError():
            return QueueError(f"{host} refused the user name or the password: {reason_of(error)}")
        case AuthenticationError() if by_certificate:
            return QueueError(f"{host} takes no certificates: enable its plug-in rabbitmq_auth_mechanism_ssl")
        case AuthenticationError():
            return QueueError(f"{host} takes no passwords: add ?auth=external to queue.url")
        case InvalidFrameError():
            text, vhost = excerpt(aiormq_hooks.refusal_of(error), 500), url.path[1:] or "/"
            if text.startswith(REFUSALS):
                return QueueError(f"{host} refused virtual host {vhost!r}: {text}")
            return QueueUnavailable(f"{host} did not open the connection: {text.partition(' object at ')[0]}")
        case ConnectionClosed() if reason_of(error).startswith(REFUSALS):
            return QueueError(f"{host} refused the connection: {reason_of(error)}")
        case AMQPError() if isinstance(error.__cause__, ssl.SSLError):
            return QueueError(f"{host}: no TLS connection: {reason_of(error.__cause__)}")
        case AMQPError(__cause__=ConnectionResetError(args=args)) if args == error.args:  # before any frame
            return QueueUnavailable(f"{host} ended the connection in the TLS handshake")
        case TimeoutError():
            is_file = isinstance(error, FileTimeoutError)
            return QueueUnavailable(str(error) if is_file else f"{host} did not answer within {waited:.2g} s")
        case _:
            return QueueUnavailable(f"{host}: {reason_of(error)}")


def reason_of(error: BaseException | None) -> str:
    """Return the error as one line of text: the broker's text if it gave one."""
    if error is None:
        return "closed"
    if isinstance(error, asyncio.CancelledError):  # aiormq gives up a connection by a cancellation
        return "nothing was heard from the broker for three heartbeats"
    words = " ".join(str(part) for part in error.args if part not in (None, "", 0)) or type(error).__name__
    return " ".join(words.split())[:500]


def is_cancelled() -> bool:
    """Return True if the current task was cancelled. Endless loops check it in each round.

    A cancellation that arrives while a call of aiormq fails may be replaced by aiormq's error.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


@contextmanager
def translating_losses() -> Iterator[None]:
    """Raise QueueUnavailable for the two ways in which aiormq ends a wait on a lost connection without a reason.

    One is a bare `Exception`: the stream ended between two frames. The other is a cancellation that was not requested
    here: the peer was silent, or the channel was closed.
    """
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_cancelled():
            raise
        raise QueueUnavailable("connection lost before the broker's answer") from cancelled
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise QueueUnavailable("connection lost before the broker's answer") from error


@asynccontextmanager
async def broker_timeout(seconds: float | None = RPC_TIMEOUT_SECONDS) -> AsyncIterator[None]:
    """Limit the time of requests to the broker. Raises aiormq's errors, TimeoutError, or QueueUnavailable."""
    with translating_losses():
        async with asyncio.timeout(seconds):
            yield


@asynccontextmanager
async def broker_request(what: str, seconds: float | None = RPC_TIMEOUT_SECONDS) -> AsyncIterator[None]:
    """Limit the time of requests to the broker. Raises QueueUnavailable for an error or a timeout, after `what`."""
    try:
        async with broker_timeout(seconds):
            yield
    except CONNECTION_ERRORS as error:
        raise QueueUnavailable(f"{what}: {reason_of(error)}") from error


@asynccontextmanager
async def connected(options: RabbitOptions, purpose: str, within: float = math.inf) -> AsyncIterator[Connection]:
    """Open a connection for the block. Raises QueueError, and QueueUnavailable if it is lost inside."""
    connection = await connect(options, purpose, within)
    try:
        with translating_losses():
            yield connection
    except (AMQPError, OSError) as error:
        raise QueueUnavailable(reason_of(error)) from error
    finally:
        await close_bounded(
            connection.close(), CLOSE_TIMEOUT_SECONDS if not is_blocked(connection) else BLOCKED_CLOSE_TIMEOUT_SECONDS
        )


@asynccontextmanager
async def channel_of(connection: Connection, *, confirms: bool = False) -> AsyncIterator[aiormq.Channel]:
    """Open a channel for the block. Its end returns unacked messages. Raises QueueUnavailable."""
    channel = await open_channel(connection, confirms=confirms)
    try:
        yield channel
    finally:
        await close_channel(channel)


async def open_channel(connection: Connection, *, confirms: bool = False) -> aiormq.Channel:
    """Return a new channel. With `confirms`, an unroutable mandatory publish raises. Raises QueueUnavailable."""
    async with broker_request("no channel", CONNECT_TIMEOUT_SECONDS):
        number = _next_free_number(connection)
        channel = connection.channel(number, publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize()
        underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)
    return underlay


def _next_free_number(connection: Connection) -> int | None:
    """Return a number that no recent channel of the connection had; None if no number is free.

    aiormq reuses the number of a channel that the broker has closed before it confirms this to the broker, which then
    closes the connection. Raises QueueUnavailable if the connection is closed: aiormq's error includes the URL.
    """
    aiormq_connection = underlay_of(connection)
    assert isinstance(aiormq_connection, aiormq.Connection)
    if aiormq_connection.is_closed:
        raise QueueUnavailable("the connection is closed")
    limit = aiormq_connection.connection_tune.channel_max or DEFAULT_CHANNEL_MAX
    for _ in range(limit):
        aiormq_connection.last_channel = aiormq_connection.last_channel % limit + 1
        if aiormq_connection.last_channel not in aiormq_connection.channels:
            return aiormq_connection.last_channel
    return None


async def close_channel(channel: aiormq.Channel) -> None:
    """Close the channel in any state, which returns its unacked messages. Wait for the broker for a bounded time.

    aiormq's `close` sends Channel.Close again if it is interrupted or the broker needs longer than a heartbeat. The
    broker then closes the connection, as in a cluster that elected leaders for 8 s.
    """
    if not channel.is_closed:
        blocked = aiormq_hooks.blocked(channel.connection)
        timeout = BLOCKED_CLOSE_TIMEOUT_SECONDS if blocked else CLOSE_TIMEOUT_SECONDS
        await asyncio.wait({request_close(channel)}, timeout=timeout)


def request_close(channel: aiormq.Channel) -> asyncio.Future[Any]:
    """Request the close of an open channel. Return a future of the broker's answer; nobody needs to await it."""
    goodbye = commands.Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0)
    closing = asyncio.ensure_future(channel.rpc(goodbye))
    closing.add_done_callback(retrieve_error)
    return closing


async def close_bounded(closing: Coroutine[object, object, None], within: float = CLOSE_TIMEOUT_SECONDS) -> None:
    """Await a close coroutine of aiormq for a bounded time. Ignore its errors, and never lose a cancellation."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait({task}, timeout=within)
    finally:
        task.add_done_callback(retrieve_error)
        task.cancel()


def retrieve_error(done: asyncio.Future[Any]) -> BaseException | None:
    """Return the error of an ended task or future; None without one. Otherwise asyncio logs an unretrieved error."""
    return None if done.cancelled() else done.exception()


def underlay_of(connection: Connection) -> aiormq.abc.AbstractConnection:
    """Return the underlying aiormq connection. Raises QueueUnavailable if it is closed."""
    if connection.transport is None:
        raise QueueUnavailable("the connection is closed")
    return connection.transport.connection


def is_blocked(connection: Connection) -> bool:
    """Return True if the broker blocks publishing on this connection (memory or disk alarm)."""
    return connection.transport is not None and aiormq_hooks.blocked(connection.transport.connection)


def user_of(connection: Connection) -> str | None:
    """Return the user of the connection, as a message's `user_id` names it.

    None if it is closed, for the user of a certificate, and for a token in place of a password (`amqp://:TOKEN@…`).
    """
    if connection.transport is None:
        return None
    url = connection.transport.connection.url
    if url.query.get("auth", "").lower() == "external":
        return None
    return url.user or (None if url.password else "guest")

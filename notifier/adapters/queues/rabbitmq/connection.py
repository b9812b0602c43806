"""One connection to the broker that keeps itself up: connect, serve, lose, wait, connect again.

Credentials and TLS files are read at each attempt, hosts are tried in turn, the pause doubles from 0.1 s to 15 s.
The broker's words become our errors here, and no error bears a URL, since that may hold a password.

aiormq's own timeouts go through `wait_for`, which in Python 3.11 loses a cancellation that meets an answer, and the
task that should have ended goes on for ever. So they are not used here (`asyncio.timeout` is), and what closes, where
aiormq always uses one, is awaited by way of a task of its own (`finish`).
"""

import asyncio
import random
import ssl
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import aio_pika
import aiormq
import aiormq.abc
import structlog
from aiormq.exceptions import (
    AMQPError,
    ConnectionClosed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp import commands
from yarl import URL

from notifier.adapters.queues.rabbitmq import insides
from notifier.adapters.queues.rabbitmq.options import BrokerTls, RabbitOptions
from notifier.adapters.tls.pem_files import connecting_context
from notifier.domain.errors import NotifierError, OurFault, QueueError, QueueUnavailable

CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 5.0
HEARTBEAT = 10  # seconds; aiormq gives a silent peer up after three: 33 s instead of the 3 min of its default of 60
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 15.0
SETTLED_AFTER = 5.0  # a connection that stood so long was a good one: the next pause is short again

Connection = aio_pika.abc.AbstractConnection


async def connect(options: RabbitOptions, purpose: str) -> Connection:
    """A new connection to the first host that takes us. Raises QueueError (refused), QueueUnavailable (not reached)."""
    insides.prepare()
    credentials = options.credentials()
    context = await asyncio.to_thread(_tls_context, options.tls)
    failure: QueueError = QueueUnavailable("no host to connect to")
    for text in options.urls:
        url = URL(text)
        if credentials is not None:
            url = url.with_user(credentials[0]).with_password(credentials[1])
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=HEARTBEAT)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await aio_pika.connect(
                    url, ssl_context=context, client_properties={"connection_name": f"{options.name} {purpose}"}
                )
        # StopAsyncIteration: the end of the stream came right behind the broker's first words.
        except (AMQPError, OSError, TimeoutError, RuntimeError, ValueError, StopAsyncIteration) as error:
            failure = _translate(error, url)
    raise failure


def _tls_context(tls: BrokerTls | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    try:
        return connecting_context(ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file)
    except OurFault as fault:
        raise QueueError(f"queue.tls: {fault}") from fault


def _translate(error: Exception, url: URL) -> QueueError:
    host = f"{url.host}:{url.port}" if url.port else str(url.host)
    match error:
        case ProbableAuthenticationError():
            return QueueError(f"{host} refused the user name or the password")
        case InvalidFrameError() if "Connection.OpenOk" in str(error):  # aiormq drops the broker's own words
            return QueueError(f"{host} has no virtual host {url.path[1:] or '/'!r} that this user may enter")
        case ConnectionClosed():
            return QueueError(f"{host} refused the connection: {reason_of(error)}")
        case AMQPError() if isinstance(error.__cause__, ssl.SSLError):
            return QueueError(f"{host}: no TLS connection: {reason_of(error.__cause__)}")
        case TimeoutError():
            return QueueUnavailable(f"{host} did not answer within {CONNECT_TIMEOUT:.0f} s")
        case _:
            return QueueUnavailable(f"{host}: {reason_of(error)}")


def reason_of(error: BaseException | None) -> str:
    """The error in one line of words; the broker's own where it gave some."""
    if error is None:
        return "closed"
    if isinstance(error, asyncio.CancelledError):  # by which aiormq ends a connection that it gives up
        return "nothing was heard from the broker for three heartbeats"
    words = " ".join(str(part) for part in error.args if part not in (None, "", 0)) or type(error).__name__
    return " ".join(words.split())[:500]


def ending() -> bool:
    """Whether the task that asks was cancelled. What goes round for ever asks at each turn.

    aiormq may raise its own error in place of a cancellation that comes while something of its fails.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


@contextmanager
def named_losses() -> Iterator[None]:
    """Raise QueueUnavailable for the two ways in which aiormq ends without a word what waits on a lost connection.

    A bare `Exception`, where the stream ended between two frames; and a cancellation that is none of ours, where the
    peer fell silent or the channel was closed.
    """
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if ending():
            raise
        raise QueueUnavailable("connection lost before the broker's answer") from cancelled
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise QueueUnavailable("connection lost before the broker's answer") from error


async def open_channel(connection: Connection, *, confirms: bool = False) -> aiormq.Channel:
    """A new channel, in aiormq's leaner terms. With `confirms`, an unroutable mandatory publish raises.

    Raises QueueUnavailable.
    """
    try:
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        with named_losses():
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await channel.initialize()
                underlay = await channel.get_underlay_channel()
    except (AMQPError, OSError, RuntimeError) as error:  # TimeoutError is an OSError
        raise QueueUnavailable(f"no channel: {reason_of(error)}") from error
    assert isinstance(underlay, aiormq.Channel)
    return underlay


async def close_channel(channel: aiormq.Channel) -> None:
    """Close it, whatever its state: the broker gives back what is unacked there. Returns without its answer at last.

    aiormq's own `close` says Channel.Close again where it was cut short or the broker took longer than a heartbeat.
    The broker answers the second one by closing the connection: a cluster that elected leaders for 8 s met it.
    """
    if not channel.is_closed:
        goodbye = commands.Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0)
        closing = asyncio.ensure_future(channel.rpc(goodbye))
        closing.add_done_callback(_look_at)
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT)


async def finish(closing: Coroutine[object, object, None]) -> None:
    """Await a closing of aiormq's, bounded, without its errors, and without handing it our cancellation to lose."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
    finally:
        task.add_done_callback(_look_at)
        task.cancel()


def _look_at(done: asyncio.Future[Any]) -> None:
    done.cancelled() or done.exception()  # or asyncio complains


def underlay_of(connection: Connection) -> aiormq.abc.AbstractConnection:
    """The aiormq connection below. Raises QueueUnavailable where it is gone."""
    if connection.transport is None:
        raise QueueUnavailable("the connection is closed")
    return connection.transport.connection


def is_blocked(connection: Connection) -> bool:
    """Whether the broker has stopped this connection's publishing (memory or disk alarm)."""
    return connection.transport is not None and insides.blocked(connection.transport.connection)


Serve = Callable[["Link", Connection], Awaitable[None]]
"""Uses a connection until cancelled. Calls `link.stand()` once it is of use. What it raises ends the connection."""


class Link:
    """A connection for one purpose, which is made again whenever it is lost. One task runs `run`."""

    def __init__(self, options: RabbitOptions, purpose: str, serve: Serve) -> None:
        self._options = options
        self._purpose = purpose
        self._serve = serve
        self._log = structlog.get_logger(__name__).bind(connection=purpose)
        self.connection: Connection | None = None
        self.standing = asyncio.Event()
        self.failed = asyncio.Event()  # set while the last attempt met something that waiting alone will not heal
        self.failure: NotifierError | None = None
        self._stood_at = 0.0

    def stand(self) -> None:
        """The connection is of use now."""
        self.failure = None
        self.failed.clear()
        self.standing.set()
        self._stood_at = asyncio.get_running_loop().time()
        self._log.info("queue_connected")

    async def run(self) -> None:
        """Until cancelled."""
        pause = FIRST_PAUSE
        while not ending():
            try:
                self.connection = await connect(self._options, self._purpose)
                await self._live(self.connection)
            except (NotifierError, OSError) as error:  # OSError: a file of credentials or TLS cannot be read
                self._note(error)
            except Exception as error:  # noqa: BLE001  around one connection: whatever ends it, the next is made
                first = _first(error)
                where = "".join(traceback.format_tb(first.__traceback__))
                self._log.error("queue_connection_broken", error=type(first).__name__, exception=where)
                self._note(QueueError(f"unexpected {type(first).__name__}"))
            finally:
                stood, self.connection = self.standing.is_set(), None
                self.standing.clear()
            if stood and asyncio.get_running_loop().time() - self._stood_at > SETTLED_AFTER:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads the workers; no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    def _note(self, error: NotifierError | OSError) -> None:
        before, self.failure = self.failure, error if isinstance(error, NotifierError) else QueueError(reason_of(error))
        if isinstance(self.failure, QueueUnavailable):
            self.failed.clear()
        else:
            self.failed.set()
        if self.standing.is_set():
            self._log.warning("queue_connection_lost", reason=str(self.failure))
        elif str(before) != str(self.failure):  # not the same line again at every attempt
            self._log.warning("queue_not_connected", reason=str(self.failure))

    async def _live(self, connection: Connection) -> None:
        """Serve until the connection or the serving ends; always raises why."""
        closing = underlay_of(connection).closing
        serving = asyncio.ensure_future(self._serve(self, connection))
        try:
            await asyncio.wait({closing, serving}, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                error = None if closing.cancelled() else closing.exception()
                raise QueueUnavailable(reason_of(error))
            await serving
            raise QueueUnavailable("closed")
        except* (NotifierError, AMQPError, OSError, RuntimeError) as group:
            first = _first(group)
            raise first if isinstance(first, NotifierError) else QueueUnavailable(reason_of(first)) from None
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            serving.cancelled() or serving.exception()  # looked at, or asyncio complains
            closing.cancel()
            await finish(connection.close())


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

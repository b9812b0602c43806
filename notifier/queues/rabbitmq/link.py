"""Maintains a connection for one purpose: connects, serves, and reconnects after a loss.

Each attempt reads credentials and TLS files. Hosts are tried one after the other. The pause doubles from 0.1 s to 15 s.
"""

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Iterable

import structlog

from notifier.model.errors import NotifierError, QueueError, QueueUnavailable, describe_error
from notifier.model.shared_resources import shared_event
from notifier.queues.rabbitmq.connection import (
    CONNECTION_ERRORS,
    Connection,
    close_bounded,
    connect,
    is_cancelled,
    reason_of,
    retrieve_error,
    underlay_of,
)
from notifier.queues.rabbitmq.options import RabbitOptions

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 15.0
STABLE_AFTER_SECONDS = 5.0  # a connection that lasted this long resets the pause

STREAM_END_ERRORS = (
    Exception,
    StopAsyncIteration,
)  # of exactly these types: a stream that ended, such as by a suspension

Serve = Callable[["Link", Connection], Awaitable[None]]
"""Uses a connection until cancelled. Calls `link.mark_connected()` when usable. An exception ends the connection."""


class Link:
    """A connection for one purpose, which is restored after each loss. One task runs `run`."""

    def __init__(self, options: RabbitOptions, purpose: str, serve: Serve) -> None:
        self._options = options
        self._purpose = purpose
        self._serve = serve
        self._log = structlog.get_logger(__name__).bind(connection=purpose)
        self.connection: Connection | None = None
        self._opened = asyncio.Event()  # there is a connection, usable or not
        self.connected = shared_event()
        self.failed = asyncio.Event()  # the last attempt failed, and waiting does not help
        self.failure: NotifierError | None = None
        self._connected_at = 0.0

    def mark_connected(self) -> None:
        """Mark the connection as usable."""
        self.failure = None
        self.failed.clear()
        self.connected.set()
        self._connected_at = asyncio.get_running_loop().time()
        self._log.info("queue_connected")

    async def wait_until_ready(self, tasks: Iterable["asyncio.Task[None]"] = ()) -> None:
        """Return once the connection is usable. Raises QueueError if waiting does not help, or when a task ends."""
        events = {asyncio.ensure_future(event.wait()) for event in (self.connected, self.failed)}
        try:
            await asyncio.wait({*events, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for event in events:
                event.cancel()
        if not self.connected.is_set():
            raise self.failure or QueueUnavailable("the queue was closed")

    async def wait_for_connection(self) -> Connection:
        """Return the connection, usable or not, as soon as there is one."""
        while self.connection is None:
            await self._opened.wait()
        return self.connection

    async def run(self) -> None:
        """Connect and serve, repeatedly, until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while not is_cancelled():
            try:
                self.connection = await connect(self._options, self._purpose)
                self._opened.set()
                await self._serve_until_lost(self.connection)
            except (NotifierError, OSError) as error:  # OSError: credentials or TLS files cannot be read
                self._log_failure(error)
            except Exception as error:  # noqa: BLE001  any error ends only this connection
                first = _first_leaf(error)
                if type(first) in STREAM_END_ERRORS:
                    self._log_failure(QueueUnavailable("the connection was lost"))
                else:
                    where = "".join(traceback.format_tb(first.__traceback__))
                    self._log.error("queue_connection_broken", error=describe_error(first), exception=where)
                    self._log_failure(QueueError(f"unexpected: {describe_error(first)}"))
            finally:
                was_connected, self.connection = self.connected.is_set(), None
                self.connected.clear()
                self._opened.clear()
            if was_connected and asyncio.get_running_loop().time() - self._connected_at > STABLE_AFTER_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads the workers; not a secret
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _log_failure(self, error: NotifierError | OSError) -> None:
        """Store the failure, and log it if the connection was usable or the text is new."""
        before = self.failure
        self.failure = error if isinstance(error, NotifierError) else QueueError(reason_of(error))
        if isinstance(self.failure, QueueUnavailable):
            self.failed.clear()
        else:
            self.failed.set()
        if self.connected.is_set():
            self._log.warning("queue_connection_lost", reason=str(self.failure))
        elif str(before) != str(self.failure):  # do not log the same error at every attempt
            self._log.warning("queue_not_connected", reason=str(self.failure))

    async def _serve_until_lost(self, connection: Connection) -> None:
        """Serve until the connection or the serving ends. Always raises the reason."""
        closing = underlay_of(connection).closing
        serving = asyncio.ensure_future(self._serve(self, connection))
        serving.add_done_callback(retrieve_error)  # also if this task is cancelled while it waits for it
        try:
            await asyncio.wait({closing, serving}, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                raise QueueUnavailable(reason_of(retrieve_error(closing)))
            await serving
            raise QueueUnavailable("closed")
        except* (NotifierError, *CONNECTION_ERRORS) as group:
            first = _first_leaf(group)
            raise first if isinstance(first, NotifierError) else QueueUnavailable(reason_of(first)) from None
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            closing.cancel()
            await close_bounded(connection.close())


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

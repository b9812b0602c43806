"""Publish events from an identity server that runs on asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from logout_notifier_publisher import outbox_files
from logout_notifier_publisher.daemon_threads import DaemonThreads
from logout_notifier_publisher.deprecation import deprecated_name
from logout_notifier_publisher.event_checks import EventMistake
from logout_notifier_publisher.event_outbox import EventOutbox
from logout_notifier_publisher.event_transport import EventTransport
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.lane_publisher import LanePublisher
from logout_notifier_publisher.pending_events import EventState, PendingEvent
from logout_notifier_publisher.prepared_events import IsAlive, PreparedEvent, PreparedEventResolver
from logout_notifier_publisher.publisher_metrics import PublisherCounters, PublisherState
from logout_notifier_publisher.publisher_settings import (
    PublisherSettings,
    SettingsError,
    format_error_without_user_data,
)
from logout_notifier_publisher.session_ended import EventPart, SessionEnded, build_events

MAINTENANCE_INTERVAL_SECONDS = 30.0  # between checks of the disk and of dead processes' folders
THREAD_COUNT = 8  # the file system combines concurrent fsyncs, so more threads store more events per second
TRANSPORT_CLOSE_TIMEOUT_SECONDS = 5.0
POLL_INTERVAL_SECONDS = 0.02  # between checks whether all events are published, during a close


class Publisher:
    """Stores events on disk and publishes them. For one event loop and one process.

    `alive`: a sync or async function that receives the `session` of `publishing(…)`, and returns whether that session
    exists. The constructor raises SettingsError, which lists all mistakes in `settings`.
    """

    def __init__(self, settings: PublisherSettings, *, alive: IsAlive | None = None) -> None:
        if mistakes := settings.find_mistakes():
            raise SettingsError(mistakes)
        self._settings = settings
        self._counts = PublisherCounters()
        self._threads = DaemonThreads(THREAD_COUNT, "notifier-publisher")
        self._outbox = EventOutbox(settings, self._counts, self._threads)
        self._resolver = PreparedEventResolver(self._outbox, alive)
        self._transports = {lane: _create_transport(settings, lane, self._threads) for lane in Lane}
        self._opening: asyncio.Task[None] | None = None
        self._opening_is_late = False
        self._tasks: list[asyncio.Task[None]] = []
        self._running_stores: set[asyncio.Task[object]] = set()
        self._closed = False

    # ── start and stop ──

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Open the outbox, take over the events of dead processes, start to publish. The broker may be unreachable."""
        if self._closed:
            raise RuntimeError("the publisher is closed")
        if self._opening is None:
            self._opening = asyncio.create_task(self._take_over_events())
            for lane, transport in self._transports.items():
                publisher = LanePublisher(
                    self._outbox, lane, transport, self._counts, connect_at_start=lane is Lane.EVENTS
                )
                self._tasks.append(asyncio.create_task(publisher.run()))
            self._tasks.append(asyncio.create_task(self._maintain_outbox()))
        await asyncio.wait({self._opening}, timeout=0.0 if self._opening_is_late else self._settings.sign_out_limit)
        self._opening_is_late = not self._opening.done()

    async def close(self) -> None:
        """Continue to publish for up to `drain_limit` seconds, then stop. Events on disk are left for the next start.

        Events in memory are written to disk; those that cannot be written are lost.
        """
        if self._closed or self._opening is None:
            self._closed = True
            return
        self._closed = True
        give_up = time.monotonic() + self._settings.drain_limit
        if self._running_stores:
            await asyncio.wait(set(self._running_stores), timeout=self._settings.drain_limit)
        while self._outbox.has_queued_or_in_flight and time.monotonic() < give_up:  # noqa: ASYNC110  no lane signals that its last event is published
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        async with AsyncExitStack() as stack:
            stack.callback(self._threads.shutdown)
            for transport in self._transports.values():
                # pushed before the outbox's close, so closed after it: a hanging connection delays no write
                stack.push_async_callback(_close_transport, transport)
            stack.push_async_callback(self._outbox.close, self._settings.sign_out_limit)
            stack.push_async_callback(self._resolver.close)
            for task in (self._opening, *self._tasks):
                task.cancel()
            await asyncio.wait({self._opening, *self._tasks}, timeout=self._settings.drain_limit)
        log.info(
            "stopped; %d pending events are left on disk for the next start",
            len(self._outbox) - self._outbox.in_memory_count,
        )

    @property
    def max_close_seconds(self) -> float:
        """Return the maximum seconds of `close`, including the time to end lookups, disk access and connections."""
        close_seconds = 2.0 + len(self._transports) * TRANSPORT_CLOSE_TIMEOUT_SECONDS
        return 2 * self._settings.drain_limit + self._settings.sign_out_limit + close_seconds

    async def _take_over_events(self) -> None:
        self._resolver.resolve_found(await self._outbox.claim_and_take_over())

    async def _maintain_outbox(self) -> None:
        while True:
            await asyncio.sleep(MAINTENANCE_INTERVAL_SECONDS)
            try:
                await self._take_over_events()
                await self._outbox.flush_memory_to_disk()
                self._outbox.expire()
            except Exception:  # noqa: BLE001  an internal error must not end the loop
                log.exception("the publisher had an internal error and continues; please report it")

    # ── events of the identity server ──

    async def publish(self, ended: SessionEnded, *, bulk: bool = False) -> str:
        """Store the event of an ended session, publish it in the background, and return its id.

        When this returns, the event is on disk, or in memory if it cannot be written within `sign_out_limit`. If the
        limit of events in memory is reached, the event is lost: this is logged and counted in `state.lost`, and the id
        is returned all the same. Never waits for the broker.
        Raises EventMistake (a ValueError) for an invalid event, RuntimeError if the publisher is closed.
        """
        lane = Lane.BULK if bulk else Lane.EVENTS
        found = build_events(ended, now=time.time())
        storing = self._create_store_task(self._store(found, lane, None, EventState.READY), self._resolver.publish)
        await asyncio.shield(storing)
        return found[0].id

    async def prepare(self, ended: SessionEnded, *, session: object = None, bulk: bool = False) -> PreparedEvent:
        """Store the event of a session that is about to end. The `PreparedEvent` publishes or discards it.

        `session`: the argument of `alive`, any JSON value; it is stored in the file. Never raises an error of the
        publisher: an invalid event is logged and counted as lost.
        """
        try:
            lane = Lane.BULK if bulk else Lane.EVENTS
            found = build_events(ended, now=time.time(), session=session, looked_up=self._resolver.can_look_up)
            storing = self._create_store_task(self._store(found, lane, session, EventState.PREPARED), None)
            try:
                events = await asyncio.shield(storing)
            except asyncio.CancelledError:  # the caller was cancelled before it deleted the session
                storing.add_done_callback(self._discard_stored)
                raise
            return PreparedEvent(self._resolver, events, session, found[0].id)
        except Exception as error:  # noqa: BLE001  an error must not stop a sign-out
            reason = (
                f"the event is invalid: {error}"
                if isinstance(error, EventMistake)
                else format_error_without_user_data(error, with_file=True)
            )
            self._outbox.record_loss(ended.id or "?", reason)
            return PreparedEvent(self._resolver, [], session, None)

    @asynccontextmanager
    async def publishing(
        self, ended: SessionEnded, *, session: object = None, bulk: bool = False
    ) -> AsyncIterator[PreparedEvent]:
        """Context manager around the deletion of a session: store its event before, and publish it afterwards.

        If the block raises, `alive` looks up the session. Without `alive` or `session`, the event is discarded after an
        Exception, and published after a cancellation or another BaseException. Never raises an error of the publisher.
        """
        prepared = await self.prepare(ended, session=session, bulk=bulk)
        try:
            yield prepared
        except BaseException as error:
            # The session may have been deleted despite the cancellation.
            prepared.publish_or_discard(doubt=not isinstance(error, Exception))
            raise
        prepared.publish()

    ending = deprecated_name("ending", "publishing")

    # ── state ──

    @property
    def state(self) -> PublisherState:
        """Counters since the start, and the pending events."""
        counts, oldest = self._counts, self._outbox.oldest_stored_at
        return PublisherState(
            written=counts.on_disk,
            written_in_memory=counts.in_memory,
            published=counts.published,
            lost=counts.lost,
            refused=counts.refused,
            expired=counts.expired,
            failures={reason.value: count for reason, count in counts.failures.items()},
            waiting=len(self._outbox),
            waiting_in_memory=self._outbox.in_memory_count,
            oldest_age=0.0 if oldest is None else max(0.0, time.time() - oldest),
            connected=self._transports[Lane.EVENTS].connected,
        )

    def _discard_stored(self, storing: "asyncio.Task[list[PendingEvent]]") -> None:
        if not storing.cancelled() and storing.exception() is None:
            self._resolver.discard(storing.result())

    async def _store(
        self, found: list[EventPart], lane: Lane, session: object, state: EventState
    ) -> list[PendingEvent]:
        give_up = time.monotonic() + self._settings.sign_out_limit
        await self.start()
        limit = max(0.0, give_up - time.monotonic())
        contents = [(each.id, outbox_files.encode(lane, session, each.event)) for each in found]
        stored = await asyncio.gather(
            *(self._outbox.store(event_id, lane, content, state, limit) for event_id, content in contents)
        )
        return [event for event in stored if event is not None]

    def _create_store_task(
        self,
        storing: Coroutine[object, object, list[PendingEvent]],
        on_stored: Callable[[list[PendingEvent]], None] | None,
    ) -> "asyncio.Task[list[PendingEvent]]":
        """Store the events in a task, even if the caller is cancelled. Then call `on_stored`."""

        async def store_and_call() -> list[PendingEvent]:
            events = await storing
            if on_stored is not None:
                on_stored(events)
            return events

        task = asyncio.create_task(store_and_call())
        self._running_stores.add(task)
        task.add_done_callback(self._running_stores.discard)
        return task


async def _close_transport(transport: EventTransport) -> None:
    try:
        async with asyncio.timeout(TRANSPORT_CLOSE_TIMEOUT_SECONDS):
            await transport.close()
    except Exception as error:  # noqa: BLE001  the other connection is closed all the same
        log.warning("a connection could not be closed: %s", format_error_without_user_data(error))


def _create_transport(settings: PublisherSettings, lane: Lane, threads: Executor) -> EventTransport:
    """Return the transport for the URL. Imports the client library here, so that importing the package is cheap."""
    server = settings.server
    if server.protocol == "http":
        from logout_notifier_publisher.api_transport import ApiTransport  # noqa: PLC0415

        return ApiTransport(settings, server, lane, threads)
    from logout_notifier_publisher.amqp_transport import AmqpTransport  # noqa: PLC0415

    exchange = settings.bulk_exchange if lane is Lane.BULK else settings.exchange
    return AmqpTransport(settings, server, exchange, threads)

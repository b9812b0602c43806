"""Publish events from an identity server that runs on asyncio."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from logout_notifier_publisher import outbox_files
from logout_notifier_publisher.daemon_threads import DaemonThreads
from logout_notifier_publisher.endings import Alive, Ending, Endings
from logout_notifier_publisher.event_checks import EventMistake
from logout_notifier_publisher.event_outbox import EventOutbox
from logout_notifier_publisher.event_transport import EventTransport
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.lane_sender import LaneSender
from logout_notifier_publisher.publisher_metrics import Counts, PublisherState
from logout_notifier_publisher.publisher_settings import PublisherSettings, SettingsMistake, cause
from logout_notifier_publisher.session_ended import EventPart, SessionEnded, documents
from logout_notifier_publisher.waiting_events import Stage, Waiting

LOOK_EVERY = 30.0  # seconds between two checks of the disk and of the folders of dead processes
THREADS = 8  # a file's fsync takes about a millisecond, and several at once share the disk's own
POLL = 0.02  # seconds between two looks whether all is published, while it closes

log = logging.getLogger("notifier.publisher")


class Publisher:
    """Keeps events on disk and publishes them. For one event loop and one process.

    `alive`: returns whether a session lives, given the `session` of `ending(…)`; a function, or a coroutine
    function. Raises SettingsMistake, which lists all mistakes.
    """

    def __init__(self, settings: PublisherSettings, *, alive: Alive | None = None) -> None:
        if mistakes := settings.mistakes():
            raise SettingsMistake(mistakes)
        self._settings = settings
        self._counts = Counts()
        self._threads = DaemonThreads(THREADS, "notifier-publisher")
        self._outbox = EventOutbox(settings, self._counts, self._threads)
        self._endings = Endings(self._outbox, alive)
        self._transports = {lane: _transport(settings, lane, self._threads) for lane in Lane}
        self._opening: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._under_way: set[asyncio.Task[object]] = set()
        self._closed = False

    # ── its life ──

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
            self._opening = asyncio.create_task(self._look())
            for lane, transport in self._transports.items():
                sender = LaneSender(self._outbox, lane, transport, self._counts, eager=lane is Lane.EVENTS)
                self._tasks.append(asyncio.create_task(sender.run()))
            self._tasks.append(asyncio.create_task(self._look_again()))
        await asyncio.wait({self._opening}, timeout=self._settings.sign_out_limit)

    async def close(self) -> None:
        """Publish for `drain_limit` seconds more, then stop. What is not published stays on disk for the next start."""
        if self._closed or self._opening is None:
            self._closed = True
            return
        self._closed = True
        give_up = time.monotonic() + self._settings.drain_limit
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=self._settings.drain_limit)
        while self._outbox.any_ready and time.monotonic() < give_up:  # noqa: ASYNC110  senders do not signal it
            await asyncio.sleep(POLL)
        async with AsyncExitStack() as stack:
            stack.callback(self._threads.shutdown)
            stack.push_async_callback(self._outbox.close, self._settings.sign_out_limit)
            stack.push_async_callback(self._endings.close)
            for transport in self._transports.values():
                stack.push_async_callback(transport.close)
            for task in (self._opening, *self._tasks):
                task.cancel()
            await asyncio.wait({self._opening, *self._tasks}, timeout=self._settings.drain_limit)
        log.info("stopped; %d events wait on disk for the next start", len(self._outbox) - self._outbox.in_memory)

    @property
    def closes_within(self) -> float:
        """Seconds that `close` takes at the most, with room for the goodbyes of connections and threads."""
        return 2 * self._settings.drain_limit + self._settings.sign_out_limit + 10.0

    async def _look(self) -> None:
        self._endings.look_up(await self._outbox.open())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self._look()
                await self._outbox.persist()
                self._outbox.drop_old()
            except Exception:  # an internal error must not end the loop
                log.exception("the publisher had an internal error and continues; please report it")

    # ── events of the identity server ──

    async def publish(self, ended: SessionEnded, *, bulk: bool = False) -> str:
        """Publish the end of a session and return the event's id. The event is on disk when this returns.

        If it cannot be written within `sign_out_limit`, it is kept in memory. Never waits for the broker. Raises
        EventMistake (a ValueError) for an invalid event, RuntimeError if the publisher is closed.
        """
        lane = Lane.BULK if bulk else Lane.EVENTS
        found = documents(ended, now=time.time())
        kept = self._begin(self._keep(found, lane, None, Stage.READY), self._endings.settle)
        await asyncio.shield(kept)
        return found[0].id

    async def prepare(self, ended: SessionEnded, *, session: object = None, bulk: bool = False) -> Ending:
        """Write the event of a session that is about to end. It is published once the `Ending` is settled.

        `session`: the argument of `alive`, any JSON value; it is stored in the file. Never raises an error of the
        publisher: an invalid event is logged and counted as lost.
        """
        try:
            lane = Lane.BULK if bulk else Lane.EVENTS
            found = documents(ended, now=time.time(), session=session, looked_up=self._endings.can_ask)
            kept = self._begin(self._keep(found, lane, session, Stage.PENDING), None)
            try:
                events = await asyncio.shield(kept)
            except asyncio.CancelledError:  # the deletion does not come
                kept.add_done_callback(self._withdraw)
                raise
            return Ending(self._endings, events, session, found[0].id)
        except Exception as error:  # noqa: BLE001  an error must not stop a sign-out
            why = f"the event is invalid: {error}" if isinstance(error, EventMistake) else cause(error, with_file=True)
            self._outbox.lose(ended.id or "?", why)
            return Ending(self._endings, [], session, None)

    @asynccontextmanager
    async def ending(self, ended: SessionEnded, *, session: object = None, bulk: bool = False) -> AsyncIterator[Ending]:
        """Around the deletion of a session: the event is on disk before it, and published after it.

        If the block raises, the event is withdrawn; `alive` decides, if given. Never raises an error of the publisher.
        """
        made = await self.prepare(ended, session=session, bulk=bulk)
        try:
            yield made
        except BaseException as error:
            # A deletion that was cancelled may have happened: without a store to ask, it counts as happened.
            made.ask(doubt=not isinstance(error, Exception))
            raise
        made.settle()

    # ── state ──

    @property
    def state(self) -> PublisherState:
        """Counters since the start, and the pending events."""
        counts, oldest = self._counts, self._outbox.oldest
        return PublisherState(
            written=counts.on_disk,
            written_in_memory=counts.in_memory,
            published=counts.published,
            lost=counts.lost,
            refused=counts.refused,
            expired=counts.expired,
            failures={reason.value: count for reason, count in counts.failures.items()},
            waiting=len(self._outbox),
            waiting_in_memory=self._outbox.in_memory,
            oldest_age=0.0 if oldest is None else max(0.0, time.time() - oldest),
            connected=self._transports[Lane.EVENTS].connected,
        )

    def _withdraw(self, kept: "asyncio.Task[list[Waiting]]") -> None:
        if not kept.cancelled() and kept.exception() is None:
            self._endings.withdraw(kept.result())

    async def _keep(self, found: list[EventPart], lane: Lane, session: object, stage: Stage) -> list[Waiting]:
        give_up = time.monotonic() + self._settings.sign_out_limit
        await self.start()
        limit = max(0.0, give_up - time.monotonic())
        contents = [(each.id, outbox_files.encode(lane, session, each.event)) for each in found]
        kept = await asyncio.gather(
            *(self._outbox.keep(event_id, lane, content, stage, limit) for event_id, content in contents)
        )
        return [event for event in kept if event is not None]

    def _begin(
        self, keeping: Coroutine[object, object, list[Waiting]], then: Callable[[list[Waiting]], None] | None
    ) -> "asyncio.Task[list[Waiting]]":
        """Keep the events even if the caller is cancelled."""

        async def keep() -> list[Waiting]:
            events = await keeping
            if then is not None:
                then(events)
            return events

        task = asyncio.create_task(keep())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


def _transport(settings: PublisherSettings, lane: Lane, threads: Executor) -> EventTransport:
    """Return the transport for the URL. Imports the client library here, so that importing the package is cheap."""
    server = settings.server
    if server.protocol == "http":
        from logout_notifier_publisher.api_transport import ApiTransport  # noqa: PLC0415

        return ApiTransport(settings, server, lane, threads)
    from logout_notifier_publisher.amqp_transport import AmqpTransport  # noqa: PLC0415

    exchange = settings.bulk_exchange if lane is Lane.BULK else settings.exchange
    return AmqpTransport(settings, server, exchange, threads)

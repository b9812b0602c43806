"""Session ends in progress: their events are stored, and published once the sessions have ended.

The session is looked up with `alive` for the events of a process that died during a sign-out, after a failed deletion,
and for a sign-out whose code cannot report when it is done. The lookup is repeated while the store fails, and for some
time while the session exists, because its deletion may be in progress. An event whose session cannot be looked up, as
there is no `alive` or no `session`, is published; after a deletion that raised an Exception it is discarded.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeAlias

from logout_notifier_publisher.backoff import Backoff
from logout_notifier_publisher.deprecation import deprecated_name
from logout_notifier_publisher.event_outbox import EventOutbox
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.log_limit import LogLimit
from logout_notifier_publisher.pending_events import EventState, PendingEvent
from logout_notifier_publisher.publisher_settings import format_error_without_user_data

IsAlive: TypeAlias = Callable[[object], bool | Awaitable[bool]]
"""Returns whether the session exists, given the `session` of `publishing(…)`. If it raises, it is called again."""

MAX_CONCURRENT_LOOKUPS = 4
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.1, 60.0
DELETION_TIMEOUT_SECONDS = 5.0  # a session that exists for longer is considered kept


class PreparedEvent:
    """The stored event of one session end, or its parts. Only the first decision counts."""

    def __init__(
        self, resolver: "PreparedEventResolver", events: Sequence[PendingEvent], session: object, ended_id: str | None
    ) -> None:
        self.id = ended_id
        self._resolver = resolver
        self._events = events
        self._session = session

    def publish(self) -> None:
        """Publish the event, because the session has ended."""
        self._resolver.publish(self._events)

    def discard(self) -> None:
        """Delete the event, because the session still exists."""
        self._resolver.discard(self._events)

    def publish_or_discard(self, *, patience: float = DELETION_TIMEOUT_SECONDS, doubt: bool = True) -> None:
        """Look up the session in the background. Publish the event if the session has ended, otherwise discard it.

        Repeats the lookup for `patience` seconds while the session exists. `doubt`: whether to publish if the session
        cannot be looked up.
        """
        self._resolver.resolve(self._events, self._session, patience=patience, doubt=doubt)

    settle = deprecated_name("settle", "publish")
    withdraw = deprecated_name("withdraw", "discard")
    look_up = deprecated_name("look_up", "publish_or_discard")
    ask = deprecated_name("ask", "publish_or_discard")


class PreparedEventResolver:
    """Publishes or discards prepared events, if necessary by lookups. Not thread-safe: use it from one event loop."""

    def __init__(self, outbox: EventOutbox, alive: IsAlive | None) -> None:
        self._outbox = outbox
        self._alive = alive
        self._lookups: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)
        self._log_limit = LogLimit(time.monotonic)

    @property
    def can_look_up(self) -> bool:
        """Whether sessions can be looked up."""
        return self._alive is not None

    def publish(self, events: Sequence[PendingEvent]) -> None:
        """Publish the events."""
        for event in events:
            self._outbox.mark_ready(event)

    def discard(self, events: Sequence[PendingEvent]) -> None:
        """Delete those events that are still prepared. Published and discarded events stay as they are."""
        self._outbox.remove(*(event for event in events if event.state is EventState.PREPARED))

    def resolve(self, events: Sequence[PendingEvent], session: object, *, patience: float, doubt: bool = True) -> None:
        """Publish or discard the events of a session, see `PreparedEvent.publish_or_discard`."""
        if self._alive is None or session is None:
            self.publish(events) if doubt else self.discard(events)
            return
        self._start(self._resolve(events, session, patience))

    def resolve_found(self, found: Sequence[PendingEvent]) -> None:
        """Publish or discard the events that a dead process left, by lookups in the background."""
        if self._alive is None:
            self.publish(found)
        elif found:
            self._start(self._resolve_found(found))

    async def _resolve_found(self, undecided: Sequence[PendingEvent]) -> None:
        next_lookup_at: dict[PendingEvent, float] = {}  # when an existing session is looked up again
        backoff = Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        while undecided:
            for at in range(0, len(undecided), MAX_CONCURRENT_LOOKUPS):
                batch = undecided[at : at + MAX_CONCURRENT_LOOKUPS]
                await asyncio.gather(*(self._look_up_and_resolve(event, next_lookup_at) for event in batch))
            undecided = [event for event in undecided if event.state is EventState.PREPARED]
            await asyncio.sleep(backoff.next_delay())

    async def _look_up_and_resolve(self, event: PendingEvent, next_lookup_at: dict[PendingEvent, float]) -> None:
        if time.monotonic() < next_lookup_at.get(event, 0.0):
            return
        for _, stored in await self._outbox.read_or_set_aside([event]):
            exists = False if stored.session is None else await self._is_alive(stored.session, event.id)
            if exists is True and event in next_lookup_at:
                log.info("event %s is dropped: its session still exists", event.id)
                self.discard([event])
            elif exists is True:
                next_lookup_at[event] = time.monotonic() + DELETION_TIMEOUT_SECONDS
            elif exists is False:
                self.publish([event])

    async def _resolve(self, events: Sequence[PendingEvent], session: object, patience: float) -> None:
        give_up, backoff = time.monotonic() + patience, Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        while any(event.state is EventState.PREPARED for event in events):
            started_at = time.monotonic()  # a slow store may return a session that was deleted during the lookup
            exists = await self._is_alive(session, events[0].id)
            if exists is False:
                self.publish(events)
                return
            if exists is True and started_at >= give_up:
                log.info("event %s is dropped: its session still exists", events[0].id)
                self.discard(events)
                return
            await asyncio.sleep(backoff.next_delay())

    async def _is_alive(self, session: object, event_id: str) -> bool | None:
        """Return whether the session exists, None if the store fails."""
        try:
            async with self._slots:
                return await self._call_alive(session)
        except Exception as error:  # noqa: BLE001  the application's store may raise anything
            if self._log_limit.allows("store"):
                log.warning(
                    "the session store does not answer whether the session of event %s exists (%s). The lookup is"
                    " repeated, and the event stays pending",
                    event_id, format_error_without_user_data(error),
                )  # fmt: skip
            return None

    async def _call_alive(self, session: object) -> bool:
        assert self._alive is not None, "called only if it is set"
        if inspect.iscoroutinefunction(self._alive):
            return bool(await self._alive(session))
        answer = await asyncio.to_thread(self._alive, session)
        return bool(await answer) if inspect.isawaitable(answer) else bool(answer)

    def _start(self, lookup: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(lookup)
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def close(self) -> None:
        """Stop the lookups. Their events stay on disk for the next process."""
        for task in self._lookups:
            task.cancel()
        if self._lookups:
            await asyncio.wait(self._lookups, timeout=1.0)

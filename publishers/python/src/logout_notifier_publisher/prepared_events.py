"""Session ends in progress: their events are stored, and published once the sessions have ended.

If there is an `alive` function, the session is looked up for the events of a process that died during a sign-out, after
a failed deletion, and for a sign-out whose code cannot report when it is done. The lookup is repeated while the store
fails, and for a session that still exists, because its deletion may be in progress. Without `alive`, these events are
published.
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
DELETION_TIMEOUT_SECONDS = 5.0  # by then a deletion in progress has finished in any store


class PreparedEvent:
    """The stored event of one session end, or its parts. Only the first decision counts."""

    def __init__(
        self, prepared: "PreparedEvents", events: Sequence[PendingEvent], session: object, ended_id: str | None
    ) -> None:
        self.id = ended_id
        self._prepared = prepared
        self._events = events
        self._session = session

    def publish(self) -> None:
        """Publish the event, because the session has ended."""
        self._prepared.publish(self._events)

    def discard(self) -> None:
        """Delete the event, because the session still exists."""
        self._prepared.discard(self._events)

    def look_up(self, *, patience: float = DELETION_TIMEOUT_SECONDS, doubt: bool = True) -> None:
        """Look up the session in the background, and publish or discard the event accordingly.

        Repeats the lookup for `patience` seconds while the session exists. `doubt`: whether to publish if the session
        cannot be looked up.
        """
        self._prepared.decide(self._events, self._session, patience=patience, doubt=doubt)

    settle = deprecated_name("settle", "publish")
    withdraw = deprecated_name("withdraw", "discard")
    ask = deprecated_name("ask", "look_up")


class PreparedEvents:
    """All session ends in progress. Not thread-safe: use it from one event loop."""

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
        """Delete the events that are not published yet."""
        self._outbox.remove(*(event for event in events if event.state is EventState.PREPARED))

    def decide(self, events: Sequence[PendingEvent], session: object, *, patience: float, doubt: bool = True) -> None:
        """Look up the session in the background, see `PreparedEvent.look_up`."""
        if self._alive is None or session is None:
            self.publish(events) if doubt else self.discard(events)
            return
        self._start(self._decide(events, session, patience))

    def look_up(self, found: Sequence[PendingEvent]) -> None:
        """Look up the sessions of events that a dead process left, in the background."""
        if self._alive is None:
            self.publish(found)
        elif found:
            self._start(self._look_up(found))

    async def _look_up(self, undecided: Sequence[PendingEvent]) -> None:
        next_lookup_at: dict[PendingEvent, float] = {}  # when an existing session is looked up again
        backoff = Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        while undecided:
            for at in range(0, len(undecided), MAX_CONCURRENT_LOOKUPS):
                batch = undecided[at : at + MAX_CONCURRENT_LOOKUPS]
                await asyncio.gather(*(self._decide_found(event, next_lookup_at) for event in batch))
            undecided = [event for event in undecided if event.state is EventState.PREPARED]
            await asyncio.sleep(backoff.next_delay())

    async def _decide_found(self, event: PendingEvent, next_lookup_at: dict[PendingEvent, float]) -> None:
        if time.monotonic() < next_lookup_at.get(event, 0.0):
            return
        for _, stored in await self._outbox.read([event]):
            exists = False if stored.session is None else await self._is_alive(stored.session, event.id)
            if exists is True and event in next_lookup_at:
                log.info("event %s is dropped: its session still exists", event.id)
                self.discard([event])
            elif exists is True:
                next_lookup_at[event] = time.monotonic() + DELETION_TIMEOUT_SECONDS
            elif exists is False:
                self.publish([event])

    async def _decide(self, events: Sequence[PendingEvent], session: object, patience: float) -> None:
        give_up, backoff = time.monotonic() + patience, Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        while any(event.state is EventState.PREPARED for event in events):
            started_at = time.monotonic()  # a slow result describes the start of the lookup
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

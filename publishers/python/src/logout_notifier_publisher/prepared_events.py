"""Session ends in progress: the event is on disk, and is published once the session is gone.

If the session store can be queried (`alive`), it decides about events of a process that died during a sign-out, about a
failed deletion, and about a sign-out whose code cannot report when it is done. The query is repeated if the store does
not answer or returns that the session lives, because the deletion may be in progress. Without `alive`, the event of a
started session end is published.
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
from logout_notifier_publisher.pending_events import PendingEvent, Stage
from logout_notifier_publisher.publisher_settings import format_cause

IsAlive: TypeAlias = Callable[[object], bool | Awaitable[bool]]
"""Returns whether the session lives, given the `session` of `publishing(…)`. May raise: it is called again later."""

MAX_CONCURRENT_LOOKUPS = 4
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.1, 60.0
DELETION_SECONDS = 5.0  # after which a deletion in progress has finished in any store


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
        """Publish the event: the session has ended."""
        self._prepared.publish(self._events)

    def discard(self) -> None:
        """Delete the event: the session lives."""
        self._prepared.discard(self._events)

    def look_up(self, *, patience: float = DELETION_SECONDS, doubt: bool = True) -> None:
        """Let the store decide, in the background. Repeat the query for `patience` seconds while the session lives.

        `doubt`: whether to publish if the store cannot be queried.
        """
        self._prepared.decide(self._events, self._session, patience=patience, doubt=doubt)

    settle = deprecated_name("settle", "publish")
    withdraw = deprecated_name("withdraw", "discard")
    ask = deprecated_name("ask", "look_up")


class PreparedEvents:
    """All session ends in progress. Used from one event loop."""

    def __init__(self, outbox: EventOutbox, alive: IsAlive | None) -> None:
        self._outbox = outbox
        self._alive = alive
        self._lookups: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)
        self._log_limit = LogLimit(time.monotonic)

    @property
    def can_look_up(self) -> bool:
        """Whether the store can be queried."""
        return self._alive is not None

    def publish(self, events: Sequence[PendingEvent]) -> None:
        """Publish the events."""
        for event in events:
            self._outbox.release(event)

    def discard(self, events: Sequence[PendingEvent]) -> None:
        """Delete the events that are not published yet."""
        self._outbox.remove(*(event for event in events if event.stage is Stage.PREPARED))

    def decide(self, events: Sequence[PendingEvent], session: object, *, patience: float, doubt: bool = True) -> None:
        """Let the store decide."""
        if self._alive is None or session is None:
            self.publish(events) if doubt else self.discard(events)
            return
        self._start(self._decide(events, session, patience))

    def look_up(self, left: Sequence[PendingEvent]) -> None:
        """Decide about the events of a process that died during sign-outs."""
        if self._alive is None:
            self.publish(left)
        elif left:
            self._start(self._look_up(left))

    async def _look_up(self, left: Sequence[PendingEvent]) -> None:
        confirmed_at: dict[PendingEvent, float] = {}  # when a living session is looked up again
        backoff = Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        while left:
            undecided: list[PendingEvent] = []
            for at in range(0, len(left), MAX_CONCURRENT_LOOKUPS):
                some = left[at : at + MAX_CONCURRENT_LOOKUPS]
                await asyncio.gather(*(self._decide_found(event, confirmed_at) for event in some))
                undecided += [event for event in some if event.stage is Stage.PREPARED]
            left = undecided
            await asyncio.sleep(backoff.next_delay())

    async def _decide_found(self, event: PendingEvent, confirmed_at: dict[PendingEvent, float]) -> None:
        if time.monotonic() < confirmed_at.get(event, 0.0):
            return
        for _, stored in await self._outbox.read([event]):
            lives = False if stored.session is None else await self._is_alive(stored.session, event.id)
            if lives is True and event in confirmed_at:
                log.info("event %s is dropped: its session lives", event.id)
                self.discard([event])
            elif lives is True:
                confirmed_at[event] = time.monotonic() + DELETION_SECONDS
            elif lives is False:
                self.publish([event])

    async def _decide(self, events: Sequence[PendingEvent], session: object, patience: float) -> None:
        give_up, backoff = time.monotonic() + patience, Backoff(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        while any(event.stage is Stage.PREPARED for event in events):
            asked_at = time.monotonic()  # a slow answer is as of the start of the query
            lives = await self._is_alive(session, events[0].id)
            if lives is False:
                self.publish(events)
                return
            if lives is True and asked_at >= give_up:
                log.info("event %s is dropped: its session lives", events[0].id)
                self.discard(events)
                return
            await asyncio.sleep(backoff.next_delay())

    async def _is_alive(self, session: object, event_id: str) -> bool | None:
        """Return the store's answer, None if it does not answer."""
        try:
            async with self._slots:
                return await self._call_alive(session)
        except Exception as error:  # noqa: BLE001  the application's store may raise anything
            if self._log_limit.allows("store"):
                log.warning(
                    "the session store does not answer whether the session of event %s lives (%s). The query is"
                    " repeated, and the event waits",
                    event_id, format_cause(error),
                )  # fmt: skip
            return None

    async def _call_alive(self, session: object) -> bool:
        assert self._alive is not None, "asked only then"
        if inspect.iscoroutinefunction(self._alive):
            return bool(await self._alive(session))
        answer = await asyncio.to_thread(self._alive, session)
        return bool(await answer) if inspect.isawaitable(answer) else bool(answer)

    def _start(self, asking: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(asking)
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def close(self) -> None:
        """Stop the queries. Undecided events stay on disk for the next process."""
        for task in self._lookups:
            task.cancel()
        if self._lookups:
            await asyncio.wait(self._lookups, timeout=1.0)

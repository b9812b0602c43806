"""Endings in progress: the event is on disk, and is published once the session is gone.

If the session store can be queried (`alive`), it decides about events of a process that died during a sign-out, about a
failed deletion, and about a sign-out whose code cannot report when it is done. The query is repeated if the store does
not answer or returns that the session lives, because the deletion may be in progress. Without `alive`, the event of a
started ending is published.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeAlias

from logout_notifier_publisher.backoff import Backoff
from logout_notifier_publisher.event_outbox import EventOutbox
from logout_notifier_publisher.log_limit import LogLimit
from logout_notifier_publisher.publisher_settings import cause
from logout_notifier_publisher.waiting_events import Stage, Waiting

Alive: TypeAlias = Callable[[object], bool | Awaitable[bool]]
"""Returns whether the session lives, given the `session` of `ending(…)`. May raise: it is called again later."""

AT_ONCE = 4  # queries at a time
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0
SETTLES = 5.0  # seconds after which a deletion in progress has finished in any store

log = logging.getLogger("notifier.publisher")


class Ending:
    """One ending, whose event (or its parts) is kept. Only the first decision counts."""

    def __init__(self, endings: "Endings", events: Sequence[Waiting], session: object, ended_id: str | None) -> None:
        self.id = ended_id
        self._endings = endings
        self._events = events
        self._session = session

    def settle(self) -> None:
        """The session has ended: publish."""
        self._endings.settle(self._events)

    def withdraw(self) -> None:
        """The session lives: forget the event."""
        self._endings.withdraw(self._events)

    def ask(self, *, patience: float = SETTLES, doubt: bool = True) -> None:
        """Let the store decide, in the background. Repeat the query for `patience` seconds while the session lives.

        `doubt`: whether to publish if the store cannot be queried.
        """
        self._endings.ask(self._events, self._session, patience=patience, doubt=doubt)


class Endings:
    """All endings in progress. Used from one event loop."""

    def __init__(self, outbox: EventOutbox, alive: Alive | None) -> None:
        self._outbox = outbox
        self._alive = alive
        self._asking: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._log_limit = LogLimit(time.monotonic)

    @property
    def can_ask(self) -> bool:
        """Whether the store can be queried."""
        return self._alive is not None

    def settle(self, events: Sequence[Waiting]) -> None:
        """Publish them."""
        for event in events:
            self._outbox.release(event)

    def withdraw(self, events: Sequence[Waiting]) -> None:
        """Forget the events that are not published yet."""
        self._outbox.gone(*(event for event in events if event.stage is Stage.PENDING))

    def ask(self, events: Sequence[Waiting], session: object, *, patience: float, doubt: bool = True) -> None:
        """Let the store decide."""
        if self._alive is None or session is None:
            self.settle(events) if doubt else self.withdraw(events)
            return
        self._start(self._decide(events, session, patience))

    def look_up(self, left: Sequence[Waiting]) -> None:
        """Decide about the events of a process that died during sign-outs."""
        if self._alive is None:
            self.settle(left)
        elif left:
            self._start(self._look_up(left))

    async def _look_up(self, left: Sequence[Waiting]) -> None:
        settled: dict[Waiting, float] = {}  # when to query a live session once more
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while left:
            undecided: list[Waiting] = []
            for at in range(0, len(left), AT_ONCE):
                some = left[at : at + AT_ONCE]
                await asyncio.gather(*(self._decide_left(event, settled) for event in some))
                undecided += [event for event in some if event.stage is Stage.PENDING]
            left = undecided
            await asyncio.sleep(backoff.next_delay())

    async def _decide_left(self, event: Waiting, settled: dict[Waiting, float]) -> None:
        if time.monotonic() < settled.get(event, 0.0):
            return
        for _, stored in await self._outbox.contents([event]):
            lives = False if stored.session is None else await self._lives(stored.session, event.id)
            if lives is True and event in settled:
                log.info("event %s is dropped: its session lives", event.id)
                self.withdraw([event])
            elif lives is True:
                settled[event] = time.monotonic() + SETTLES
            elif lives is False:
                self.settle([event])

    async def _decide(self, events: Sequence[Waiting], session: object, patience: float) -> None:
        give_up, backoff = time.monotonic() + patience, Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while any(event.stage is Stage.PENDING for event in events):
            asked_at = time.monotonic()  # a slow answer holds for the start of the query
            lives = await self._lives(session, events[0].id)
            if lives is False:
                self.settle(events)
                return
            if lives is True and asked_at >= give_up:
                log.info("event %s is dropped: its session lives", events[0].id)
                self.withdraw(events)
                return
            await asyncio.sleep(backoff.next_delay())

    async def _lives(self, session: object, event_id: str) -> bool | None:
        """Return the store's answer, None if it does not answer."""
        try:
            async with self._places:
                return await self._ask(session)
        except Exception as error:  # noqa: BLE001  the application's store may raise anything
            if self._log_limit.allows("store"):
                log.warning(
                    "the session store does not answer whether the session of event %s lives (%s). The query is"
                    " repeated, and the event waits",
                    event_id, cause(error),
                )  # fmt: skip
            return None

    async def _ask(self, session: object) -> bool:
        assert self._alive is not None, "asked only then"
        if inspect.iscoroutinefunction(self._alive):
            return bool(await self._alive(session))
        answer = await asyncio.to_thread(self._alive, session)
        return bool(await answer) if inspect.isawaitable(answer) else bool(answer)

    def _start(self, asking: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(asking)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def close(self) -> None:
        """Stop the queries. Undecided events stay on disk for the next process."""
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking, timeout=1.0)

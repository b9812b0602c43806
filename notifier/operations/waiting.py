"""Those who wait, over HTTP, to hear what becomes of their event: each for a bounded time, and so many at a time."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from notifier.domain.fate import Told
from notifier.domain.reply import ReplyTo
from notifier.operations.fates import Account

LONGEST = 30.0  # seconds
MOST = 128  # at a time: half of the requests that the API serves at a time, so that others can still publish


class Wait:
    """One who waits. `address` goes with its event."""

    def __init__(self, address: ReplyTo, clock: Callable[[], float]) -> None:
        self.address = address
        self.account = Account()
        self._clock = clock
        self._changed = asyncio.Event()
        self._ended = False

    def hear(self, told: Told) -> None:
        """A reply came."""
        self.account.note(told)
        self._changed.set()

    def end(self) -> None:
        """Have it wait no longer."""
        self._ended = True
        self._changed.set()

    async def over(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as nothing more can come within them."""
        until = self._clock() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._ended and not self.account.idle_until(until):
                    await self._changed.wait()
                    self._changed.clear()


class Waits:
    """All of them. `to` is where this process is replied to; `clock` gives epoch seconds."""

    def __init__(self, to: str, *, clock: Callable[[], float], new_id: Callable[[], str], most: int = MOST) -> None:
        self._to = to
        self._clock = clock
        self._new_id = new_id
        self._most = most
        self._waiting: dict[str | None, Wait] = {}
        self._closed = False

    def begin(self) -> Wait | None:
        """To be ended by `end`. None where too many wait already: the event is taken all the same."""
        if self._closed or len(self._waiting) >= self._most:
            return None
        wait = Wait(ReplyTo(to=self._to, correlation_id=self._new_id()), self._clock)
        self._waiting[wait.address.correlation_id] = wait
        return wait

    def end(self, wait: Wait) -> None:
        """It was answered."""
        self._waiting.pop(wait.address.correlation_id, None)

    def heard(self, correlation_id: str | None, told: Told) -> bool:
        """A reply: whether somebody here waits for it."""
        wait = self._waiting.get(correlation_id)
        if wait is not None:
            wait.hear(told)
        return wait is not None

    def close(self) -> None:
        """Nobody waits any longer: the process ends."""
        self._closed = True
        for wait in self._waiting.values():
            wait.end()

"""The side channel on the embedded queue: replies and states, as notes in the queue's file.

The worker looks for questions four times a second, and writes its replies in batches on the queue's one thread. If the
outbox is full or the file cannot be written, replies are dropped and counted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from uuid import uuid4

from notifier.model.errors import QueueError
from notifier.queues.sqlite import notes
from notifier.queues.sqlite.notes import Note, QueueFile
from notifier.queues.sqlite.rows import ASKER, IN_FILE

LOOK_EVERY = 0.25  # seconds
OUTBOX = 2000


class SqliteSideChannel:
    """Replies to publishers, sends the worker's state to those who ask, and hears replies for a publisher."""

    address = "here"  # this process alone serves the file's API, so it hears its own replies without the file

    def __init__(self, file: QueueFile, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock
        self._state: Callable[[], bytes] | None = None
        self._heard: Callable[[bytes], None] | None = None
        self._do: Callable[[bytes], Awaitable[bytes]] | None = None
        self._doing: set[asyncio.Task[None]] = set()
        self._outbox: list[Note] = []
        self._name = uuid4().hex
        self.event_headers: Mapping[str, str] = {}
        self.dropped = 0

    def listen(self, state: Callable[[], bytes], heard: Callable[[str, bytes], None]) -> None:  # noqa: ARG002
        """Speak for the worker, from the next `open` on. `heard` is never called: no other worker replies to this."""
        self._state = state

    def carry_out(self, do: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Do what operators ask for, and answer. `do` never raises."""
        self._do = do

    def share_news(self, following: Callable[[], Awaitable[bytes]], heard: Callable[[bytes], None]) -> None:
        """Do nothing: the file has one worker, and nobody else to tell."""

    def share_presence(self, following: Callable[[], Awaitable[bytes]], heard: Callable[[bytes], None]) -> None:
        """Do nothing, as `share_news` does."""

    def hear_replies(self, heard: Callable[[bytes], None]) -> None:
        """Give each reply to this publisher to `heard`, from the next `open` on."""
        self._heard = heard
        self.event_headers = {ASKER: self._name}

    def tasks(self) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        """What runs while the queue is open, until cancelled."""
        if self._state is not None:
            yield self._speak_on
        if self._heard is not None:
            yield lambda: _again_and_again(self._hear, LOOK_EVERY / 2)

    def reply(self, to: str, correlation_id: str | None, body: bytes) -> None:
        """Send a reply, or drop and count it. Never waits, never raises."""
        if to != IN_FILE or correlation_id is None or len(self._outbox) >= OUTBOX:
            self.dropped += 1
        else:
            self._outbox.append(Note(correlation_id, body))

    async def ask(self, within: float) -> list[bytes]:
        """The worker's state; nothing if it does not answer in time. Raises QueueError."""
        return [self._state()] if self._state is not None else await self._answers_to(b"", within)

    async def request(self, document: bytes, within: float) -> list[bytes]:
        """What the worker answers to a request; nothing if not in time. Raises QueueError."""
        return [await self._do(document)] if self._do is not None else await self._answers_to(document, within)

    async def _answers_to(self, document: bytes, within: float) -> list[bytes]:
        now, wanted = self._clock(), Note(self._name, document)
        await self._file.use(lambda database: notes.request(database, wanted, now, now + within))
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    await asyncio.sleep(LOOK_EVERY / 2)
                    if answers := await self._take_answers():
                        return answers[:1]
        return []

    async def _speak_on(self) -> None:
        try:
            await _again_and_again(self._speak, LOOK_EVERY)
        finally:
            for task in self._doing:
                task.cancel()

    async def _speak(self) -> None:
        if await self._file.use(notes.requested, writing=False):
            now = self._clock()
            for asker, wanted in await self._file.use(lambda database: notes.take_requests(database, now)):
                if wanted and self._do is not None:
                    task = asyncio.create_task(self._answer(asker, self._do(wanted)))
                    self._doing.add(task)
                    task.add_done_callback(self._doing.discard)
                elif not wanted and self._state is not None:
                    self._outbox.append(Note(asker, self._state()))
        if not self._outbox:
            return
        batch, self._outbox = self._outbox, []
        now = self._clock()
        try:
            await self._file.use(lambda database: notes.answer(database, batch, now))
        except QueueError:
            self.dropped += len(batch)

    async def _answer(self, asker: str, doing: Awaitable[bytes]) -> None:
        self._outbox.append(Note(asker, await doing))

    async def _hear(self) -> None:
        for body in await self._take_answers():
            if self._heard is not None:
                self._heard(body)

    async def _take_answers(self) -> list[bytes]:
        return await self._file.use(lambda database: notes.take_answers(database, self._name))


async def _again_and_again(act: Callable[[], Coroutine[object, object, None]], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        with suppress(QueueError):  # `status` shows a file that cannot be used
            await act()

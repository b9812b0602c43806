"""Declares a pass over a queue: a summary of each matching message, and its body on request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from notifier.model.errors import PassStopped, QueueBusy
from notifier.model.message import Message, Transfer, TransferResult
from notifier.model.record import copy_record

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMessage(Generic[S]):
    """A message that a pass has read. `summary` is None if the message does not match."""

    message: Message
    summary: S | None


Reader: TypeAlias = Callable[[Message], ReadMessage[S]]
"""Reads one message, and keeps only as much of it as the pass needs."""


def make_pass_reader(
    summarise: Callable[[Message], S], is_meant: Callable[[Message, S], bool], *, whole: bool
) -> Callable[[Message], ReadMessage[S]]:
    """Return a reader of the messages for which `is_meant` is true, kept `whole` or as summaries only."""

    def read(message: Message) -> ReadMessage[S]:
        summary = summarise(message)
        matches = is_meant(message, summary)
        kept = message if matches and whole else copy_record(message, body=b"", headers={})
        return ReadMessage(message=kept, summary=summary if matches else None)

    return read


class QueuePass(Protocol[S]):
    """One pass over the messages that are in the queue at its start. Messages that stay keep their order."""

    @property
    def left(self) -> int:
        """Return the number of messages that have not been read yet."""

    async def next_page(self) -> Sequence[ReadMessage[S]]:
        """Return the next messages; none at the end. Remove or move them before the next call. Raises QueueError."""

    async def remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete these messages. Return the messages that were still in the queue. Raises QueueError."""

    async def move(self, transfers: Sequence[Transfer]) -> TransferResult:
        """Make each message durable in its new queue, then delete the old one. Raises QueueError."""


OpenPass: TypeAlias = AbstractAsyncContextManager[QueuePass[S]]


ProgressCallback = Callable[[int, int], None]
"""Called repeatedly with the number of processed messages and the total."""


def no_progress(_done: int, _total: int) -> None:
    """Ignore progress."""


OnWait: TypeAlias = Callable[[str], None]
"""Called with the holder's name while a pass waits for messages that another one holds, every few seconds."""


def ignore_holder(_name: str) -> None:
    """Ignore whom a pass waits for."""


@asynccontextmanager
async def stopped_by(event: asyncio.Event) -> AsyncIterator[None]:
    """Run the block until the event is set. Raises PassStopped then."""
    if event.is_set():
        raise PassStopped
    scope = asyncio.timeout(None)

    async def end() -> None:
        await event.wait()
        scope.reschedule(0.0)

    try:
        async with scope:
            ending = asyncio.create_task(end())
            try:
                yield
            finally:
                ending.cancel()
    except TimeoutError:
        if scope.expired():
            raise PassStopped from None
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """Options of a pass that removes or moves messages. `rate`: messages a second, `limit`: messages; None: unlimited.

    `stop` is called between batches. `pause` waits for the given seconds at most. `monotonic` never jumps, `clock` is
    the wall clock. `patient`: while others hold the messages, wait without a limit. `on_hold` receives the part of the
    messages that the pass has read, from its begin on, and None when it has ended. `opening` is a block that opens a
    pass, and ends it by PassStopped.
    """

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    pause: Callable[[float], Awaitable[None]]
    progress: ProgressCallback = no_progress
    stop: Callable[[], bool] = lambda: False
    rate: float | None = None
    limit: int | None = None
    dry_run: bool = False
    patient: bool = False
    on_hold: Callable[[float | None], None] = lambda _: None
    on_wait: OnWait = ignore_holder
    opening: Callable[[], AbstractAsyncContextManager[None]] = nullcontext


@asynccontextmanager
async def hold_pass(open_pass: Callable[[OnWait], OpenPass[S]], options: RepairOptions) -> AsyncIterator[QueuePass[S]]:
    """Open a pass, and close it at the end of the block. Raises PassStopped, or another QueueError."""
    async with AsyncExitStack() as stack:
        stack.callback(options.on_hold, None)
        queue_pass = None
        async with options.opening():
            while queue_pass is None:
                try:
                    queue_pass = await stack.enter_async_context(open_pass(options.on_wait))
                except QueueBusy:
                    if not options.patient or options.stop():
                        raise
        options.on_hold(0.0)
        yield queue_pass

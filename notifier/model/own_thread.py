"""Runs work that may hang in dedicated daemon threads, such as reading a file of a network file system that is dead.

The threads of the event loop are few (six on two cores), and the process waits for them when it ends. So they only
compute: whatever may hang must not occupy them.
"""

import asyncio
import traceback
from collections.abc import Callable
from typing import TypeVar

from notifier.model.shared_resources import shared_slots, start_thread

T = TypeVar("T")

MAX_THREADS_PER_NAME = 2
READ_SECONDS = 2.0  # for which a caller waits for a file


class FileTimeoutError(TimeoutError):
    """A file does not answer. The text names it."""


class _Slots:
    """The threads of one name. `users`: the callers that wait for a thread, and the threads that run."""

    def __init__(self) -> None:
        self.free = shared_slots(MAX_THREADS_PER_NAME)
        self.users = 0


_slots: dict[tuple[asyncio.AbstractEventLoop, str], _Slots] = {}
"""By event loop and name, while they are in use. It belongs to the process, as its threads do."""


async def read_in_thread(name: str, read: Callable[[], T], *, within: float = READ_SECONDS) -> T:
    """Return the result of `read` from a thread. Raises FileTimeoutError after `within` seconds. `name`: what it reads.

    At most two threads read what has one name, even after their callers gave up; further callers wait for these. So a
    file that hangs delays nobody who reads another one.
    """
    key = (asyncio.get_running_loop(), name)
    slots = _slots.setdefault(key, _Slots())
    slots.users += 1
    reading: asyncio.Future[T] | None = None

    def leave(_: object = None) -> None:
        slots.users -= 1
        if not slots.users:
            del _slots[key]

    def end(_: object) -> None:
        slots.free.release()
        leave()

    try:
        async with asyncio.timeout(within):
            await slots.free.acquire()
            reading = run_in_thread(read, f"read {name}")
            reading.add_done_callback(end)
            return await asyncio.shield(reading)
    except TimeoutError:
        raise FileTimeoutError(f"{name} was not read within {within:g} s; its file system may be unreachable") from None
    finally:
        if reading is None:
            leave()


def run_in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Start `work` in a thread of this name. Returns a future of the running loop with its result or exception.

    The traceback of an exception keeps no values: in cycles of references, which an exception that passes `asyncio.run`
    always has, they would stay until a garbage collection; without end if they are frozen before.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    future.add_done_callback(_retrieve_error)

    def complete(result: T | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # the value that `work` returned, which may be None
        else:
            future.set_exception(error)

    def run() -> None:
        result, raised = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  raised to the caller that awaits the future
            _forget_values(error)
            raised = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(complete, result, raised)
        raised = None  # which has this function in its traceback

    start_thread(name, run)
    return future


def _forget_values(error: BaseException) -> None:
    """Clear the variables of all functions in the traceback, and in those of the exceptions that led to this one."""
    errors = [error]
    for each in errors:
        traceback.clear_frames(each.__traceback__)
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        others = (each.__cause__, each.__context__, *parts)
        errors += [other for other in others if other is not None and other not in errors]


def _retrieve_error(future: asyncio.Future[T]) -> None:
    """Mark the error as retrieved. Otherwise asyncio logs it if the caller has stopped waiting."""
    if not future.cancelled():
        future.exception()

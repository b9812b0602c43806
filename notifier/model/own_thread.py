"""Runs work that may hang in a dedicated daemon thread.

The threads of the event loop are few (six on two cores), and also read TLS files and reload. So work that hangs must
not occupy them, and the process must not wait for it when it ends.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Start `work` in a thread of this name. Returns a future of the running loop with its result or exception."""
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
            raised = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(complete, result, raised)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _retrieve_error(future: asyncio.Future[T]) -> None:
    """Mark the error as retrieved. Otherwise asyncio logs it if the caller has stopped waiting."""
    if not future.cancelled():
        future.exception()

"""Runs work that may hang in a dedicated thread.

Such work does not occupy the event loop's own threads. These are few (six on two cores), and they also read TLS files
and reload. The process does not wait for the work at its end.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Start `work` in a thread of this name. Returns a future of the running loop with its result or exception."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    done.add_done_callback(_known)

    def tell(result: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # the value that `work` returned, which may be None
        else:
            done.set_exception(error)

    def run() -> None:
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  raised to the caller that awaits the future
            fault = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, fault)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def _known(done: asyncio.Future[T]) -> None:
    """Retrieve the error, which asyncio would log if the caller has stopped waiting."""
    if not done.cancelled():
        done.exception()

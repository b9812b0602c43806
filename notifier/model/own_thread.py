"""Runs what may hang in a thread of its own.

It takes no place among the event loop's own threads, of which there are few (six on two cores) and which read TLS
files, reload and much else. The process does not wait for it at its end.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Start `work` in a thread of this name. The future, of the running loop, has what it returned or raised."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    done.add_done_callback(_known)

    def tell(result: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # it is what `work` returned, which may be None
        else:
            done.set_exception(error)

    def run() -> None:
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  it is for whoever awaits the future
            fault = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, fault)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def _known(done: asyncio.Future[T]) -> None:
    """Whoever gave up waiting need not hear of an error: asyncio would log it."""
    if not done.cancelled():
        done.exception()

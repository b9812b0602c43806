"""Threads for blocking work: the disk, secret files. They end with the process, even while blocked.

The threads of `concurrent.futures` accept no work during interpreter shutdown, when a publisher drains. A thread of
theirs that is blocked by a hanging disk would also prevent the process from ending.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Work = tuple["Future[Any]", Callable[[], Any]]


class DaemonThreads(Executor):
    """A pool of daemon threads, started on demand."""

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._lock = threading.Lock()

    def submit(self, what: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run a function on one of the threads."""
        future: Future[T] = Future()
        self._work.put((future, lambda: what(*args, **kwargs)))
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if self._started < self._max_threads:
                    self._started += 1
                    threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  Executor's
        """End the threads once the submitted work is done. Never waits."""
        del wait, cancel_futures
        for _ in range(self._started):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, what = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(what())
                except BaseException as error:  # noqa: BLE001  the waiter receives it
                    future.set_exception(error)
            del work, future, what
            self._idle.release()

"""Makes what several clients, issuers, publishers or connections share: bounds, slots, locks, caches, threads.

`docs/evidence/shared-resources.md` has a row for each call, by its module and the name to which it is assigned, or the
name of the thread: who can hold the resource, for how long, and how others are served meanwhile. A test compares that
page with the calls, and fails for a lock, semaphore, thread or bounded container made elsewhere. Threads that run work
for an event loop are made by `own_thread`.
"""

import asyncio
import functools
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def shared_bound(size: T) -> T:
    """Return `size`."""
    return size


def shared_slots(size: int) -> asyncio.Semaphore:
    """Return a semaphore with `size` slots."""
    return asyncio.Semaphore(size)


def shared_lock() -> asyncio.Lock:
    """Return a lock, for tasks that wait for each other."""
    return asyncio.Lock()


def shared_event() -> asyncio.Event:
    """Return an event that tasks of many parties wait for, and that one party can keep from being set."""
    return asyncio.Event()


def shared_future() -> "asyncio.Future[Any]":
    """Return a future of the running loop whose result several parties wait for."""
    return asyncio.get_running_loop().create_future()


def shared_task(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Start a task whose result several parties wait for. None of them ends it."""
    return asyncio.create_task(work)


def shared_thread_lock() -> "threading.Lock":
    """Return a lock for threads. Its holder must not wait."""
    return threading.Lock()


def shared_reentrant_lock() -> "threading.RLock":
    """Return a lock for threads, which its holder may take again. It must not wait."""
    return threading.RLock()


def shared_cache(size: int) -> Callable[[Callable[..., T]], "functools._lru_cache_wrapper[T]"]:
    """Return a decorator that caches the last `size` results of a pure function, which must never block."""
    return functools.lru_cache(size)


def shared_ring(size: int, entries: Iterable[Any] = ()) -> deque[Any]:
    """Return a deque of the last `size` entries."""
    return deque(entries, maxlen=size)


def first_of_largest(parties: Mapping[str, str], newcomer: str) -> str:
    """Return the first entry of the party that has the most entries, so that no party displaces another's last one.

    `parties` has the party of each entry that can go, oldest first; `newcomer` is the party of the next entry.
    """
    counts = Counter([newcomer, *parties.values()])
    largest = max(parties.values(), key=counts.__getitem__)
    return next(entry for entry, party in parties.items() if party == largest)


def start_thread(name: str, work: Callable[[], object]) -> threading.Thread:
    """Start `work` in a daemon thread."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def shared_timer(name: str, seconds: float, work: Callable[[], object]) -> threading.Timer:
    """Return a timer that runs `work` in a daemon thread so many seconds after `start`, unless it is cancelled."""
    timer = threading.Timer(seconds, work)
    timer.name, timer.daemon = name, True
    return timer

"""Publisher for servers without `await`: one thread with its own event loop. Safe with fork.

The thread starts at the first use in each process. A forked child (gunicorn with `preload_app`) has none of its
parent's threads: it starts a thread at its own first use, with a separate outbox folder.
"""

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from logout_notifier_publisher.deprecation import deprecated_name
from logout_notifier_publisher.event_publisher import Publisher
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.prepared_events import DELETION_TIMEOUT_SECONDS, IsAlive, PreparedEvent
from logout_notifier_publisher.publisher_metrics import PublisherState
from logout_notifier_publisher.publisher_settings import (
    PublisherSettings,
    SettingsError,
    format_error_without_user_data,
)
from logout_notifier_publisher.session_ended import SessionEnded

T = TypeVar("T")
GRACE_SECONDS = 1.0  # added to `sign_out_limit` for thread scheduling
LATE_DELETION_TIMEOUT_SECONDS = 300.0  # for a deletion that started before its event was stored
THREAD_NOT_RUNNING_TEXT = (
    "the publisher's thread does not run, or hardly (uWSGI needs enable-threads; gevent and eventlet are not supported)"
)


class BlockingPublisher:
    """Like `Publisher`, for threads. `alive` is called on threads of the publisher."""

    def __init__(self, settings: PublisherSettings, *, alive: IsAlive | None = None) -> None:
        if mistakes := settings.find_mistakes():
            raise SettingsError(mistakes)
        self._settings = settings
        self._alive = alive
        self._starting = threading.Lock()
        self._running: _PublisherThread | None = None
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def start(self) -> None:
        """Start the thread of this process, if there is none. The first publish or prepare also starts it."""
        self._get_or_start_thread()

    def close(self) -> None:
        """Continue to publish for up to `drain_limit` seconds, then end the thread. Also called at interpreter exit."""
        with self._starting:
            running, self._running = self._running, None
            if running is not None and self._pid == os.getpid():
                running.close()

    def publish(self, ended: SessionEnded, *, bulk: bool = False) -> str:
        """Like `Publisher.publish`. Raises TimeoutError if the publisher's thread does not run."""
        running = self._get_or_start_thread()
        return running.run_and_wait(running.publisher.publish(ended, bulk=bulk), self._max_wait_seconds)

    def prepare(self, ended: SessionEnded, *, session: object = None, bulk: bool = False) -> "ThreadSafePreparedEvent":
        """Like `Publisher.prepare`. Never raises an error of the publisher."""
        try:
            running = self._get_or_start_thread()
            future = running.submit(running.publisher.prepare(ended, session=session, bulk=bulk))
            try:
                return ThreadSafePreparedEvent(running, future.result(self._max_wait_seconds))
            except TimeoutError:
                future.add_done_callback(_look_up_late)
                log.error(
                    "an event is not stored after %g s, and is only stored once the thread continues: %s",
                    self._max_wait_seconds,
                    THREAD_NOT_RUNNING_TEXT,
                )
        except Exception as error:  # noqa: BLE001  no error stops a sign-out
            why = format_error_without_user_data(error, with_file=True)
            log.error("a session end is LOST (%s): no client is notified of this sign-out", why)
        return ThreadSafePreparedEvent(None, None)

    @contextmanager
    def publishing(
        self, ended: SessionEnded, *, session: object = None, bulk: bool = False
    ) -> Iterator["ThreadSafePreparedEvent"]:
        """Context manager around the deletion of a session, like `Publisher.publishing`."""
        prepared = self.prepare(ended, session=session, bulk=bulk)
        try:
            yield prepared
        except BaseException as error:
            prepared.publish_or_discard(doubt=not isinstance(error, Exception))
            raise
        prepared.publish()

    ending = deprecated_name("ending", "publishing")

    @property
    def state(self) -> PublisherState:
        """Counters and pending events of this process's publisher. All zero before its first use and after `close`.

        Raises TimeoutError if the publisher's thread does not run.
        """
        running = self._running
        if running is None or self._pid != os.getpid():
            return PublisherState()
        return running.run_and_wait(running.state(), GRACE_SECONDS)

    @property
    def _max_wait_seconds(self) -> float:
        """Return the maximum seconds to wait for the thread's start, and then for the result of a call."""
        return self._settings.sign_out_limit + GRACE_SECONDS

    def _get_or_start_thread(self) -> "_PublisherThread":
        """Return the running thread of this process; start it if necessary."""
        if self._pid != os.getpid():  # forked: a thread of the parent may hold the lock
            self._pid, self._starting, self._running = os.getpid(), threading.Lock(), None
        with self._starting:
            if self._running is None:
                self._running = _PublisherThread(Publisher(self._settings, alive=self._alive), self._max_wait_seconds)
            return self._running


class ThreadSafePreparedEvent:
    """Like `PreparedEvent`, for threads. Its methods return at once and never raise."""

    def __init__(self, running: "_PublisherThread | None", prepared: PreparedEvent | None) -> None:
        self.id = None if prepared is None else prepared.id
        self._running = running
        self._prepared = prepared

    def publish(self) -> None:
        """Publish the event, because the session has ended."""
        if self._running is not None and self._prepared is not None:
            self._running.schedule(self._prepared.publish)

    def discard(self) -> None:
        """Delete the event, because the session still exists."""
        if self._running is not None and self._prepared is not None:
            self._running.schedule(self._prepared.discard)

    def publish_or_discard(self, *, patience: float = DELETION_TIMEOUT_SECONDS, doubt: bool = True) -> None:
        """Publish the event if a lookup shows that its session has ended. See `PreparedEvent.publish_or_discard`."""
        prepared = self._prepared
        if self._running is not None and prepared is not None:
            self._running.schedule(lambda: prepared.publish_or_discard(patience=patience, doubt=doubt))

    settle = deprecated_name("settle", "publish")
    withdraw = deprecated_name("withdraw", "discard")
    look_up = deprecated_name("look_up", "publish_or_discard")
    ask = deprecated_name("ask", "publish_or_discard")


class _PublisherThread:
    """A thread with an event loop, on which the publisher runs."""

    def __init__(self, publisher: Publisher, limit: float) -> None:
        self.publisher = publisher
        self._max_wait_seconds = limit
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="notifier-publisher", daemon=True)
        self._thread.start()
        with contextlib.suppress(TimeoutError):  # the start continues in the background
            self.run_and_wait(publisher.start(), limit)
        reference = weakref.ref(self)
        self._at_exit = lambda: _close_at_exit(reference)
        atexit.register(self._at_exit)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the loop. Returns at once."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run_and_wait(self, coroutine: Coroutine[Any, Any, T], limit: float) -> T:
        """Return the coroutine's result. Raises its error, or TimeoutError after the limit; the coroutine continues."""
        try:
            return self.submit(coroutine).result(limit)
        except TimeoutError:
            log.error("no result within %g s: %s", limit, THREAD_NOT_RUNNING_TEXT)
            raise

    def schedule(self, function: Callable[[], None]) -> None:
        """Have the loop call a function that decides about an event. After `close`, log that it is not called."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            log.warning(
                "an event was published or discarded after close(), which has no effect: the next start looks up its"
                " session, or publishes the event if there is no `alive`"
            )

    async def state(self) -> PublisherState:
        """Return the publisher's state, read on the loop's thread."""
        return self.publisher.state

    def close(self) -> None:
        """Drain, then end the thread."""
        atexit.unregister(self._at_exit)
        if not self._thread.is_alive():
            return  # a forked child has no such thread
        try:
            with contextlib.suppress(TimeoutError):
                self.run_and_wait(self.publisher.close(), self.publisher.max_close_seconds)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(GRACE_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()


def _look_up_late(done: "Future[PreparedEvent]") -> None:
    """Look up the session, which may have been deleted before the event was stored."""
    if not done.cancelled() and done.exception() is None:
        done.result().publish_or_discard(patience=LATE_DELETION_TIMEOUT_SECONDS)


def _close_at_exit(reference: "weakref.ref[_PublisherThread]") -> None:
    running = reference()
    if running is not None:
        running.close()

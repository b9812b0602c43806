"""Publisher for servers without `await`: one thread with its own event loop. Safe over a fork.

It starts when it is first used, in the process that uses it. A forked child (gunicorn with `preload_app`) has none of
its parent's threads: it starts a thread at its first use, with a separate outbox folder.
"""

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from logout_notifier_publisher.deprecation import deprecated_name
from logout_notifier_publisher.event_publisher import Publisher
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.prepared_events import DELETION_SECONDS, IsAlive, PreparedEvent
from logout_notifier_publisher.publisher_metrics import PublisherState
from logout_notifier_publisher.publisher_settings import PublisherSettings, SettingsMistake, format_cause
from logout_notifier_publisher.session_ended import SessionEnded

T = TypeVar("T")
GRACE_SECONDS = 1.0  # beyond the limit of a sign-out, for the event loop
LATE_LOOKUP_SECONDS = 300.0  # within which a deletion that did not wait for the event completes
STARVED = "the publisher's thread does not run, or hardly (uWSGI needs enable-threads; gevent and eventlet do not do)"


class BlockingPublisher:
    """As `Publisher`, for threads. `alive` is called on threads of the publisher."""

    def __init__(self, settings: PublisherSettings, *, alive: IsAlive | None = None) -> None:
        if mistakes := settings.mistakes():
            raise SettingsMistake(mistakes)
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
        """Start the thread of this process, if there is none. Its first use does so too."""
        self._get_running()

    def close(self) -> None:
        """Publish for `drain_limit` seconds more, then end the thread. It also happens when the interpreter ends."""
        with self._starting:
            running, self._running = self._running, None
            if running is not None and self._pid == os.getpid():
                running.close()

    def publish(self, ended: SessionEnded, *, bulk: bool = False) -> str:
        """As `Publisher.publish`. Raises TimeoutError if the publisher's thread does not run."""
        running = self._get_running()
        return running.wait(running.publisher.publish(ended, bulk=bulk), self._limit)

    def prepare(self, ended: SessionEnded, *, session: object = None, bulk: bool = False) -> "BlockingPreparedEvent":
        """As `Publisher.prepare`. Never raises an error of the publisher."""
        try:
            running = self._get_running()
            future = running.begin(running.publisher.prepare(ended, session=session, bulk=bulk))
            try:
                return BlockingPreparedEvent(running, future.result(self._limit))
            except TimeoutError:
                future.add_done_callback(_look_up_late)
                log.error("an event was not taken within %g s, and follows: %s", self._limit, STARVED)
        except Exception as error:  # noqa: BLE001  no error stops a sign-out
            why = format_cause(error, with_file=True)
            log.error("a session end is LOST (%s): no client is notified of this sign-out", why)
        return BlockingPreparedEvent(None, None)

    @contextmanager
    def publishing(
        self, ended: SessionEnded, *, session: object = None, bulk: bool = False
    ) -> Iterator["BlockingPreparedEvent"]:
        """As `Publisher.publishing`: around the deletion of a session."""
        made = self.prepare(ended, session=session, bulk=bulk)
        try:
            yield made
        except BaseException as error:
            made.look_up(doubt=not isinstance(error, Exception))
            raise
        made.publish()

    ending = deprecated_name("ending", "publishing")

    @property
    def state(self) -> PublisherState:
        """Counters and pending events of this process's publisher. All zero before its first use."""
        running = self._running
        if running is None or self._pid != os.getpid():
            return PublisherState()
        return running.wait(running.state(), GRACE_SECONDS)

    @property
    def _limit(self) -> float:
        """Return the maximum seconds that a caller waits for the publisher's thread."""
        return self._settings.sign_out_limit + GRACE_SECONDS

    def _get_running(self) -> "_PublisherThread":
        """Return the running thread of this process; start it if necessary."""
        if self._pid != os.getpid():  # forked: a thread of the parent may hold the lock
            self._pid, self._starting, self._running = os.getpid(), threading.Lock(), None
        with self._starting:
            if self._running is None:
                self._running = _PublisherThread(Publisher(self._settings, alive=self._alive), self._limit)
            return self._running


class BlockingPreparedEvent:
    """As `PreparedEvent`, for threads. No method waits or raises."""

    def __init__(self, running: "_PublisherThread | None", prepared: PreparedEvent | None) -> None:
        self.id = None if prepared is None else prepared.id
        self._running = running
        self._prepared = prepared

    def publish(self) -> None:
        """Publish the event: the session has ended."""
        if self._running is not None and self._prepared is not None:
            self._running.call(self._prepared.publish)

    def discard(self) -> None:
        """Delete the event: the session lives."""
        if self._running is not None and self._prepared is not None:
            self._running.call(self._prepared.discard)

    def look_up(self, *, patience: float = DELETION_SECONDS, doubt: bool = True) -> None:
        """Let the store decide, see `PreparedEvent.look_up`."""
        prepared = self._prepared
        if self._running is not None and prepared is not None:
            self._running.call(lambda: prepared.look_up(patience=patience, doubt=doubt))

    settle = deprecated_name("settle", "publish")
    withdraw = deprecated_name("withdraw", "discard")
    ask = deprecated_name("ask", "look_up")


class _PublisherThread:
    """A thread, its loop and the publisher on it."""

    def __init__(self, publisher: Publisher, limit: float) -> None:
        self.publisher = publisher
        self._limit = limit
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="notifier-publisher", daemon=True)
        self._thread.start()
        with contextlib.suppress(TimeoutError):  # it starts as soon as it can
            self.wait(publisher.start(), limit)
        reference = weakref.ref(self)
        self._at_exit = lambda: _close(reference)
        atexit.register(self._at_exit)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def begin(self, what: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    def wait(self, what: Coroutine[Any, Any, T], limit: float) -> T:
        """Return the coroutine's result. Raises its error, or TimeoutError after the limit; the coroutine continues."""
        try:
            return self.begin(what).result(limit)
        except TimeoutError:
            log.error("no answer within %g s: %s", limit, STARVED)
            raise

    def call(self, what: Any) -> None:
        """Call a function on the loop. Does nothing if the loop has ended: the next process reads the file."""
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            log.warning("an event was decided after the publisher had been closed; the next start looks its session up")

    async def state(self) -> PublisherState:
        """On the loop's thread."""
        return self.publisher.state

    def close(self) -> None:
        """Drain, and end the thread."""
        atexit.unregister(self._at_exit)
        if not self._thread.is_alive():
            return  # a forked child has no such thread
        try:
            with contextlib.suppress(TimeoutError):
                self.wait(self.publisher.close(), self.publisher.max_close_seconds)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(GRACE_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()


def _look_up_late(done: "Future[PreparedEvent]") -> None:
    """Look up the session on the loop's thread: the deletion did not wait for the event."""
    if not done.cancelled() and done.exception() is None:
        done.result().look_up(patience=LATE_LOOKUP_SECONDS)


def _close(reference: "weakref.ref[_PublisherThread]") -> None:
    running = reference()
    if running is not None:
        running.close()

"""Publishes the sign-outs of senders that send once, and keeps them in files while the queue does not confirm them.

The decisions are those of `spool_state`. The original publish of an entry continues after the entry is written: its
late confirm removes the entry, and until it ends the entry is not published a second time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from notifier.delivery.facts import Observer
from notifier.features.spool.spool_entries import Place, ReceivedSignOut, load_entry, to_dead_letter, to_outgoing
from notifier.features.spool.spool_file import UnusableFolderError
from notifier.features.spool.spool_files import FOLDER_ERRORS, SpoolFiles
from notifier.features.spool.spool_folder import SpoolFolder
from notifier.features.spool.spool_state import MAX_FOLDER_BYTES, SpoolState, rest_seconds
from notifier.model.client import RetryPolicy
from notifier.model.errors import ConfigurationError, InputIssue, QueueError, QueueUnavailable, describe_error
from notifier.model.message import Lane, MessageDraft, QueueStatus
from notifier.model.moment import Clock, wait_for_event
from notifier.model.outcome import DeadReason
from notifier.model.printable import counted, excerpt
from notifier.model.trouble import Trouble, TroubleKind
from notifier.publishing.route_steps import SenderTurns
from notifier.settings.file_owners import UnusableFileError
from notifier.telemetry.families import gauge, labelled_family

CONFIRM_SECONDS = 1.0  # for which a sender waits for the queue before its entry is written
WRITE_SECONDS = 1.0  # of a sender's deadline, left for the file
LOOK_SECONDS = 60.0  # between looks for files that ended workers left
OPEN_SECONDS = 5.0  # for the folder at the start
MAX_BATCH = 16  # published together while the queue takes them: so many may come twice if a connection is lost
END_PAUSE_SECONDS = 0.2  # between looks whether all is published, while the worker stops
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 8.0  # while the queue takes nothing
_RESULTS = ("written", "full", "failed", "published", "late_confirm", "expired", "refused")


class SpoolQueue(Protocol):
    """The queue as the spool uses it: see `queue_port`."""

    def status(self) -> QueueStatus: ...
    async def publish(self, queue: str, message: MessageDraft) -> None: ...
    async def wait_until_available(self) -> None: ...


class Spool:
    """The spool of one worker in the folder `root`. `policy` returns the maximum ages of entries."""

    def __init__(
        self,
        root: Path,
        queue: SpoolQueue,
        policy: Callable[[], RetryPolicy],
        observe: Observer = lambda _: None,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._folder = SpoolFolder(root)
        self._queue = queue
        self._turns = SenderTurns(queue.publish)
        self._policy = policy
        self._observe = observe
        self._clock = clock
        self._monotonic = monotonic
        self._state = SpoolState()
        self._files = SpoolFiles(self._folder, self._state, self._senders, clock, monotonic)
        self._lists: list[Callable[[], Collection[str]]] = []
        self._publishing: dict[str, asyncio.Task[None]] = {}  # the original publishes, by the id of the event
        self._unconfirmed_at: dict[Lane, float] = {}  # when the last sign-out came that was not confirmed in time
        self._wake = asyncio.Event()
        self._counts = dict.fromkeys(_RESULTS, 0)

    # ── what a sender sees ──

    def add_senders(self, list_names: Callable[[], Collection[str]]) -> None:
        """Let more senders share the folder. `list_names` returns the configured names."""
        self._lists.append(list_names)

    def has_room(self) -> bool:
        """Return whether a sign-out of one of the senders can be kept."""
        senders, is_usable = self._senders(), self._files.fault is None and self._folder.used < MAX_FOLDER_BYTES
        return is_usable and len(self._state.full_senders(senders)) < len(senders)

    async def publish(self, sender: str, event_id: str, lane: Lane, message: MessageDraft, deadline: float) -> None:
        """Return once the message is durable, in the queue or in a file. Raises QueueUnavailable.

        A copy of an entry is not published. `deadline`: of the sender, by the clock of the event loop.
        """
        at, received_at = self._clock(), self._monotonic()
        if self._state.is_known(event_id, received_at):
            return
        now = asyncio.get_running_loop().time()
        # While the queue confirms nothing, a wait would only use up the sender's deadline, and a slot for requests.
        is_silent = self._unconfirmed_at.get(lane, float("-inf")) > self._state.taken_at(lane)
        wait = 0.0 if is_silent else CONFIRM_SECONDS
        until = max(now, min(now + wait, deadline - WRITE_SECONDS))
        publishing = self._publishing.get(event_id)
        if publishing is None:
            publishing = asyncio.create_task(self._turns.publish(sender, lane, message, until))
            self._publishing[event_id] = publishing
            publishing.add_done_callback(partial(self._on_publish_end, event_id, lane))
        await asyncio.wait({publishing}, timeout=until - now)
        if _has_succeeded(publishing):
            return
        if not publishing.done():
            self._unconfirmed_at[lane] = received_at

        def on_written() -> None:
            self._counts["written"] += 1
            if publishing.done():
                self._on_publish_end(event_id, lane, publishing)

        sign_out = ReceivedSignOut(
            id=event_id, sender=sender, at=at, received_at=received_at, lane=lane, message=message
        )
        result = await self._files.write(sign_out, on_written)
        if result != "written":
            self._counts[result] += 1
            raise QueueUnavailable(f"the queue is unavailable, and the spool too ({result})")

    def _senders(self) -> list[str]:
        return [name for list_names in self._lists for name in list_names()]

    def _on_publish_end(self, event_id: str, lane: Lane, publishing: asyncio.Task[None]) -> None:
        """Remove the entry of an original publish that succeeded; let that of another be published."""
        if self._publishing.get(event_id) is publishing:
            del self._publishing[event_id]
        if _has_succeeded(publishing):
            self._state.on_taken(lane, self._monotonic())
            self._on_done(event_id, "late_confirm")
        else:
            self._wake.set()

    def _on_done(self, entry_id: str, result: str) -> None:
        """Record that the queue took the message of an entry, if it is in the folder."""
        place = self._state.on_done(entry_id, self._monotonic())
        if place is not None:
            self._counts[result] += 1
            self._files.note(place)

    # ── draining ──

    @asynccontextmanager
    async def running(self, draining: asyncio.Event, grace: float) -> AsyncIterator[None]:
        """Publish entries while entered, and then for up to `grace` seconds since `draining` was set.

        Raises ConfigurationError if the folder must not be used.
        """
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._files.open()
        except (UnusableFileError, UnusableFolderError) as error:
            text = f"{self._folder.root}: {error}; name a folder of this user, on a file system with locks"
            raise ConfigurationError([InputIssue("spool.folder", text)]) from None
        except (OSError, TimeoutError) as error:
            self._files.on_fault(describe_error(error))
        drain, stopping = asyncio.create_task(self._drain()), asyncio.create_task(_note_moment(draining))
        try:
            yield
            await self._end(grace + (stopping.result() if stopping.done() else time.monotonic()))
        finally:
            for task in (drain, stopping, *self._publishing.values()):
                task.cancel()
            await asyncio.wait({drain, stopping})
            if left := self._state.count():
                structlog.get_logger().warning("spool_left", entries=left, folder=str(self._folder.root))
            with suppress(TimeoutError, *FOLDER_ERRORS):
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._files.close()

    async def _end(self, end: float) -> None:
        """Wait until all is published, until `end`, or until the queue takes no messages."""
        while self._state.count() and self._takes_messages() and time.monotonic() < end:  # noqa: ASYNC110  has no event
            await asyncio.sleep(END_PAUSE_SECONDS)

    def _takes_messages(self) -> bool:
        status = self._queue.status()
        return status.connected and not status.blocked

    async def _drain(self) -> None:
        """Publish entries until cancelled."""
        look_at, size, pause = float("-inf"), 1, 0.0
        while True:
            began_at = time.monotonic()
            try:
                if began_at >= look_at:
                    look_at = began_at + LOOK_SECONDS
                    await self._files.look(take_over=True)
                    self._files.on_fault(None)
                batch = self._state.next_batch(size, self._monotonic(), self._publishing.keys())
                if not batch:
                    self._wake.clear()
                    await self._files.write_notes()
                    await wait_for_event(self._wake, CONFIRM_SECONDS)
                    continue
                if not self._takes_messages():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await self._queue.wait_until_available()
                    continue
                began_at = time.monotonic()
                done = await self._publish_batch(batch)
                size = min(2 * size, MAX_BATCH) if done == len(batch) else 1
                pause = 0.0 if done else min(max(2 * pause, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001  whatever one entry or the disk does, the drain goes on
                self._files.on_fault(describe_error(error))
                pause = CONFIRM_SECONDS
            await asyncio.sleep(max(pause, rest_seconds(size, time.monotonic() - began_at)))

    async def _publish_batch(self, batch: list[Place]) -> int:
        """Publish the entries together, in their order. Return how many were published."""
        lines = await self._files.read(batch)
        results = await asyncio.gather(*map(self._publish_entry, batch, lines), return_exceptions=True)
        await self._files.write_notes()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results.count(True)

    async def _publish_entry(self, place: Place, line: bytes) -> bool:
        """Publish an entry, or its dead letter if it is too old or refused for good. Return whether that succeeded."""
        try:
            now = self._clock()
            entry = load_entry(line, now - self._state.age(place, self._monotonic()))
            if entry is None or entry.id != place.id:
                self._state.on_refused(place, self._monotonic())  # so that it delays no other
                await self._files.set_aside(place.file)
                return False
            outgoing = to_outgoing(entry, self._policy(), now)
            result = "published" if outgoing.fact is None else "expired"
            try:
                await self._queue.publish(outgoing.queue, outgoing.message)
            except QueueError as error:
                if not self._state.on_refused(place, self._monotonic(), error):
                    return False
                text = f"kept in the spool, since the queue refuses it, but takes other messages: {error}"
                outgoing, result = to_dead_letter(entry, DeadReason.QUEUE_REFUSED, text, now), "refused"
                await self._queue.publish(outgoing.queue, outgoing.message)
        except QueueError:
            return False
        except Exception:
            self._state.on_refused(place, self._monotonic())  # so that it delays no other
            raise
        self._state.on_taken(outgoing.queue, self._monotonic())
        self._on_done(entry.id, result)
        if outgoing.fact is not None:
            self._observe(outgoing.fact)
        return True

    # ── what operators see ──

    def troubles(self) -> Iterator[Trouble]:
        """Yield the problems of the folder, and that sign-outs wait in it."""
        if self._files.fault is not None:
            text = f"cannot be used, and without the queue senders that send once get 503: {self._files.fault}"
            yield Trouble(kind=TroubleKind.SPOOL_FAILING, text=f"{self._folder.root} {text}")
        for fault in self._files.file_faults:
            text, name = f"{self._folder.root}: {fault}", fault.partition(" ")[0].rstrip(":")
            yield Trouble(kind=TroubleKind.SPOOL_FAILING, text=text, subject=name)
        if count := self._state.count():
            text = f"{counted(count, 'sign-out')} in {self._folder.root}: published once the queue takes them"
            if full := self._state.full_senders(self._senders()):
                text += f"; no room for further ones of {excerpt(', '.join(full), 100)}, which get 503"
            since = self._clock() - self._state.oldest_age(self._monotonic())
            yield Trouble(kind=TroubleKind.SPOOL_WAITING, text=text, since=since)

    def families(self) -> Iterator[Metric]:
        """Return the metrics for a scrape."""
        counts = dict.fromkeys(self._senders(), 0) | self._state.counts()
        text = "Sign-outs in the files of this worker that are not published yet."
        yield labelled_family(GaugeMetricFamily, "spool_entries", text, ("sender",), counts)
        age = self._state.oldest_age(self._monotonic())
        yield gauge("spool_oldest_seconds", "Age of the oldest of them.", age)
        yield gauge("spool_bytes", "Bytes of all files in the folder.", self._folder.used)
        faults = len(self._files.file_faults) + (self._files.fault is not None)
        yield gauge("spool_faults", "Problems of the folder and of its files.", faults)
        text = "Sign-outs that the queue did not confirm in time, by what happened."
        yield labelled_family(CounterMetricFamily, "spool_events_total", text, ("result",), self._counts)


def _has_succeeded(publishing: asyncio.Task[None]) -> bool:
    return publishing.done() and not publishing.cancelled() and publishing.exception() is None


async def _note_moment(event: asyncio.Event) -> float:
    await event.wait()
    return time.monotonic()

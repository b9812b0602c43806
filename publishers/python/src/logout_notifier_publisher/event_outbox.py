"""The outbox: each event is in a file before it is published, or in memory if the disk fails or is full.

Not thread-safe: use it from one event loop.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable, Sequence

from logout_notifier_publisher import outbox_files
from logout_notifier_publisher.daemon_threads import DaemonThreads
from logout_notifier_publisher.event_checks import EventMistake
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.log_limit import LogLimit
from logout_notifier_publisher.outbox_disk import OutboxDisk
from logout_notifier_publisher.outbox_files import EXPIRED, PENDING, READY, REFUSED, EventFile, StoredEvent
from logout_notifier_publisher.pending_events import EventState, PendingEvent, PendingEvents
from logout_notifier_publisher.publisher_metrics import PublisherCounters
from logout_notifier_publisher.publisher_settings import PublisherSettings, format_error


class EventOutbox:
    """The pending events of this process. Not thread-safe."""

    def __init__(self, settings: PublisherSettings, counts: PublisherCounters, threads: DaemonThreads) -> None:
        self._max_age = settings.outbox_max_age
        self._counts = counts
        self._pending = PendingEvents(settings.outbox_max_events, settings.outbox_max_bytes)
        self._disk = OutboxDisk(settings.outbox_folder, threads)
        self._token = secrets.token_hex(4)
        self._stamp = 0
        self._writing: set[str] = set()  # the names of events whose write is running, also of removed ones
        self._removed_during_scans: list[set[str]] = []  # a scan may list files that are deleted meanwhile
        self._disk_hangs = False
        self._ready_signals = {lane: asyncio.Event() for lane in Lane}
        self._log_limit = LogLimit(time.monotonic)
        self._lost_limit = LogLimit(time.monotonic, seconds=1.0)

    # ── open and take over ──

    async def claim_and_take_over(self) -> list[PendingEvent]:
        """Claim a sub-folder unless this process has one, and take over the events of dead processes.

        Returns the events whose session must be looked up. Never raises OSError.
        """
        removed: set[str] = set()
        self._removed_during_scans.append(removed)
        try:
            found = await self._disk.refresh()
        finally:
            self._removed_during_scans.remove(removed)
        return self._add_found_files(file for file in found if file.path.stem not in removed)

    def _add_found_files(self, files: Iterable[EventFile]) -> list[PendingEvent]:
        found = []
        for file in files:
            if file.path.stem not in self._pending.by_name and file.path.stem not in self._writing:
                state = EventState.PREPARED if file.pending else EventState.READY
                event = PendingEvent(
                    id="", name=file.path.stem, lane=file.lane, stored_at=file.stored_at, size=file.size,
                    state=state, path=file.path,
                )  # fmt: skip
                self._pending.add(event)
                if state is EventState.PREPARED:
                    found.append(event)
        self._signal_all_lanes()
        return found

    # ── store ──

    async def store(
        self, event_id: str, lane: Lane, content: bytes, state: EventState, limit: float
    ) -> PendingEvent | None:
        """Store an event on disk, or in memory if the disk fails, is full, or takes longer than `limit` seconds.

        Once an event has waited `limit` seconds, later events are only kept in memory and written in the background,
        until a write ends. Returns None if the limit of events in memory is reached: the event is lost. Cancelling the
        call does not cancel the write.
        """
        if not self._pending.has_room_in_memory(lane):
            self.record_loss(event_id, f"{len(self._pending)} events are pending, and memory is full")
            return None
        now = time.time_ns()
        self._stamp = max(self._stamp + 1, now)
        name = outbox_files.format_name(self._stamp, self._token, lane)
        event = PendingEvent(
            id=event_id,
            name=name,
            lane=lane,
            stored_at=now / 1e9,
            size=len(content),
            state=EventState.PREPARED,
            content=content,
        )
        self._pending.add(event)
        room = self._pending.has_room_on_disk(event.size, event.lane)
        if not room:
            self._log_not_durable(event, "it is full (outbox_max_events, outbox_max_bytes). Check the broker")
        else:
            suffix = PENDING if state is EventState.PREPARED else READY
            writing = self._disk.track(asyncio.ensure_future(self._write(event, suffix)))
            done, _ = await asyncio.wait({writing}, timeout=0.0 if self._disk_hangs else limit)
            if not done:
                self._disk_hangs = True
                self._log_not_durable(event, "the disk does not respond", "hangs")
        self._counts.on_stored(on_disk=event.path is not None)
        return event

    async def _write(self, event: PendingEvent, suffix: str) -> None:
        """Write an event to disk. If its state changed meanwhile, rename or delete the file. Never raises OSError."""
        if event.content is None:
            return
        event.writing = True
        self._writing.add(event.name)
        try:
            await self._disk.write(
                event.name, event.content, suffix, lambda path: self._pending.on_written(event, path)
            )
        except OSError as error:
            self._log_not_durable(event, format_error(error))
        finally:
            event.writing = False
            self._disk_hangs = False
            self._writing.discard(event.name)
        if event.state is EventState.REMOVED:
            if event.path is not None and not event.aside_suffix:
                self._disk.remove_later([event.path])
            elif event.path is not None and event.path.suffix != event.aside_suffix:
                self._disk.rename_later(event.path, event.aside_suffix)
        elif event.state is EventState.READY:
            self._rename_later(event)

    def _log_not_durable(self, event: PendingEvent, why: str, kind: str = "") -> None:
        if event.path is not None:
            if self._log_limit.allows(("sync", kind or why)):
                log.warning("event %s is in the outbox, but may not survive a power failure: %s", event.id, why)
        elif event.aside_suffix:
            log.error(
                "event %s cannot be set aside as %s%s, and is no longer kept: %s",
                event.id, event.name, event.aside_suffix, why,
            )  # fmt: skip
        elif self._log_limit.allows(("memory", kind or why)):  # a full disk is logged separately from a full outbox
            log.error(
                "event %s (lane %s) is only in memory, because it cannot be written to the outbox %s: %s. %d such"
                " events are lost if this process is killed. They are written once that is possible, tried every 30 s",
                event.id, event.lane.value, self._disk.root, why, self._pending.in_memory,
            )  # fmt: skip

    def record_loss(self, event_id: str, why: str) -> None:
        """Count an event that is lost. Logged at most once a second."""
        self._counts.lost += 1
        if self._lost_limit.allows("lost"):
            log.error("event %s is LOST: %s. Its clients are not notified of this sign-out", event_id, why)

    async def flush_memory_to_disk(self) -> None:
        """Write the events that are only in memory to disk."""
        for event in self._pending.list_unwritten():
            if not self._disk.usable:
                return
            if not self._pending.has_room_on_disk(event.size, event.lane):
                continue  # bulk events have a lower limit than single sign-outs
            await self._write(event, PENDING if event.state is EventState.PREPARED else READY)
            if event.path is None and event.state is not EventState.REMOVED:
                return

    # ── decide ──

    def mark_ready(self, event: PendingEvent) -> None:
        """Mark an event ready to be published, because its session has ended."""
        if event.state is EventState.PREPARED:
            self._pending.enqueue_as_ready(event)
            self._ready_signals[event.lane].set()
            if not event.writing:
                self._rename_later(event)

    def _rename_later(self, event: PendingEvent) -> None:
        """Rename the file in the background, without fsync.

        If the process dies before that, the next start looks up the session, or publishes if there is no `alive`.
        """
        if event.path is not None and event.path.suffix == PENDING:
            event.path = self._disk.rename_later(event.path, READY)

    def remove(self, *events: PendingEvent) -> None:
        """Delete events that were published, or whose session still exists."""
        for event in events:
            self._forget(event)
        self._disk.remove_later(event.path for event in events if event.path is not None and not event.writing)

    def _forget(self, event: PendingEvent) -> None:
        self._pending.remove(event)
        for names in self._removed_during_scans:
            names.add(event.name)

    def set_aside(self, event: PendingEvent, suffix: str, why: str) -> None:
        """Stop publishing an event, and keep it for inspection: rename its file, or write it, in the background."""
        self._forget(event)
        self._counts.refused += suffix == REFUSED
        self._counts.expired += suffix == EXPIRED
        event.aside_suffix = suffix
        when = "" if event.path is not None else " once it is written (it is only in memory)"
        log.error("event %s is set aside as %s%s%s: %s", event.id or "?", event.name, suffix, when, why)
        if event.writing:
            return  # `_write` renames the file
        if event.path is not None:
            self._disk.rename_later(event.path, suffix)
        else:
            self._disk.track(asyncio.ensure_future(self._write(event, suffix)))

    def expire(self) -> None:
        """Set aside the events that are older than `outbox_max_age`."""
        for event in list(self._pending.by_name.values()):
            self._expire_if_old(event)

    def _expire_if_old(self, event: PendingEvent) -> bool:
        if time.time() - event.stored_at <= self._max_age:
            return False
        self.set_aside(event, EXPIRED, f"it is older than outbox_max_age ({self._max_age:g} s)")
        return True

    # ── publishing ──

    async def take(self, lane: Lane, max_count: int, timeout: float | None = None) -> list[PendingEvent]:  # noqa: ASYNC109
        """Wait for ready events and return the oldest. They belong to the caller until `remove` or `requeue`.

        Returns an empty list after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not (found := self._pending.take(lane, max_count)):
                    self._ready_signals[lane].clear()
                    await self._ready_signals[lane].wait()
        except TimeoutError:
            return []
        return found

    def defer(self, event: PendingEvent) -> None:
        """Exclude the event from `take` until `restore_deferred`."""
        self._pending.defer(event)

    def list_deferred(self, lane: Lane) -> list[PendingEvent]:
        """Return the deferred events of the lane, oldest first."""
        return self._pending.list_deferred(lane)

    def restore_deferred(self, lane: Lane) -> None:
        """Return the deferred events to the lane's queue."""
        self._pending.restore_deferred(lane)

    def has_ready(self, lane: Lane) -> bool:
        """Return whether events of the lane are queued. Events in flight and deferred events do not count."""
        return self._pending.has_ready(lane)

    def requeue(self, events: Iterable[PendingEvent]) -> None:
        """Return the taken events to their queues, unless they were removed or deferred."""
        self._pending.requeue(events)
        self._signal_all_lanes()

    async def read_or_set_aside(self, events: Sequence[PendingEvent]) -> list[tuple[PendingEvent, StoredEvent]]:
        """Return the content of the valid events.

        Sets aside expired and invalid events. An event whose file is missing is lost; an unreadable file is read again
        later. An event whose content names the other lane moves to it.
        """
        events = [event for event in events if not self._expire_if_old(event)]
        contents = {event: event.content for event in events if event.content is not None}
        paths = {event: event.path for event in events if event.content is None and event.path is not None}
        read = dict(zip(paths, await self._disk.read(list(paths.values())), strict=True))
        found = []
        for event in events:
            content = contents.get(event) or read.get(event)
            if isinstance(content, bytes):
                try:
                    stored = outbox_files.decode(content)
                except EventMistake as mistake:
                    self.set_aside(event, REFUSED, str(mistake))
                    continue
                event.id = stored.id
                if stored.lane is event.lane:
                    found.append((event, stored))
                else:  # until the file is read, its name gives the lane; an operator may have renamed it
                    event.lane = stored.lane
            elif isinstance(content, outbox_files.UntrustedFileError):
                self.set_aside(event, REFUSED, format_error(content))
            else:
                self._on_read_error(event, content)
        return found

    def _on_read_error(self, event: PendingEvent, error: OSError | None) -> None:
        if event.state is EventState.REMOVED:
            return  # its file was deleted or renamed during the read
        self._pending.remove(event)
        self._disk.needs_scan = True
        if isinstance(error, FileNotFoundError):
            self.record_loss(event.id or event.name, f"its file {event.name} was removed from the outbox")
        elif self._log_limit.allows("unread"):
            why = "it is missing" if error is None else format_error(error)
            log.error("file %s cannot be read: %s. The outbox folder will be scanned again", event.name, why)

    # ── state ──

    def __len__(self) -> int:
        """Return the number of pending events."""
        return len(self._pending)

    @property
    def in_memory_count(self) -> int:
        """Return the number of events that are only in memory."""
        return self._pending.in_memory

    @property
    def oldest_stored_at(self) -> float | None:
        """Return the time of the oldest event, in epoch seconds."""
        return self._pending.oldest_stored_at()

    @property
    def has_queued_or_in_flight(self) -> bool:
        """Return whether events are queued or in flight. Deferred events do not count."""
        return any(event.state is EventState.READY for event in self._pending.by_name.values())

    def _signal_all_lanes(self) -> None:
        for signal in self._ready_signals.values():
            signal.set()

    async def close(self, limit: float) -> None:
        """Write the events in memory to disk, then release the folder. Events that cannot be written are lost."""
        try:
            async with asyncio.timeout(limit):
                if self._pending.in_memory:
                    await self.claim_and_take_over()
                    await self.flush_memory_to_disk()
                await self._disk.finish()
        except TimeoutError:
            pass
        if self._pending.in_memory:
            self._counts.lost += self._pending.in_memory
            log.error("%d events are LOST: they were in memory, and cannot be written to disk", self._pending.in_memory)
        await self._disk.close()

"""The outbox: every event is a file before it is published, or in memory where the disk takes none.

State belongs to the event loop.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable, Sequence

from logout_notifier_publisher import outbox_files
from logout_notifier_publisher.daemon_threads import DaemonThreads
from logout_notifier_publisher.event_checks import EventMistake
from logout_notifier_publisher.lane import Lane
from logout_notifier_publisher.log_limit import LogLimit
from logout_notifier_publisher.outbox_disk import OutboxDisk
from logout_notifier_publisher.outbox_files import EXPIRED, PENDING, READY, REFUSED, Left, Stored
from logout_notifier_publisher.publisher_metrics import Counts
from logout_notifier_publisher.publisher_settings import PublisherSettings, words
from logout_notifier_publisher.waiting_events import Stage, Waiting, WaitingEvents

log = logging.getLogger("notifier.publisher")


class EventOutbox:
    """The pending events. Used from one event loop."""

    def __init__(self, settings: PublisherSettings, counts: Counts, threads: DaemonThreads) -> None:
        self._max_age = settings.outbox_max_age
        self._counts = counts
        self._waiting = WaitingEvents(settings.outbox_max_events, settings.outbox_max_bytes)
        self._disk = OutboxDisk(settings.folder, threads)
        self._token = secrets.token_hex(4)
        self._stamp = 0
        self._writing: set[str] = set()  # names
        self._came = {lane: asyncio.Event() for lane in Lane}
        self._log_limit = LogLimit(time.monotonic)
        self._lost_limit = LogLimit(time.monotonic, every=1.0)

    # ── opening and looking again ──

    async def open(self) -> list[Waiting]:
        """Claim a folder if there is none, and take over the events of dead processes.

        Returns the events whose session must be looked up. Never raises for the disk.
        """
        return self._load(await self._disk.look())

    def _load(self, files: Iterable[Left]) -> list[Waiting]:
        found = []
        for left in files:
            if left.path.stem not in self._waiting.by_name and left.path.stem not in self._writing:
                stage = Stage.PENDING if left.pending else Stage.READY
                event = Waiting(
                    id="", name=left.path.stem, lane=left.lane, at=left.at, size=left.size, stage=stage, path=left.path
                )  # fmt: skip
                self._waiting.add(event)
                if stage is Stage.PENDING:
                    found.append(event)
        self._wake()
        return found

    # ── keeping ──

    async def keep(self, event_id: str, lane: Lane, content: bytes, stage: Stage, limit: float) -> Waiting | None:
        """Keep an event: on disk when this returns, or in memory where the disk takes none or not within `limit`.

        Returns None if it is lost. Cancelled, the event is kept all the same; `gone` drops it.
        """
        if not self._waiting.room_in_memory(lane):
            self.lose(event_id, f"{len(self._waiting)} events wait, and memory is full")
            return None
        now = time.time_ns()
        self._stamp = max(self._stamp + 1, now)
        name = outbox_files.name_of(self._stamp, self._token, lane)
        event = Waiting(
            id=event_id, name=name, lane=lane, at=now / 1e9, size=len(content), stage=Stage.PENDING, content=content
        )
        self._waiting.add(event)
        room = self._waiting.room_on_disk(event.size, event.lane)
        if not room:
            self._tell_memory(event, "it is full (outbox_max_events, outbox_max_bytes): is the broker unreachable?")
        else:
            suffix = PENDING if stage is Stage.PENDING else READY
            writing = self._disk.behind(asyncio.ensure_future(self._write(event, suffix)))
            done, _ = await asyncio.wait({writing}, timeout=limit)
            if not done:
                self._tell_memory(event, f"the disk did not answer within {limit:g} s")
        self._counts.written(on_disk=event.path is not None)
        return event

    async def _write(self, event: Waiting, suffix: str) -> None:
        """Write an event to disk, then apply the decisions made meanwhile to its file. Never raises for the disk."""
        if event.content is None:
            return
        event.writing = True
        self._writing.add(event.name)
        try:
            await self._disk.write(event.name, event.content, suffix, lambda path: self._waiting.written(event, path))
        except OSError as error:
            self._tell_memory(event, words(error))
        finally:
            event.writing = False
            self._writing.discard(event.name)
        if event.stage is Stage.GONE and event.path is not None:
            self._disk.remove_later([event.path])
        elif event.stage is Stage.READY:
            self._rename_later(event)

    def _tell_memory(self, event: Waiting, why: str) -> None:
        if self._log_limit.allows(("memory", why)):  # a full disk is logged besides a full outbox
            log.error(
                "event %s (lane %s) waits in memory alone: the outbox %s does not take it: %s. %d such events are lost"
                " if this process ends now. The disk is tried again every 30 s",
                event.id, event.lane.value, self._disk.root, why, self._waiting.in_memory,
            )  # fmt: skip

    def lose(self, event_id: str, why: str) -> None:
        """Count and log an event that is lost."""
        self._counts.lost += 1
        if self._lost_limit.allows("lost"):
            log.error("event %s is LOST: %s. No client is notified of this sign-out", event_id, why)

    async def persist(self) -> None:
        """Give the disk another chance to take what is in memory alone."""
        for event in self._waiting.homeless():
            if not self._disk.usable:
                return
            if not self._waiting.room_on_disk(event.size, event.lane):
                continue  # a sign-out may fit where a mass logout does not
            await self._write(event, PENDING if event.stage is Stage.PENDING else READY)
            if event.path is None and event.stage is not Stage.GONE:
                return

    # ── settling ──

    def release(self, event: Waiting) -> None:
        """Let an event be published: its session has ended."""
        if event.stage is Stage.PENDING:
            self._waiting.make_ready(event)
            self._came[event.lane].set()
            if not event.writing:
                self._rename_later(event)

    def _rename_later(self, event: Waiting) -> None:
        """Not awaited and not synced: until then a restart looks the session up, or publishes."""
        if event.path is not None and event.path.suffix == PENDING:
            event.path = self._disk.rename_later(event.path, READY)

    def gone(self, *events: Waiting) -> None:
        """Delete events that were published, or whose session lives."""
        for event in events:
            self._waiting.gone(event)
        self._disk.remove_later(event.path for event in events if event.path is not None and not event.writing)

    def set_aside(self, event: Waiting, suffix: str, why: str) -> None:
        """Keep the file of an event that can never be published under another name."""
        self._waiting.gone(event)
        self._counts.refused += suffix == REFUSED
        self._counts.expired += suffix == EXPIRED
        log.error("event %s is set aside as %s%s: %s", event.id or "?", event.name, suffix, why)
        if event.path is not None and not event.writing:
            self._disk.rename_later(event.path, suffix)

    def drop_old(self) -> None:
        """Set aside the events that are older than `outbox_max_age`: their sessions have ended everywhere."""
        for event in list(self._waiting.by_name.values()):
            self._drop_if_old(event)

    def _drop_if_old(self, event: Waiting) -> bool:
        if time.time() - event.at <= self._max_age:
            return False
        self.set_aside(event, EXPIRED, f"it has waited for longer than outbox_max_age ({self._max_age:g} s)")
        return True

    # ── publishing ──

    async def take(self, lane: Lane, most: int, timeout: float | None = None) -> list[Waiting]:  # noqa: ASYNC109
        """Wait for ready events and return the oldest. They belong to the caller until `gone` or `give_back`.

        Returns an empty list after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not (found := self._waiting.take(lane, most)):
                    self._came[lane].clear()
                    await self._came[lane].wait()
        except TimeoutError:
            return []
        return found

    def defer(self, event: Waiting) -> None:
        """Publish the other events of the lane without this one."""
        self._waiting.defer(event)

    def deferred(self, lane: Lane) -> list[Waiting]:
        """Return the deferred events of the lane, oldest first."""
        return self._waiting.deferred(lane)

    def restore_deferred(self, lane: Lane) -> None:
        """Publish the deferred events of the lane like all others."""
        self._waiting.restore_deferred(lane)

    def has_ready(self, lane: Lane) -> bool:
        """Whether something of the lane can be taken now."""
        return self._waiting.has_ready(lane)

    def give_back(self, events: Iterable[Waiting]) -> None:
        """Queue the events that are still to be published."""
        self._waiting.give_back(events)
        self._wake()

    async def contents(self, events: Sequence[Waiting]) -> list[tuple[Waiting, Stored]]:
        """Return the content of each event. An invalid event is set aside; an unreadable file is tried again later."""
        events = [event for event in events if not self._drop_if_old(event)]
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
                else:  # somebody gave the file another name
                    event.lane = stored.lane
                    self.give_back([event])
            elif isinstance(content, outbox_files.NotOurOwnError):
                self.set_aside(event, REFUSED, words(content))
            else:
                self._cannot_read(event, content)
        return found

    def _cannot_read(self, event: Waiting, error: OSError | None) -> None:
        self._waiting.gone(event)
        self._disk.unread = True
        if self._log_limit.allows("unread"):
            why = "it is gone" if error is None else words(error)
            log.error("file %s cannot be read: %s. It, and others, are looked for again", event.name, why)

    # ── the rest ──

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def in_memory(self) -> int:
        """How many of them no file holds."""
        return self._waiting.in_memory

    @property
    def oldest(self) -> float | None:
        """Since when the oldest waits, in epoch seconds."""
        return self._waiting.oldest()

    @property
    def any_ready(self) -> bool:
        """Whether there is something to publish."""
        return any(event.stage is Stage.READY for event in self._waiting.by_name.values())

    def _wake(self) -> None:
        for came in self._came.values():
            came.set()

    async def close(self, limit: float) -> None:
        """Release the folder. Events in memory are written to disk now, or are lost."""
        try:
            async with asyncio.timeout(limit):
                if self._waiting.in_memory:
                    await self.open()
                    await self.persist()
                await self._disk.finish()
        except TimeoutError:
            pass
        if self._waiting.in_memory:
            self._counts.lost += self._waiting.in_memory
            log.error("%d events are LOST: they were in memory, and cannot be written to disk", self._waiting.in_memory)
        await self._disk.close()

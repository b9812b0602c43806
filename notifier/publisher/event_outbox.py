"""The outbox: every event is a file before it is published, or in memory where the disk takes none.

State belongs to the event loop. The disk is used on threads of its own, so that one that hangs holds no sign-out, and
no thread of the application's. Writers share the fsync of the folder.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from notifier.domain.message import Lane
from notifier.publisher import outbox_files
from notifier.publisher.ended import EventMistake
from notifier.publisher.outbox_files import EXPIRED, PENDING, READY, REFUSED, Left, Stored
from notifier.publisher.outbox_folder import OutboxFolder
from notifier.publisher.publisher_metrics import Counts
from notifier.publisher.publisher_settings import PublisherSettings, words
from notifier.publisher.seldom import Seldom
from notifier.publisher.waiting_events import Stage, Waiting, WaitingEvents

T = TypeVar("T")
THREADS = 8  # a file's fsync takes about a millisecond, and several at once share the disk's own

log = logging.getLogger("notifier.publisher")


class EventOutbox:
    """What waits to be published. Used from one event loop."""

    def __init__(self, settings: PublisherSettings, counts: Counts) -> None:
        self._root = settings.folder
        self._max_age = settings.outbox_max_age
        self._counts = counts
        self._waiting = WaitingEvents(settings.outbox_max_events, settings.outbox_max_bytes)
        self._folder: OutboxFolder | None = None
        self._token = secrets.token_hex(4)
        self._stamp = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="notifier-outbox")
        # Renames and deletions, which nobody waits for, one after another: none overtakes the one before.
        self._one_by_one = ThreadPoolExecutor(1, thread_name_prefix="notifier-outbox-names")
        self._behind: set[asyncio.Future[None]] = set()
        self._came = {lane: asyncio.Event() for lane in outbox_files.LANES}
        self._syncing: asyncio.Task[None] | None = None
        self._next_sync: asyncio.Task[None] | None = None
        self._seldom = Seldom(time.monotonic)
        self._lost = Seldom(time.monotonic, every=1.0)
        self._unread = False  # a file could not be read or taken over: look at the folder again

    # ── opening and looking again ──

    async def open(self) -> list[Waiting]:
        """Claim a folder, or look whether one can be had now; take over what dead processes left.

        Returns those whose session is to be looked up. Never raises for the disk.
        """
        try:
            if (folder := self._folder) is not None and not await self._on_disk(folder.path.is_dir):
                folder.close()  # somebody has deleted it
                self._folder = None
            if self._folder is None:
                self._folder = await self._on_disk(OutboxFolder.claim, self._root)
                self._unread = True
                log.info("outbox %s opened", self._folder.path)
            taken = await self._on_disk(self._folder.take_over, self._not_taken_over)
            if not taken and not self._unread:
                return []
            self._unread = False
            found = self._load(await self._on_disk(outbox_files.left_in, self._folder.path))
        except OSError as error:
            if self._seldom.now("folder"):
                log.error(  # noqa: TRY400  the cause says enough
                    "the outbox %s cannot be used: %s. Sign-outs go on; their events wait in memory alone, and are lost"
                    " if this process ends before they are published. Give the folder to this user, or make room",
                    self._root, words(error),
                )  # fmt: skip
            return []
        self._seldom.forget("folder")
        if taken:
            log.info("took over %d events that ended processes had left below %s", taken, self._root)
        return found

    def _not_taken_over(self, folder: Path, error: OSError) -> None:
        self._unread = True
        if self._seldom.now(folder):
            log.error("what an ended process left in %s cannot be taken over: %s. Tried again", folder, words(error))

    def _load(self, files: Iterable[Left]) -> list[Waiting]:
        found = []
        for left in files:
            if left.path.stem not in self._waiting.by_name:
                stage = Stage.PENDING if left.pending else Stage.READY
                event = Waiting(
                    id="", name=left.path.stem, lane=left.lane, at=left.at, size=left.size, stage=stage,
                    path=left.path, left=True,
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
        if not self._waiting.room_in_memory:
            self.lose(event_id, f"{len(self._waiting)} events wait, and memory is full")
            return None
        now = time.time_ns()
        self._stamp = max(self._stamp + 1, now)
        name = outbox_files.name_of(self._stamp, self._token, lane)
        event = Waiting(
            id=event_id, name=name, lane=lane, at=now / 1e9, size=len(content), stage=Stage.PENDING, content=content
        )
        self._waiting.add(event)
        room = self._waiting.room_on_disk(event.size)
        if not room:
            self._tell_memory(event, "it is full (outbox_max_events, outbox_max_bytes): is the broker away?")
        else:
            writing = asyncio.ensure_future(self._write(event, PENDING if stage is Stage.PENDING else READY))
            self._behind.add(writing)
            writing.add_done_callback(self._behind.discard)
            done, _ = await asyncio.wait({writing}, timeout=limit)
            if not done:
                self._tell_memory(event, f"the disk did not answer within {limit:g} s")
        self._counts.written(on_disk=event.path is not None)
        return event

    async def _write(self, event: Waiting, suffix: str) -> None:
        """Put it on disk. Whatever was decided about it meanwhile is done to the file. Never raises for the disk."""
        folder, content = self._folder, event.content
        if folder is None or content is None:
            self._tell_memory(event, "there is no folder")
            return
        event.writing = True
        try:
            path = await self._on_disk(outbox_files.write, folder.path, event.name, content, suffix)
            self._waiting.written(event, path)
            await self._synced(folder)
        except OSError as error:
            self._tell_memory(event, words(error))
        finally:
            event.writing = False
        if event.stage is Stage.GONE and event.path is not None:
            self._remove_later([event.path])
        elif event.stage is Stage.READY:
            self._rename_later(event)

    def _tell_memory(self, event: Waiting, why: str) -> None:
        if self._seldom.now("memory"):
            log.error(
                "event %s (lane %s) waits in memory alone: the outbox %s does not take it: %s. %d such events are lost"
                " if this process ends now. The disk is tried again every 30 s",
                event.id, event.lane.value, self._root, why, self._waiting.in_memory,
            )  # fmt: skip

    def lose(self, event_id: str, why: str) -> None:
        """Nobody will hear of this ending."""
        self._counts.lost += 1
        if self._lost.now("lost"):
            log.error("event %s is LOST: %s. Nobody hears of this sign-out", event_id, why)

    async def persist(self) -> None:
        """Give the disk another chance to take what is in memory alone."""
        for event in self._waiting.homeless():
            if self._folder is None or not self._waiting.room_on_disk(event.size):
                return
            await self._write(event, PENDING if event.stage is Stage.PENDING else READY)
            if event.path is None and event.stage is not Stage.GONE:
                return

    async def _synced(self, folder: OutboxFolder) -> None:
        """The names of the folder are durable. Whoever comes while an fsync runs shares the next one."""
        if self._next_sync is None:
            self._next_sync = asyncio.ensure_future(self._sync(folder, self._syncing))
        await self._next_sync

    async def _sync(self, folder: OutboxFolder, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait({before})
        self._syncing, self._next_sync = self._next_sync, None
        await self._on_disk(outbox_files.sync, folder.path)

    # ── settling ──

    def release(self, event: Waiting) -> None:
        """Its session has ended: it is published as soon as can be."""
        if event.stage is Stage.PENDING:
            self._waiting.make_ready(event)
            self._came[event.lane].set()
            if not event.writing:
                self._rename_later(event)

    def _rename_later(self, event: Waiting) -> None:
        """Not awaited and not synced: until then a restart looks the session up, or publishes."""
        if event.path is not None and event.path.suffix == PENDING:
            old, event.path = event.path, event.path.with_suffix(READY)
            self._later(outbox_files.rename, old, READY)

    def gone(self, *events: Waiting) -> None:
        """They were published, or their session lives."""
        for event in events:
            self._waiting.gone(event)
        self._remove_later(event.path for event in events if event.path is not None and not event.writing)

    def _remove_later(self, paths: Iterable[Path]) -> None:
        names = [name for path in paths for name in (path, path.with_suffix(PENDING))]  # its rename may have failed
        if names:
            self._later(outbox_files.remove, names)

    def set_aside(self, event: Waiting, suffix: str, why: str) -> None:
        """It can never be published. Its file is kept under another name."""
        self._waiting.gone(event)
        self._counts.refused += suffix == REFUSED
        self._counts.expired += suffix == EXPIRED
        log.error("event %s is set aside as %s%s: %s", event.id or "?", event.name, suffix, why)
        if event.path is not None and not event.writing:
            self._later(outbox_files.rename, event.path, suffix)

    def drop_old(self) -> None:
        """Set aside what nobody could take for so long that its sessions have ended everywhere."""
        for event in list(self._waiting.by_name.values()):
            self._drop_if_old(event)

    def _drop_if_old(self, event: Waiting) -> bool:
        if time.time() - event.at <= self._max_age:
            return False
        self.set_aside(event, EXPIRED, f"it has waited for longer than outbox_max_age ({self._max_age:g} s)")
        return True

    # ── publishing ──

    async def take(self, lane: Lane, most: int) -> list[Waiting]:
        """The oldest that are ready; waits for one. They are the caller's until `gone` or `give_back`."""
        while not (found := self._waiting.take(lane, most)):
            self._came[lane].clear()
            await self._came[lane].wait()
        return found

    def has_ready(self, lane: Lane) -> bool:
        """Whether something of the lane can be taken now."""
        return self._waiting.has_ready(lane)

    def give_back(self, events: Iterable[Waiting]) -> None:
        """Those still to be published."""
        self._waiting.give_back(events)
        self._wake()

    async def contents(self, events: Sequence[Waiting]) -> list[tuple[Waiting, Stored]]:
        """What they hold. One that is no event is set aside; one that cannot be read now is looked for again later."""
        events = [event for event in events if not self._drop_if_old(event)]
        contents = {event: event.content for event in events if event.content is not None}
        paths = {event: event.path for event in events if event.content is None and event.path is not None}
        read = dict(zip(paths, await self._on_disk(_read_all, list(paths.values())), strict=True))
        found = []
        for event in events:
            content = contents.get(event) or read.get(event)
            if isinstance(content, bytes):
                try:
                    stored = outbox_files.decode(content, now=time.time())
                except EventMistake as mistake:
                    self.set_aside(event, REFUSED, str(mistake))
                    continue
                event.id = stored.id
                if stored.lane is event.lane:
                    found.append((event, stored))
                else:  # somebody gave the file another name
                    event.lane = stored.lane
                    self.give_back([event])
            else:
                self._cannot_read(event, content)
        return found

    def _cannot_read(self, event: Waiting, error: OSError | None) -> None:
        self._waiting.gone(event)
        self._unread = True
        if self._seldom.now("unread"):
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

    def _later(self, what: Callable[..., object], *arguments: object) -> None:
        async def run() -> None:
            try:
                await asyncio.get_running_loop().run_in_executor(self._one_by_one, what, *arguments)
            except OSError as error:
                if not isinstance(error, FileNotFoundError) and self._seldom.now("later"):
                    log.warning("a file of the outbox %s cannot be renamed or deleted: %s", self._root, words(error))

        task = asyncio.ensure_future(run())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _on_disk(self, what: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, what, *arguments)

    async def close(self, limit: float) -> None:
        """Let another process have the folder. What is in memory alone goes to disk now, or is lost."""
        try:
            async with asyncio.timeout(limit):
                if self._waiting.in_memory:
                    await self.open()
                    await self.persist()
                while self._behind:
                    await asyncio.wait(set(self._behind))
        except TimeoutError:
            pass
        if self._waiting.in_memory:
            self._counts.lost += self._waiting.in_memory
            log.error("%d events are LOST: they were in memory alone, and the disk takes none", self._waiting.in_memory)
        if self._folder is not None:
            self._folder.close()
        for threads in (self._threads, self._one_by_one):
            threads.shutdown(wait=False, cancel_futures=True)


def _read_all(paths: Sequence[Path]) -> list[bytes | OSError]:
    found: list[bytes | OSError] = []
    for path in paths:
        try:
            found.append(outbox_files.read_either(path))
        except OSError as error:
            found.append(error)
    return found

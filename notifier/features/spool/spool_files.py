"""Runs the work on the spool's files in a thread, one call at a time, and records its results in the state.

A file system that hangs delays neither the event loop nor a sender beyond its deadline. Sign-outs that arrive during a
write share the next one, up to its bounds: senders take turns, so that a burst of one delays no other, and the first of
a burst are answered before the last are written.
"""

import asyncio
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, count
from typing import Any, Literal, TypeAlias, TypeVar

import structlog

from notifier.features.spool.spool_entries import DoneNote, Place, ReceivedSignOut, dump_entry
from notifier.features.spool.spool_folder import SpoolFolder
from notifier.features.spool.spool_state import SpoolState
from notifier.model.errors import describe_error
from notifier.model.moment import Clock
from notifier.model.own_thread import run_in_thread
from notifier.model.record import record
from notifier.model.shared_resources import shared_bound, shared_lock
from notifier.settings.file_owners import UnusableFileError

T = TypeVar("T")
MAX_WRITTEN_BYTES = shared_bound(2 * 1024**2)  # of messages in one write, or a single message
MAX_WRITTEN_TOGETHER = 128
PATIENCE_SECONDS = 2.0  # with the file system, before that is a problem
FOLDER_ERRORS = (OSError, UnusableFileError)
Written: TypeAlias = Literal["written", "full", "failed"]
"""An entry or a copy of it is durable; or its sender's share is used up; or the folder or the entry cannot be used."""
_HELP = "notifier explain NotifierSpoolFailing"


@record
class _Write:
    sign_out: ReceivedSignOut
    on_written: Callable[[], None]
    result: asyncio.Future[Written]


class SpoolFiles:
    """The files of a spool, and what is wrong with them: `fault` with the folder, `file_faults` with single files."""

    def __init__(
        self, folder: SpoolFolder, state: SpoolState, senders: Callable[[], list[str]], clock: Clock, monotonic: Clock
    ) -> None:
        self._folder = folder
        self._state = state
        self._senders = senders
        self._clock = clock
        self._monotonic = monotonic
        self._writes: list[_Write] = []
        self._writer: asyncio.Task[None] | None = None
        self._lock = shared_lock()  # so that the state has what the files have, before other work begins
        self._work: asyncio.Future[Any] | None = None
        self._notes: list[tuple[str, DoneNote]] = []
        self.fault: str | None = None
        self.file_faults: tuple[str, ...] = ()

    async def open(self) -> None:
        """Open the folder. Raises what `SpoolFolder.own_file` raises."""
        async with self._lock:
            await self._run(self._folder.own_file)

    async def close(self) -> None:
        """Release the files."""
        await self.write_notes()
        async with self._lock:
            await self._run(self._folder.close)

    async def write(self, sign_out: ReceivedSignOut, on_written: Callable[[], None]) -> Written:
        """Return once the entry of a sign-out, or a copy, is durable, or cannot be written.

        `on_written` is called once it is in the state, even if the caller has left.
        """
        result: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._writes.append(_Write(sign_out=sign_out, on_written=on_written, result=result))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        return await result

    async def _write_all(self) -> None:
        try:
            while batch := self._next_writes():
                async with self._lock:
                    await self._write(batch)
        finally:
            self._writer = None

    def _next_writes(self) -> list[_Write]:
        """Return what to write together: of each sender by turns, without those whose callers have left."""
        turns = defaultdict[str, Iterator[int]](count)  # by sender
        waiting = [write for write in self._writes if not write.result.done()]
        waiting.sort(key=lambda write: next(turns[write.sign_out.sender]))
        sizes = accumulate(len(write.sign_out.message.body) for write in waiting)
        most = min(max(1, bisect([*sizes], MAX_WRITTEN_BYTES)), MAX_WRITTEN_TOGETHER)
        self._writes = waiting[most:]
        return waiting[:most]

    async def _write(self, batch: Sequence[_Write]) -> None:
        writes = {write.sign_out.id: write for write in batch}  # one of several copies
        results: dict[str, Written] = dict.fromkeys(writes, "failed")
        try:
            await self._look(take_over=False)
            made = {entry_id: dump_entry(write.sign_out) for entry_id, write in writes.items()}
            lines = {entry_id: line for entry_id, line in made.items() if line is not None}
            sizes = [(entry_id, writes[entry_id].sign_out.sender, len(line)) for entry_id, line in lines.items()]
            admitted, full = self._state.admit(sizes, len(self._senders()), self._monotonic())
            file, offsets = await self._run(partial(self._folder.append, [lines[entry_id] for entry_id in admitted]))
        except Exception as error:  # noqa: BLE001  each sender gets its 503
            self.on_fault(describe_error(error))
        else:
            self.on_fault(None)
            for entry_id in lines:
                results[entry_id] = "full" if entry_id in full else "written"
            for entry_id, offset in zip(admitted, offsets, strict=True):
                entry, size, moment = writes[entry_id].sign_out, len(lines[entry_id]), self._monotonic()
                place = Place(
                    id=entry_id, sender=entry.sender, at=entry.at, lane=entry.lane, file=file, offset=offset, size=size
                )  # fmt: skip
                self._state.add(place, entry.received_at, moment, is_ours=True)
                writes[entry_id].on_written()
        for write in batch:
            if not write.result.done():
                write.result.set_result(results[write.sign_out.id])

    async def look(self, *, take_over: bool) -> None:
        """Read other workers' entries. With `take_over` also the files of ended workers; then drop published ones.

        Raises FOLDER_ERRORS.
        """
        async with self._lock:
            await self._look(take_over=take_over)

    async def _look(self, *, take_over: bool) -> None:
        files, faults = await self._run(partial(self._folder.look, take_over=take_over))
        moment, now = self._monotonic(), self._clock()
        for _ in self._state.on_look(files, moment, now):
            await asyncio.sleep(0)
        for fault in faults:
            if fault not in self.file_faults:
                structlog.get_logger().error("spool_file_fault", reason=fault, help=_HELP)
        self.file_faults = faults
        if take_over:
            await self._run(partial(self._folder.tidy, self._state.busy_files(), self._state.notes(moment, now)))
            await self._run(self._folder.check_room)

    async def read(self, places: Sequence[Place]) -> list[bytes]:
        """Return the lines of entries: nothing for one that cannot be read."""
        async with self._lock:
            return await self._run(lambda: [*map(self._folder.read, places)])

    async def set_aside(self, file: str) -> None:
        """Keep a damaged file under another name: its other entries move, if they can be read. Raises FOLDER_ERRORS."""
        async with self._lock:
            self._folder.on_damage(file)
            await self._look(take_over=False)

    def note(self, place: Place) -> None:
        """Note with the next `write_notes` that the entry is published."""
        self._notes.append((place.file, DoneNote(id=place.id, at=self._clock())))

    async def write_notes(self) -> None:
        """Write the notes so far. Those that the disk does not take are written later."""
        async with self._lock:
            notes, self._notes = self._notes, []
            try:
                if notes:
                    await self._run(partial(self._folder.note, notes))
            except OSError as error:
                self._notes[:0] = notes
                self.on_fault(describe_error(error))

    def on_fault(self, fault: str | None) -> None:
        """Record and log that the folder cannot be used; None: that it can."""
        if fault == self.fault:
            return
        log = structlog.get_logger()
        if fault is None:
            log.info("spool_usable")
        else:
            log.error("spool_failing", reason=fault, help=_HELP)
        self.fault = fault

    async def _run(self, work: Callable[[], T]) -> T:
        """Return the result of work in a thread, after work whose caller has left. The lock is held meanwhile."""
        while self._work is not None and not self._work.done():
            await asyncio.wait({self._work})
        running = run_in_thread(work, "spool")
        self._work = running
        if not (await asyncio.wait({running}, timeout=PATIENCE_SECONDS))[0]:
            self.on_fault(f"its file system does not answer within {PATIENCE_SECONDS:g} s")
        return await asyncio.shield(running)

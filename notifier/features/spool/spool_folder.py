"""Reads and writes the files of the spool. Every method blocks, and runs on a thread, one at a time.

Each process writes to one file, and locks its files while it lives: the kernel releases the locks when the process
ends. A worker that can lock a file takes it over, since its process has ended. The files of other living workers are
only read, to count and recognise their entries. A file is emptied once all its entries are published; only the notes of
the last minutes stay in it, and then it is removed.

Another user must not be able to write to the folder, since its files decide whose sessions end: it is checked like that
of `registry.cache`. Files are opened relative to it, without following links, and must have one name.
"""

import os
import secrets
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import accumulate
from pathlib import Path

from notifier.features.spool.spool_entries import (
    HEADING,
    READ_BYTES,
    DoneNote,
    Place,
    dump_done,
    judge_heading,
    load_entry,
    scan,
)
from notifier.features.spool.spool_file import SpoolFile, UnusableFolderError
from notifier.features.spool.spool_state import MAX_FOLDER_BYTES, FileLines
from notifier.model.errors import describe_error
from notifier.model.record import copy_record
from notifier.settings.file_owners import UnusableFileError, open_own_folder, open_owned

SUFFIX, DAMAGED_SUFFIX = ".spool", ".corrupt"
MAX_FILE_BYTES = 8 * 1024**2  # then the next entries go to another file, so that this one can be emptied
_READ_FLAGS = os.O_RDWR | os.O_NONBLOCK


class SpoolFolder:
    """The folder at `root`. `used`: the size of all its files in bytes: at the last look, plus the entries since."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stack = ExitStack()
        self._folder: int | None = None
        self._files: dict[str, SpoolFile] = {}
        self._own: str | None = None
        self._damaged: set[str] = set()  # files to set aside at the next look
        self._gone: set[str] = set()  # files that were closed since the last look
        self._found: list[FileLines] = []  # what the next look returns, even if the present one fails
        self.used = 0

    def close(self) -> None:
        """Release all files."""
        for name in [*self._files]:
            self._forget(name)
        self._folder = None
        self._stack.close()

    # ── writing ──

    def append(self, lines: Sequence[bytes]) -> tuple[str, Sequence[int]]:
        """Write entries durably. Return the file, and the offset of each line. Raises OSError: then none is written."""
        (name, file), size = self.own_file(), sum(map(len, lines))
        begin = file.end
        if self.used + size > MAX_FOLDER_BYTES:
            raise UnusableFolderError(f"its files have {MAX_FOLDER_BYTES // 1024**2} MiB together, with unread ones")
        file.write(b"".join(lines))
        try:
            os.fsync(file.descriptor)
        except OSError:
            self._own = None  # the state of the file is unknown from now on, so the next lines go to another one
            file.cut(begin)
            raise
        self.used += size
        return name, [begin + offset for offset in accumulate(map(len, lines), initial=0)][: len(lines)]

    def note(self, notes: Iterable[tuple[str, DoneNote]]) -> None:
        """Note in their files which entries are published. Without fsync: a lost note only repeats a publish."""
        for name, note in notes:
            if (file := self._files.get(name)) is not None and file.is_writable:
                file.write(dump_done(note.id, note.at))

    def tidy(self, busy: Collection[str], notes: Iterable[tuple[str, DoneNote]]) -> None:
        """Empty the files of this worker without entries, and remove those without recent notes. Raises OSError.

        `busy`: the files with entries. `notes`: the recent ones, each with its file.
        """
        idle = {name: list[bytes]() for name, file in self._files.items() if file.is_writable and name not in busy}
        for name, note in notes:
            if name in idle:
                idle[name].append(dump_done(note.id, note.at))
        for name, lines in idle.items():
            if lines or name == self._own:
                file = self._files[name]
                os.ftruncate(file.descriptor, len(HEADING))
                file.end = len(HEADING)
                file.write(b"".join(lines))
            else:
                self._forget(name, remove=True)

    def check_room(self) -> None:
        """Raise OSError if the disk is full."""
        _, file = self.own_file()
        os.posix_fallocate(file.descriptor, file.end, READ_BYTES)
        os.ftruncate(file.descriptor, file.end)

    def on_damage(self, name: str) -> None:
        """Set a file aside at the next look, since a line of it is not what was written."""
        self._damaged.add(name)

    def _set_aside(self, name: str) -> FileLines:
        """Keep a damaged file under another name. First move its valid entries."""
        moved = self._move(name)
        kept = name.removesuffix(SUFFIX) + DAMAGED_SUFFIX
        os.rename(name, kept, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._forget(name)
        return moved

    def _on_removed(self, name: str) -> str | None:
        """Move the entries of a file that somebody removed: this worker has answered their senders, if it is its file.

        Return a text about them.
        """
        moved = self._move(name) if self._files[name].is_writable else None
        self._forget(name)
        if moved is None or not moved.items:
            return None
        self._found.append(moved)
        return f"{name} was removed while this worker used it: its {len(moved.items)} sign-outs are in {moved.file} now"

    def _move(self, name: str) -> FileLines:
        """Copy the valid entries of a file into that of this process. Raises OSError."""
        if name == self._own:
            self._own = None
        descriptor = self._files[name].descriptor
        items, _, _ = scan(name, partial(os.pread, descriptor, READ_BYTES), len(HEADING))
        done = {item.id for item in items if isinstance(item, DoneNote)}
        places = [item for item in items if isinstance(item, Place) and item.id not in done]
        lines = [os.pread(descriptor, place.size, place.offset) for place in places]
        valid = [(place, line) for place, line in zip(places, lines, strict=True) if load_entry(line) is not None]
        own, offsets = self.append([line for _, line in valid])
        moved = [copy_record(place, file=own, offset=at) for (place, _), at in zip(valid, offsets, strict=True)]
        return FileLines(file=own, is_ours=True, is_new_look=False, items=tuple(moved))

    def _forget(self, name: str, *, remove: bool = False) -> None:
        if remove:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
        os.close(self._files.pop(name).descriptor)
        self._gone.add(name)
        self._found = [lines for lines in self._found if lines.file != name]
        self._damaged.discard(name)
        if name == self._own:
            self._own = None

    # ── reading ──

    def read(self, place: Place) -> bytes:
        """Return the line of an entry; nothing if it cannot be read."""
        file = self._files.get(place.file)
        try:
            return b"" if file is None else os.pread(file.descriptor, place.size, place.offset)
        except OSError:
            return b""

    def look(self, *, take_over: bool) -> tuple[Sequence[FileLines], tuple[str, ...]]:
        """Return what is new in the files of others, and what is wrong with files: texts that begin with their names.

        `take_over`: also lock files that no process has. Raises OSError.
        """
        sizes = dict[str, int]()
        with os.scandir(self._open_folder()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        names = sorted(name for name in sizes if name.endswith(SUFFIX))
        self.used = sum(sizes.values())
        files = [*self._files.items()]
        gone = [name for name, file in files if name not in names or not os.fstat(file.descriptor).st_nlink]
        removed = [*map(self._on_removed, gone)]
        faults = [text for text in removed if text is not None]
        for name in names:
            try:
                found = self._look_at(name, take_over=take_over)
            except FileNotFoundError:  # removed since it was listed
                continue
            except UnusableFileError as foreign:
                faults.append(f"{foreign}: remove it, or chown it")
            except OSError as error:
                faults.append(f"{name}: {describe_error(error)}")
            else:
                if isinstance(found, str):
                    faults.append(found)
                elif found.items or found.is_new_look:
                    self._found.append(found)
        names = os.listdir(self._open_folder())  # noqa: PTH208  a descriptor
        damaged = sorted(name for name in names if name.endswith(DAMAGED_SUFFIX))
        faults += [f"{name} is kept, since a line of it is damaged: look into it, then remove it" for name in damaged]
        lines = [*(FileLines(file=name) for name in self._gone), *self._found]
        self._gone.clear()
        self._found.clear()
        return lines, tuple(faults)

    def _look_at(self, name: str, *, take_over: bool) -> FileLines | str:
        """Return what is new in a file, or why it is not read. Raises OSError, UnusableFileError."""
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = SpoolFile(self._open_file(name))
        if take_over and not file.is_ours and file.lock():
            file.is_ours, file.end = True, 0
        status = os.fstat(file.descriptor)
        if status.st_nlink != 1:
            self._forget(name)
            raise FileNotFoundError(name)
        wrong = None
        is_new = not 0 < file.end <= status.st_size
        if is_new:
            wrong = judge_heading(os.pread(file.descriptor, 64, 0))
            if wrong == "newer":
                self._forget(name)
                return f"{name} was written by a newer release, which must publish it"
        scan_from = partial(scan, name, partial(os.pread, file.descriptor, READ_BYTES))
        items, end, is_damaged = scan_from(len(HEADING) if is_new else file.end)
        is_damaged |= wrong is not None or name in self._damaged
        if is_damaged and file.is_ours:
            return self._set_aside(name)
        if (is_new or not file.is_ours) and any(isinstance(item, Place) for item in items):
            os.fsync(file.descriptor)  # copies of these are answered 200, and their worker may not have done so
        file.end = 0 if is_damaged and not is_new else end  # 0: its worker may empty it just now
        if file.is_ours and is_new:  # a torn end must not run into the next line
            os.ftruncate(file.descriptor, file.end if status.st_size >= len(HEADING) else 0)
            os.pwrite(file.descriptor, HEADING, 0)
        return FileLines(file=name, is_ours=file.is_ours, is_new_look=is_new, items=items)

    def _open_folder(self) -> int:
        """Return the descriptor of the folder. Make it again if it was removed. Raises OSError, UnusableFileError."""
        if self._folder is not None and not os.fstat(self._folder).st_nlink:
            self._folder = self._own = None
            self._stack.close()
        if self._folder is None:
            self._folder = self._stack.enter_context(open_own_folder(self.root, make=True))
        return self._folder

    def _open_file(self, name: str, flags: int = _READ_FLAGS) -> int:
        return open_owned(name, flags, dir_fd=self._open_folder(), regular=True)

    def own_file(self) -> tuple[str, SpoolFile]:
        """Return the file of this process. Make one if it has none, or a large one.

        Raises OSError, UnusableFileError; UnusableFolderError if the file system has no locks.
        """
        self._open_folder()
        if self._own is not None and self._files[self._own].end < MAX_FILE_BYTES:
            return self._own, self._files[self._own]
        name = secrets.token_hex(8) + SUFFIX
        try:
            file = SpoolFile(self._open_file(name, _READ_FLAGS | os.O_CREAT | os.O_EXCL))
        except OSError as error:
            error.filename = None  # by its random name each try would look like another fault
            raise
        try:
            file.is_ours = file.lock()
            if file.is_ours:
                file.write(HEADING)
                os.fsync(file.descriptor)
                os.fsync(self._open_folder())
        except BaseException:
            os.close(file.descriptor)
            with suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
            raise
        if not file.is_ours:  # another worker has taken over the new file, and removes it as empty
            os.close(file.descriptor)
            return self.own_file()
        self._files[name], self._own = file, name
        return name, file

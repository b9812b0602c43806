"""Reads and writes the files of the spool. Every method blocks, and runs on a thread, one at a time.

Each process writes to one file, and locks its files while it lives: the kernel releases the locks when the process
ends. A worker that can lock a file takes it over, since its process has ended. The files of other living workers are
only read, to count and recognise their entries. A file is emptied once all its entries are published; only the notes of
the last minutes stay in it.

Another user must not be able to write to the folder, since its files decide whose sessions end: it is checked like that
of `registry.cache`. Files are opened relative to it, without following links, and must have one name.
"""

import fcntl
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
    ScannedEntry,
    dump_done,
    judge_heading,
    scan,
)
from notifier.features.spool.spool_state import MAX_FOLDER_BYTES, FileLines, FolderFault, FolderLook, Place
from notifier.model.errors import NotifierError, describe_error
from notifier.settings.file_owners import UnusableFileError, open_own_folder, open_owned

SUFFIX, DAMAGED_SUFFIX = ".spool", ".corrupt"
MAX_FILE_BYTES = 8 * 1024**2  # then the next entries go to another file, so that this one can be emptied
_READ_FLAGS = os.O_RDWR | os.O_NONBLOCK


class UnusableFolderError(NotifierError, OSError):
    """The folder cannot be used: it is full, or two workers would publish the same entries. The text has the reason."""


class _File:
    """An open file. `end`: the offset behind the last line that was read or written."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.end = 0
        self.is_ours = False


class SpoolFolder:
    """The folder at `root`. `used`: the size of all its files in bytes: at the last look, plus the entries since."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stack = ExitStack()
        self._folder: int | None = None
        self._files: dict[str, _File] = {}
        self._own: str | None = None
        self._reread: set[str] = set()
        self._gone: set[str] = set()  # since the last look
        self.used = 0

    def close(self) -> None:
        """Release all files. An empty file of this process is removed."""
        own = self._own
        if own is not None and self._files[own].end <= len(HEADING):
            self._forget(own, remove=True)
        self._release()

    def _release(self) -> None:
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
        _write(file, b"".join(lines))
        try:
            os.fsync(file.descriptor)
        except OSError:
            self._own = None  # the state of the file is unknown from now on, so the next lines go to another one
            file.end = begin
            with suppress(OSError):
                os.ftruncate(file.descriptor, begin)
            raise
        self.used += size
        return name, [begin + offset for offset in accumulate(map(len, lines), initial=0)][: len(lines)]

    def note(self, notes: Iterable[tuple[str, DoneNote]]) -> None:
        """Note in their files which entries are published. Without fsync: a lost note only repeats a publish."""
        for name, note in notes:
            if (file := self._files.get(name)) is not None and file.is_ours:
                _write(file, dump_done(note.id, note.at))

    def tidy(self, busy: Collection[str], notes: Iterable[tuple[str, DoneNote]]) -> str:
        """Empty or remove the files of this worker without entries. Return the file that has their notes now.

        `busy`: the files with entries. `notes`: the recent ones, each with its file. Raises OSError.
        """
        idle = {name for name, file in self._files.items() if file.is_ours and name not in busy}
        for name in idle:  # first, since a full disk may have no room for another byte
            self._files[name].end = len(HEADING)
            os.ftruncate(self._files[name].descriptor, len(HEADING))
        own, own_file = self.own_file()
        _write(own_file, b"".join(dump_done(note.id, note.at) for name, note in notes if name in idle))
        for name in idle:
            if name != own:
                self._forget(name, remove=True)
        return own

    def check_room(self) -> None:
        """Raise OSError if the disk is full."""
        _, file = self.own_file()
        os.posix_fallocate(file.descriptor, file.end, READ_BYTES)
        os.ftruncate(file.descriptor, file.end)

    def reread(self, name: str) -> None:
        """Read the whole file at the next look, since a line of it is damaged."""
        self._reread.add(name)

    def _set_aside(self, name: str, items: Sequence[ScannedEntry | DoneNote]) -> FolderFault:
        """Keep a damaged file under another name. Its valid entries are first copied into the file of this process."""
        descriptor, done = self._files[name].descriptor, {item.id for item in items if isinstance(item, DoneNote)}
        valid = [item for item in items if isinstance(item, ScannedEntry) and item.id not in done]
        if name == self._own:
            self._own = None
        if valid:
            own, _ = self.append([os.pread(descriptor, entry.size, entry.offset) for entry in valid])
            self._reread.add(own)
        kept = name.removesuffix(SUFFIX) + DAMAGED_SUFFIX
        os.rename(name, kept, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._forget(name)
        text = f"{kept} is kept, since a line of it is damaged; entries read: {len(valid)}"
        return FolderFault(kind="damaged", text=text)

    def _forget(self, name: str, *, remove: bool = False) -> None:
        if remove:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
        os.close(self._files.pop(name).descriptor)
        self._gone.add(name)
        self._reread.discard(name)
        if name == self._own:
            self._own = None

    # ── reading ──

    def read(self, place: Place) -> bytes | OSError:
        """Return the line of an entry, or why it cannot be read."""
        if (file := self._files.get(place.file)) is None:
            return FileNotFoundError(place.file)
        try:
            return os.pread(file.descriptor, place.entry.size, place.entry.offset)
        except OSError as error:
            return error

    def look(self, *, take_over: bool) -> FolderLook:
        """Read what is new in the files of others. `take_over`: also lock files that no process has. Raises OSError."""
        sizes = dict[str, int]()
        with os.scandir(self._open_folder()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        names = sorted(name for name in sizes if name.endswith(SUFFIX))
        self.used = sum(sizes.values())
        for name in [name for name in self._files if name not in names]:
            self._forget(name)
        lines, faults, unread = list[FileLines](), list[FolderFault](), set[str]()
        while names:
            name = names.pop(0)
            try:
                found = self._look_at(name, take_over=take_over)
            except UnusableFileError as foreign:
                faults.append(FolderFault(kind="foreign", text=f"{foreign}: remove it, or chown it"))
            except OSError as error:
                faults.append(FolderFault(kind="unreadable", text=f"{name}: {describe_error(error)}"))
                unread.add(name)
            else:
                if isinstance(found, FolderFault):
                    faults.append(found)
                elif found.items or found.is_new_look:
                    lines.append(found)
            names += [name for name in self._reread if name in self._files and name not in names]
        self._reread |= unread & self._files.keys()
        gone, self._gone = tuple(self._gone), set()
        return FolderLook(lines=tuple(lines), gone=gone, faults=tuple(faults))

    def _look_at(self, name: str, *, take_over: bool) -> FileLines | FolderFault:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _File(self._open_file(name))
        if take_over and not file.is_ours and _lock(file.descriptor):
            file.is_ours, file.end = True, 0
        status = os.fstat(file.descriptor)
        if status.st_nlink != 1:  # removed since it was listed
            self._forget(name)
            return FileLines(file=name, is_ours=False, is_new_look=True, items=())
        wrong = None
        is_new = not 0 < file.end <= status.st_size or name in self._reread
        self._reread.discard(name)
        if is_new:
            wrong = judge_heading(os.pread(file.descriptor, 64, 0))
            if wrong == "newer":
                self._forget(name)
                return FolderFault(kind="newer", text=f"{name} was written by a newer release, which must publish it")
        scan_from = partial(scan, partial(os.pread, file.descriptor, READ_BYTES))
        found = scan_from(len(HEADING) if is_new else file.end)
        is_damaged = wrong is not None or found.is_damaged
        if is_damaged and file.is_ours:
            return self._set_aside(name, scan_from(len(HEADING)).items)
        if (is_new or not file.is_ours) and any(isinstance(item, ScannedEntry) for item in found.items):
            os.fsync(file.descriptor)  # copies of these are answered 200, and their worker may not have done so
        file.end = 0 if is_damaged and not is_new else found.end  # 0: its worker may empty it just now
        if file.is_ours and is_new:  # a torn end must not run into the next line
            os.ftruncate(file.descriptor, file.end if status.st_size >= len(HEADING) else 0)
            os.pwrite(file.descriptor, HEADING, 0)
        return FileLines(file=name, is_ours=file.is_ours, is_new_look=is_new, items=found.items)

    def _open_folder(self) -> int:
        """Return the descriptor of the folder. Open it again if it was removed. Raises OSError, UnusableFileError."""
        if self._folder is not None and not os.fstat(self._folder).st_nlink:
            self._release()
        if self._folder is None:
            self._folder = self._stack.enter_context(open_own_folder(self.root, make=True))
        return self._folder

    def _open_file(self, name: str, flags: int = _READ_FLAGS) -> int:
        return open_owned(name, flags, dir_fd=self._open_folder(), regular=True)

    def own_file(self) -> tuple[str, _File]:
        """Return the file of this process. Make it if it is missing, or was removed.

        Raises OSError, UnusableFileError; UnusableFolderError if the file system has no locks.
        """
        self._open_folder()
        if self._own is not None:
            if os.fstat(self._files[self._own].descriptor).st_nlink != 1:
                self._forget(self._own)
            elif self._files[self._own].end < MAX_FILE_BYTES:
                return self._own, self._files[self._own]
        name = secrets.token_hex(8) + SUFFIX
        file = _File(self._open_file(name, _READ_FLAGS | os.O_CREAT | os.O_EXCL))
        try:
            file.is_ours = _lock(file.descriptor)
            other = self._open_file(name)
            is_excluded = not _lock(other)
            os.close(other)
            if not is_excluded:
                raise UnusableFolderError(f"a lock on {name} excludes nobody")  # noqa: TRY301  cleaned up below
            _write(file, HEADING)
            os.fsync(file.descriptor)
            os.fsync(self._open_folder())
        except BaseException:
            os.close(file.descriptor)
            with suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
            raise
        self._files[name], self._own = file, name
        return name, file


def _lock(descriptor: int) -> bool:
    """Lock a file. Return False if another process has its lock. Raises UnusableFolderError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise UnusableFolderError(f"its file system has no locks ({describe_error(error)})") from None
    return True


def _write(file: _File, data: bytes) -> None:
    """Write at the end of a file. Raises OSError, after the file is as long as before."""
    written = 0
    try:
        while written < len(data):
            written += os.pwrite(file.descriptor, data[written:], file.end + written)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file.descriptor, file.end)
        raise
    file.end += written

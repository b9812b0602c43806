"""The files of the outbox, one per event. A file's content is durable before the file is renamed from `.part`.

    0000001763811000123456789-7f3a91c2-events.part      being written
    …                                         .pending  complete; its session may still exist
    …                                         .json     complete; its session has ended, to be published
    …                                         .refused, .expired   set aside; never read again

Names sort by time. All functions block, and run on threads.
"""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from logout_notifier_publisher.event_checks import EventMistake, to_checked_json
from logout_notifier_publisher.lane import Lane

PART, PENDING, READY, REFUSED, EXPIRED = ".part", ".pending", ".json", ".refused", ".expired"
_NOT_REGULAR_ERRNOS = (errno.ELOOP, errno.ENXIO, errno.EISDIR)  # a link, a socket, a folder
MAX_FILE_BYTES = 1024 * 1024  # an event has at most 128 KiB; the rest is reserved for `session`


class UntrustedFileError(OSError):
    """A folder or file is not used: it is a link, not a regular file, of another user, or writable by others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """The content of a file. `session` is the argument of `alive`, None if the session cannot be looked up.

    `body`: the event as it is published.
    """

    lane: Lane
    session: object
    event: dict[str, object]
    body: bytes

    @property
    def id(self) -> str:
        """Return the event's id."""
        return str(self.event["id"])


def encode(lane: Lane, session: object, event: dict[str, object]) -> bytes:
    """Return the content of a file. Raises EventMistake if `session` cannot be written as JSON, or is too large."""
    document = {"lane": lane.value, "session": session, "event": event}
    try:
        content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EventMistake([f"session: cannot be written as JSON: {type(error).__name__}"]) from None
    if len(content) > MAX_FILE_BYTES:
        raise EventMistake([f"session: takes more than {MAX_FILE_BYTES} bytes together with its event"])
    return content


def decode(content: bytes) -> StoredEvent:
    """Parse the content of a file. Raises EventMistake if it is not a valid event."""
    try:
        document = json.loads(content)
        event = document["event"]
        lane = Lane(document["lane"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EventMistake([f"is not a valid outbox file: {type(error).__name__}"]) from None
    if not isinstance(event, dict):
        raise EventMistake(["is not a valid outbox file: event"])
    return StoredEvent(lane=lane, session=document.get("session"), event=event, body=to_checked_json(event))


def write(folder: Path, name: str, content: bytes, suffix: str) -> Path:
    """Write a file durably; the caller makes its name durable with `sync`. Raises OSError."""
    part, whole = folder / f"{name}{PART}", folder / f"{name}{suffix}"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(whole)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return whole


def sync(folder: Path) -> None:
    """Make the created and renamed files of a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_own(path: Path | str, flags: int, folder: int | None = None) -> int:
    """Open a regular file that belongs to this user or root, without following a link and without blocking.

    Raises UntrustedFileError for any other file, and OSError.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_REGULAR_ERRNOS:
            raise UntrustedFileError(errno.EPERM, f"{path} is not a regular file: remove it") from None
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid in (os.geteuid(), 0):
        return descriptor
    os.close(descriptor)
    why = f"belongs to another user ({status.st_uid})" if stat.S_ISREG(status.st_mode) else "is not a regular file"
    raise UntrustedFileError(errno.EPERM, f"{path} {why}: inspect it, then chown it or remove it")


def read(path: Path) -> bytes:
    """Return at most the first `MAX_FILE_BYTES` + 1 bytes of a file. Raises UntrustedFileError and OSError."""
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def read_during_rename(path: Path) -> bytes:
    """Read a file that is being renamed from `.pending`. Raises OSError."""
    for each in (path, path.with_suffix(PENDING)):
        with contextlib.suppress(FileNotFoundError):
            return read(each)
    return read(path)  # renamed between the two attempts


def rename(path: Path, suffix: str) -> Path:
    """Change the suffix of the file. Raises OSError."""
    return path.rename(path.with_suffix(suffix))


def remove(paths: Iterable[Path]) -> None:
    """Delete files; missing files are ignored. Raises the last OSError, after all were tried."""
    failure: OSError | None = None
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFile:
    """A file of an event in the folder."""

    path: Path
    size: int
    stored_at: float
    lane: Lane

    @property
    def pending(self) -> bool:
        """Return whether its session must be looked up."""
        return self.path.suffix == PENDING


def list_events(folder: Path) -> list[EventFile]:
    """Return the complete files of the folder, oldest first. Raises OSError."""
    found = []
    for path in folder.iterdir():
        if path.suffix in (PENDING, READY):
            with contextlib.suppress(FileNotFoundError):
                found.append(
                    EventFile(
                        path=path, size=path.lstat().st_size, stored_at=read_created_at(path), lane=parse_lane(path)
                    )
                )
    return sorted(found, key=lambda file: file.path.name)


def format_name(stamp: int, token: str, lane: Lane) -> str:
    """Return a file name without its suffix. `stamp`: nanoseconds since the epoch. `token`: unique to this process."""
    return f"{stamp:025d}-{token}-{lane.value}"


def parse_lane(path: Path) -> Lane:
    """Return the lane by the file's name. Once the file is read, the lane in its content takes precedence."""
    return Lane.BULK if path.stem.endswith(f"-{Lane.BULK.value}") else Lane.EVENTS


def read_created_at(path: Path) -> float:
    """Return when the event was written, in epoch seconds: by the file's name, otherwise its mtime. Raises OSError."""
    digits = path.name.partition("-")[0]
    return int(digits) / 1e9 if digits.isdigit() and len(digits) == 25 else path.lstat().st_mtime

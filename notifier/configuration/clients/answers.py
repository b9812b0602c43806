"""Keeps the last answers of registry sources in memory, and in a cache on disk for starts without a source.

A cache is a file of JSON lines with mode 0600: a heading, then one row per line. The file's modification time is the
time when the source last confirmed its answer. An unusable cache is treated as absent.

Only the service's user may write to the folder and its files, because they determine where logouts are sent. In a
folder with other permissions the cache makes a subfolder. The folder is opened without following links, checked through
its descriptor, and files are opened relative to it. Therefore another user cannot replace the folder in between.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from notifier.configuration.clients.client_rows import BuildReader, HeldRow, Row, SourceAnswer, intern_names, row_key
from notifier.model.errors import ConfigurationError, InputIssue, SourceFault, describe_error
from notifier.settings.file_owners import UnusableFileError, check_owner, open_own_folder
from notifier.settings.registry_settings import RegistrySourceSettings

CACHE_VERSION = 1
SINCE_MEMBER = "known_since"  # stored in a row of the cache beside its metadata; releases without this member ignore it
ROWS_PER_STEP = 500  # rows read or written at a time, after which the thread pauses
PAUSE_SECONDS = 0.001  # seconds


class HeldAnswers:
    """The last good answer of each source that is not a file. A change of a source's settings discards its answer.

    A source without an answer is held with None: it has not answered since it was configured or dropped.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[RegistrySourceSettings, SourceAnswer | None]] = {}
        self._unusable: list[tuple[str, str]] = []

    def copy(self) -> "HeldAnswers":
        """Return a copy."""
        copied = HeldAnswers()
        copied._held |= self._held
        return copied

    def hold(self, source: RegistrySourceSettings, answer: SourceAnswer | None) -> None:
        """Store the answer of the source. None records that the source has no answer."""
        self._held[source.source_name] = (source, answer)

    def get(self, source: RegistrySourceSettings) -> SourceAnswer | None:
        """Return the answer of this source; None if there is none."""
        return self._held[source.source_name][1] if self._holds(source) else None

    def _holds(self, source: RegistrySourceSettings) -> bool:
        """Return True if the source is held with the same settings, with or without an answer."""
        settings, _ = self._held.get(source.source_name, (None, None))
        return settings is not None and _settings_hash(settings) == _settings_hash(source)

    def load_cached(self, source: RegistrySourceSettings, folder: Path | None) -> SourceAnswer | None:
        """Return and hold the answer that an earlier worker cached; None if there is none. Blocks."""
        answer = Cache(folder).load(source, lambda file, reason: self._unusable.append((file, reason)))
        self.hold(source, answer)
        return answer

    def log_unusable(self) -> None:
        """Log the unusable caches. Call it once logging is configured."""
        for file, reason in self._unusable:
            structlog.get_logger().warning("registry_cache_unusable", file=file, reason=reason)

    def get_or_read(
        self, build_reader: BuildReader, source: RegistrySourceSettings, _folder: Path | None
    ) -> SourceAnswer | None:
        """Return the held answer. A source that is not held is read first. Raises ConfigurationError. Blocks.

        A source that is held without an answer is not read here, so that it does not delay a reload of files.
        """
        answer = self.get(source)
        if not self._holds(source):
            try:
                answer = asyncio.run(build_reader(source).read(None))
            except SourceFault as fault:
                raise ConfigurationError([InputIssue(f"registry source {source.source_name}", str(fault))]) from None
            self.hold(source, answer)
        return answer


class Cache:
    """The cache on disk: a folder with one file per source. Without a folder nothing is cached.

    `of_owner`: accept the files of the folder's owner, whoever it is. Commands of root need this, since they read the
    files of the service's user.
    """

    def __init__(self, folder: Path | None, *, of_owner: bool = False) -> None:
        self._folder = folder
        self._of_owner = of_owner
        self._failed: dict[str, str] = {}

    def load(
        self, source: RegistrySourceSettings, on_unusable: Callable[[str, str], None] = lambda _file, _reason: None
    ) -> SourceAnswer | None:
        """Return the cached answer of this source; None if there is no usable answer. Blocks.

        If the file cannot be used, `on_unusable` is called with its path and the reason.
        """
        if self._folder is None:
            return None
        name = _file_name(source)
        try:
            with open_own_folder(self._folder, of_owner=self._of_owner) as folder:
                return _read(name, folder, _settings_hash(source), of_owner=self._of_owner)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            on_unusable(str(self._folder / name), describe_error(error))
            return None

    def save(self, source: RegistrySourceSettings, answer: SourceAnswer) -> None:
        """Write the answer with mode 0600. Never raises: a failure costs only the cache, and is logged. Blocks."""
        if self._folder is None:
            return
        name = _file_name(source)
        new_name = f"{name}.new"
        try:
            with open_own_folder(self._folder, make=True) as folder:
                try:
                    _write(new_name, folder, answer, _settings_hash(source))
                    os.replace(new_name, name, src_dir_fd=folder, dst_dir_fd=folder)
                except OSError:
                    with suppress(OSError):
                        os.unlink(new_name, dir_fd=folder)
                    raise
        except (OSError, UnusableFileError) as error:
            self._log_failure(source.source_name, describe_error(error))
        else:
            self._failed.pop(source.source_name, None)

    def confirm(self, source: RegistrySourceSettings, answer: SourceAnswer) -> None:
        """Record in the cache, as modification time, that the source has confirmed the answer. Blocks."""
        if self._folder is None:
            return
        try:
            with open_own_folder(self._folder) as folder:
                os.utime(_file_name(source), (answer.at, answer.at), dir_fd=folder, follow_symlinks=False)
        except (OSError, UnusableFileError):
            self.save(source, answer)

    def forget(self, source: RegistrySourceSettings) -> None:
        """Delete the cached answer of this source. Never raises. Blocks."""
        try:
            if self._folder is not None:
                with open_own_folder(self._folder) as folder:
                    os.unlink(_file_name(source), dir_fd=folder)
        except FileNotFoundError:
            return
        except (OSError, UnusableFileError) as error:
            self._log_failure(source.source_name, describe_error(error))

    def _log_failure(self, name: str, reason: str) -> None:
        if self._failed.get(name) != reason:
            structlog.get_logger().warning("registry_cache_not_written", source=name, reason=reason)
        self._failed[name] = reason


def _file_name(source: RegistrySourceSettings) -> str:
    return f"{source.source_name}.jsonl"


def _settings_hash(source: RegistrySourceSettings) -> str:
    """Return a hash of the source's settings without name and times. A cached answer with another hash is not used."""
    members = source.model_dump_json(exclude={"every", "timeout", "name"}, exclude_defaults=True)
    return hashlib.sha256(members.encode()).hexdigest()


def _write(name: str, folder: int, answer: SourceAnswer, settings_hash: str) -> None:
    heading = {
        "v": CACHE_VERSION,
        "source": settings_hash,
        "mark": None,  # earlier releases require it
        "faults": [[fault.path, fault.text] for fault in answer.faults],
        "rows": len(answer.rows),
    }
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
        file.write(json.dumps(heading) + "\n")
        for start in range(0, len(answer.rows), ROWS_PER_STEP):
            file.writelines(
                json.dumps(_with_since(row, answer)) + "\n" for row in answer.rows[start : start + ROWS_PER_STEP]
            )
            time.sleep(PAUSE_SECONDS)
        file.flush()
        os.fsync(file.fileno())
        os.utime(file.fileno(), (answer.at, answer.at))


def _with_since(row: Row, answer: SourceAnswer) -> dict[str, object]:
    since = answer.since.get(row_key(row))
    return {**row} if since is None else {**row, SINCE_MEMBER: since}


def _read(name: str, folder: int, settings_hash: str, *, of_owner: bool) -> SourceAnswer:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, encoding="utf-8") as file:
        check_owner(descriptor, "it", of_owner=of_owner)
        at = min(os.fstat(descriptor).st_mtime, time.time())  # the clock may have been set back since
        heading = json.loads(file.readline())
        if heading.get("v") != CACHE_VERSION:
            raise UnusableFileError("another release wrote it")
        if heading["source"] != settings_hash:
            raise UnusableFileError("the settings of the source have changed")
        rows: list[dict[str, object]] = [json.loads(line, object_hook=intern_names) for line in file]
    if len(rows) != heading["rows"] or not all(isinstance(row, dict) for row in rows):
        raise UnusableFileError("it is damaged")
    faults = tuple(InputIssue(str(path), str(text)) for path, text in heading["faults"])
    since = {row_key(row): min(float(str(row.pop(SINCE_MEMBER))), at) for row in rows if SINCE_MEMBER in row}
    shared_names: dict[tuple[str, ...], tuple[str, ...]] = {}
    return SourceAnswer(rows=[HeldRow.of(row, shared_names) for row in rows], at=at, faults=faults, since=since)

"""TLS contexts from the PEM files of a client's registration, built when first needed and anew when a file changes.

A change that cannot be used keeps the context that was there before, as every reload does. A build from a client's few
own files takes under 1 ms and is done at once. One from the system's authorities, or from a bundle like theirs, takes
20 to 50 ms and is done on a thread, one at a time, and goes on when who asked for it has given up. (All on threads made
a start with 200 clients' files twice as long: against a busy loop each waits 5 ms for the interpreter, and then some.)
"""

import asyncio
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from notifier.domain.client import TlsFiles
from notifier.domain.errors import OurFault
from notifier.domain.outcome import Cause

CONTEXT_LIMIT = 256  # contexts kept; one with the system's authorities takes about 1 MiB
SMALL = 32 * 1024  # bytes of all files together; the system's authorities are 200 KiB

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Of each file: modification time in ns, size, inode; None where it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    stamp: Stamp
    context: ssl.SSLContext | None
    fault: str = ""


class TlsContexts:
    """The contexts in use."""

    def __init__(self) -> None:
        self._entries: OrderedDict[TlsFiles, _Entry] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._builds: dict[TlsFiles, asyncio.Task[_Entry]] = {}

    async def context(self, files: TlsFiles) -> ssl.SSLContext:
        """The context for these files as they are now. Raises OurFault(cause=tls_files) where there never was one."""
        stamp = _stamp(files)
        entry = self._current(files, stamp)
        if entry is None:
            entry = self._build(files, stamp) if _small(files, stamp) else await self._build_on_thread(files)
        if entry.context is None:
            raise OurFault(Cause.TLS_FILES, entry.fault)
        return entry.context

    async def close(self) -> None:
        """Give up what is being read. Who waits for it meets a fault of ours."""
        builds = list(self._builds.values())
        for build in builds:
            build.cancel()
        await asyncio.gather(*builds, return_exceptions=True)

    def _current(self, files: TlsFiles, stamp: Stamp) -> _Entry | None:
        entry = self._entries.get(files)
        if entry is None or entry.stamp != stamp:
            return None
        self._entries.move_to_end(files)
        return entry

    def _build(self, files: TlsFiles, stamp: Stamp) -> _Entry:
        return self._keep(files, _build(files, stamp, self._entries.get(files)))

    async def _build_on_thread(self, files: TlsFiles) -> _Entry:
        build = self._builds.get(files)
        if build is None:  # a hundred requests for one new client build one context
            build = self._builds[files] = asyncio.create_task(self._threaded(files))
            build.add_done_callback(lambda _: self._builds.pop(files, None))
        try:
            return await asyncio.shield(build)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not build.cancelled() or (task is not None and task.cancelling()):
                raise
            raise OurFault(Cause.TLS_FILES, "closed while the TLS files were read") from None

    async def _threaded(self, files: TlsFiles) -> _Entry:
        async with self._one_at_a_time:
            stamp = _stamp(files)
            return self._keep(files, await asyncio.to_thread(_build, files, stamp, self._entries.get(files)))

    def _keep(self, files: TlsFiles, entry: _Entry) -> _Entry:
        self._entries[files] = entry
        self._entries.move_to_end(files)
        while len(self._entries) > CONTEXT_LIMIT:
            self._entries.popitem(last=False)
        return entry


def _small(files: TlsFiles, stamp: Stamp) -> bool:
    return files.ca_file is not None and sum(of_file[1] for of_file in stamp if of_file is not None) <= SMALL


def _stamp(files: TlsFiles) -> Stamp:
    return tuple(_file_stamp(path) for path in (files.ca_file, files.cert_file, files.key_file) if path is not None)


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _build(files: TlsFiles, stamp: Stamp, before: _Entry | None) -> _Entry:
    try:
        return _Entry(stamp=stamp, context=load_context(files))
    except OurFault as fault:
        return _Entry(stamp=stamp, context=None if before is None else before.context, fault=str(fault))


def load_context(files: TlsFiles) -> ssl.SSLContext:
    """Without a CA file the system's authorities are trusted, with one only those in it. Raises OurFault."""
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
    except (OSError, ValueError) as error:
        raise OurFault(Cause.TLS_FILES, f"{files.ca_file}: no certificates of authorities: {_words(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if files.cert_file is not None:
        try:
            # The empty password makes an encrypted key an error; without one OpenSSL would ask on the terminal.
            context.load_cert_chain(files.cert_file, files.key_file, password="")
        except (OSError, ValueError) as error:
            named = files.cert_file if files.key_file is None else f"{files.cert_file}, {files.key_file}"
            raise OurFault(Cause.TLS_FILES, f"{named}: no certificate and key: {_words(error)}") from error
    return context


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not PEM"
    return getattr(error, "strerror", None) or str(error)

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

from notifier.adapters.configuration.file_watch import Stamp, stamp_of
from notifier.adapters.tls.pem_files import connecting_context
from notifier.domain.client import TlsFiles
from notifier.domain.errors import OurFault
from notifier.domain.outcome import Cause

CONTEXT_LIMIT = 256  # contexts kept; one with the system's authorities takes about 1 MiB
SMALL = 32 * 1024  # bytes of all files together; the system's authorities are 200 KiB

Stamps = tuple[Stamp | None, ...]
"""Of each file; None where it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    stamps: Stamps
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
        stamps = _stamps(files)
        entry = self._current(files, stamps)
        if entry is None:
            entry = self._build(files, stamps) if _small(files, stamps) else await self._build_on_thread(files)
        if entry.context is None:
            raise OurFault(Cause.TLS_FILES, entry.fault)
        return entry.context

    async def close(self) -> None:
        """Give up what is being read. Who waits for it meets a fault of ours."""
        builds = list(self._builds.values())
        for build in builds:
            build.cancel()
        await asyncio.gather(*builds, return_exceptions=True)

    def _current(self, files: TlsFiles, stamps: Stamps) -> _Entry | None:
        entry = self._entries.get(files)
        if entry is None or entry.stamps != stamps:
            return None
        self._entries.move_to_end(files)
        return entry

    def _build(self, files: TlsFiles, stamps: Stamps) -> _Entry:
        return self._keep(files, _build(files, stamps, self._entries.get(files)))

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
            stamps = _stamps(files)
            return self._keep(files, await asyncio.to_thread(_build, files, stamps, self._entries.get(files)))

    def _keep(self, files: TlsFiles, entry: _Entry) -> _Entry:
        self._entries[files] = entry
        self._entries.move_to_end(files)
        while len(self._entries) > CONTEXT_LIMIT:
            self._entries.popitem(last=False)
        return entry


def _small(files: TlsFiles, stamps: Stamps) -> bool:
    return files.ca_file is not None and sum(stamp.size for stamp in stamps if stamp is not None) <= SMALL


def _stamps(files: TlsFiles) -> Stamps:
    return tuple(stamp_of(path) for path in (files.ca_file, files.cert_file, files.key_file) if path is not None)


def _build(files: TlsFiles, stamps: Stamps, before: _Entry | None) -> _Entry:
    try:
        return _Entry(stamps=stamps, context=_load(files))
    except OurFault as fault:
        return _Entry(stamps=stamps, context=None if before is None else before.context, fault=str(fault))


def _load(files: TlsFiles) -> ssl.SSLContext:
    context = connecting_context(ca_file=files.ca_file, cert_file=files.cert_file, key_file=files.key_file)
    context.set_alpn_protocols(["http/1.1"])
    return context

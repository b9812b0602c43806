"""Creates TLS contexts from the PEM files of a client's registration, and renews a context when its files change.

A context is built on first use, and again when a file changes. If the new files are unusable, the old context stays.
Small files take less than 1 ms, so the context is built at once. The system's authorities, or a bundle of that size,
take 20 to 50 ms, so the context is built in a thread, one at a time, even if the caller gives up. If all contexts were
built in threads, a start with the files of 200 clients would take twice as long.
"""

import asyncio
import ssl
from collections import OrderedDict
from dataclasses import dataclass

from notifier.model.client import TlsFiles
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause
from notifier.network.http.pem_files import build_client_context
from notifier.settings.file_watch import Stamps, stamps_of

MAX_CONTEXTS = 256  # a context with the system's authorities takes about 1 MiB
MAX_INLINE_BYTES = 32 * 1024  # of all files of a context together; the system's authorities are 200 KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    stamps: Stamps
    context: ssl.SSLContext | None
    fault: str = ""


class TlsContexts:
    """The TLS contexts of clients, by their files."""

    def __init__(self) -> None:
        self._entries: OrderedDict[TlsFiles, _Entry] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self._builds: dict[TlsFiles, asyncio.Task[_Entry]] = {}

    async def context(self, files: TlsFiles) -> ssl.SSLContext:
        """Return the context for these files. Raises InternalFault(cause=tls_files).

        It raises if the files were never usable, or if `close` was called meanwhile.
        """
        stamps = _read_stamps(files)
        entry = self._current(files, stamps)
        if entry is None:
            entry = self._build(files, stamps) if _is_small(files, stamps) else await self._build_on_thread(files)
        if entry.context is None:
            raise InternalFault(Cause.TLS_FILES, entry.fault)
        return entry.context

    async def close(self) -> None:
        """Cancel the running builds. Their callers get an internal fault."""
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
        if build is None:  # a hundred requests for a new client build one context
            build = self._builds[files] = asyncio.create_task(self._build_in_turn(files))
            build.add_done_callback(lambda _: self._builds.pop(files, None))
        try:
            return await asyncio.shield(build)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not build.cancelled() or (task is not None and task.cancelling()):
                raise
            raise InternalFault(Cause.TLS_FILES, "closed while the TLS files were read") from None

    async def _build_in_turn(self, files: TlsFiles) -> _Entry:
        async with self._one_at_a_time:
            stamps = _read_stamps(files)
            return self._keep(files, await asyncio.to_thread(_build, files, stamps, self._entries.get(files)))

    def _keep(self, files: TlsFiles, entry: _Entry) -> _Entry:
        self._entries[files] = entry
        self._entries.move_to_end(files)
        while len(self._entries) > MAX_CONTEXTS:
            self._entries.popitem(last=False)
        return entry


def _is_small(files: TlsFiles, stamps: Stamps) -> bool:
    """Return True if the context is built within 1 ms. Without `ca_file` it loads the system's authorities."""
    return (
        files.ca_file is not None
        and sum(stamp.size for stamp in stamps.values() if stamp is not None) <= MAX_INLINE_BYTES
    )


def _read_stamps(files: TlsFiles) -> Stamps:
    return stamps_of(filter(None, (files.ca_file, files.cert_file, files.key_file)))


def _build(files: TlsFiles, stamps: Stamps, before: _Entry | None) -> _Entry:
    try:
        context = build_client_context(files)
    except InternalFault as fault:
        return _Entry(stamps=stamps, context=None if before is None else before.context, fault=str(fault))
    context.set_alpn_protocols(["http/1.1"])
    return _Entry(stamps=stamps, context=context)

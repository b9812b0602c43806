"""Creates TLS contexts from the PEM files of a client's registration, and renews a context when its files change.

A context is built on first use, and again when a file has changed. If the new files are unusable, the old context
stays. All files are read in threads, since they may be on a network file system that is dead: then only the clients
without a context wait, for a second, and their error names the file. Changes are detected by one check of all files a
second at most, and only while there are requests. Contexts are built one at a time. Small ones take 1 ms, and those
with the system's authorities, or with a bundle of that size, 20 to 50 ms, so the two kinds take turns apart.
"""

import asyncio
import math
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from notifier.model.client import TlsFiles
from notifier.model.errors import InternalFault, describe_error
from notifier.model.outcome import Cause, Reason, TransportFailure, TransportResult
from notifier.model.own_thread import run_in_thread
from notifier.model.shared_resources import shared_bound, shared_lock, shared_task
from notifier.network.http.pem_files import build_client_context, describe_expired, read_expiry_in
from notifier.settings.file_watch import HANGS, Stamps, find_hanging, read_each, stamp_of, stamps_of

MAX_CONTEXTS = shared_bound(256)  # a context with the system's authorities takes about 1 MiB
MAX_SMALL_BYTES = 32 * 1024  # of all files of a context together; the system's authorities are 200 KiB
CHECK_INTERVAL_SECONDS = 1.0
MAX_CHECK_WAIT_SECONDS = 0.2  # after the start of a check; then requests use the contexts that there are
MAX_TURN_SECONDS = 1.0  # after which another context is built, although this one is not ready


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    stamps: Stamps
    context: ssl.SSLContext | None
    fault: str = ""
    expires_at: float | None = None  # when notifier's certificate expires, in epoch seconds


class TlsContexts:
    """The TLS contexts of clients, by their files. `check_interval`: seconds between two checks for changes."""

    def __init__(self, check_interval: float = CHECK_INTERVAL_SECONDS) -> None:
        self._check_interval = check_interval
        self._entries: OrderedDict[TlsFiles, _Entry] = OrderedDict()
        self._small_turn = shared_lock()
        self._large_turn = shared_lock()
        self._builds: dict[TlsFiles, asyncio.Task[_Entry]] = {}
        self._check: asyncio.Task[None] | None = None
        self._checked_at = -math.inf  # when the last check began, by the loop's clock

    async def context(self, files: TlsFiles) -> ssl.SSLContext:
        """Return the context for these files. Raises InternalFault(cause=tls_files).

        It raises if the files were never usable, or if `close` was called meanwhile.
        """
        entry = self._entries.get(files)
        if entry is not None and entry.stamps:
            await self._check_files()
            entry = self._entries.get(files)
        if entry is None:
            entry = await self._get_built(files)
        else:
            self._entries.move_to_end(files)
        if entry.context is None:
            raise InternalFault(Cause.TLS_FILES, entry.fault)
        return entry.context

    def explain(self, files: TlsFiles | None, result: TransportResult) -> TransportResult:
        """Return the result; if notifier's certificate has expired, as the reason of a connection that the peer closed.

        Not every server sends why it refuses a certificate, or sends it in time.
        """
        entry = None if files is None else self._entries.get(files)
        if entry is None or files is None or entry.expires_at is None or entry.expires_at > time.time():
            return result
        if not isinstance(result, TransportFailure) or not _may_be_refusal(result):
            return result
        text = f"{describe_expired(files.cert_file, entry.expires_at)} ({result.text})"
        return TransportFailure(reason=Reason.TLS, ambiguous=result.ambiguous, text=text)

    async def close(self) -> None:
        """Cancel the running builds. Their callers get an internal fault."""
        tasks = [*self._builds.values(), *([] if self._check is None else [self._check])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _check_files(self) -> None:
        """Renew all contexts whose files have changed, unless the last check is recent."""
        now = asyncio.get_running_loop().time()
        if self._check is None and now >= self._checked_at + self._check_interval:
            self._checked_at = now
            self._check = shared_task(self._renew_changed())
            self._check.add_done_callback(self._on_checked)
        if self._check is not None and now < self._checked_at + MAX_CHECK_WAIT_SECONDS:
            await asyncio.wait({self._check}, timeout=self._checked_at + MAX_CHECK_WAIT_SECONDS - now)

    def _on_checked(self, _: asyncio.Task[None]) -> None:
        self._check = None

    async def _renew_changed(self) -> None:
        entries = dict(self._entries)
        stamps = await read_each(chain.from_iterable(entry.stamps for entry in entries.values()), stamp_of)
        for files, entry in entries.items():
            if any(path in stamps and stamps[path] != stamp for path, stamp in entry.stamps.items()):
                with suppress(InternalFault):  # the file of an entry that was dropped meanwhile hangs
                    await self._get_built(files)

    async def _get_built(self, files: TlsFiles) -> _Entry:
        """Build the context. A hundred requests for a new client build one."""
        build = self._builds.get(files)
        if build is None:
            build = shared_task(self._build(files))
            self._builds[files] = build
            build.add_done_callback(lambda _: self._builds.pop(files, None))
        try:
            return await asyncio.shield(build)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not build.cancelled() or (task is not None and task.cancelling()):
                raise
            raise InternalFault(Cause.TLS_FILES, "closed while the TLS files were read") from None

    async def _build(self, files: TlsFiles) -> _Entry:
        former = self._entries.get(files)
        paths = list_files(files)
        if hanging := await find_hanging(paths):
            if former is not None:
                return former
            raise InternalFault(Cause.TLS_FILES, f"{hanging[0]} {HANGS}")
        build = partial(_build, files, paths, former)
        entry = await _build_in_turn(self._small_turn, partial(build, only_small=True))
        if entry is None:
            entry = await _build_in_turn(self._large_turn, build)
        assert entry is not None
        self._entries[files] = entry
        self._entries.move_to_end(files)
        while len(self._entries) > MAX_CONTEXTS:
            self._entries.popitem(last=False)
        return entry


def _may_be_refusal(failure: TransportFailure) -> bool:
    """Return True if a server may have refused notifier's certificate. In TLS 1.2 it resets the handshake."""
    if failure.reason is Reason.CONNECT:
        return "reset" in failure.text.lower()
    return failure.reason is Reason.DISCONNECTED or (
        failure.reason is Reason.TLS and not failure.text.startswith("certificate:")  # the server's
    )


async def _build_in_turn(turn: asyncio.Lock, build: Callable[[], _Entry | None]) -> _Entry | None:
    """Build in a thread, one at a time, but let the next one begin if this one hangs."""
    async with turn:
        building = run_in_thread(build, "TLS files of clients")
        await asyncio.wait({building}, timeout=MAX_TURN_SECONDS)
    return await building


def list_files(files: TlsFiles) -> list[Path]:
    """Return the files of a context."""
    return [*filter(None, (files.ca_file, files.cert_file, files.key_file))]


def _build(files: TlsFiles, paths: list[Path], former: _Entry | None, *, only_small: bool = False) -> _Entry | None:
    """Return the entry of these files. `only_small`: None if it takes longer than 1 ms."""
    stamps = stamps_of(paths)
    size = sum(stamp.size for stamp in stamps.values() if stamp is not None)
    if only_small and (files.ca_file is None or size > MAX_SMALL_BYTES):  # without `ca_file` the system's authorities
        return None
    try:
        context = build_client_context(files)
        context.set_alpn_protocols(["http/1.1"])
        expires_at = None if files.cert_file is None else read_expiry_in(files.cert_file)
    except Exception as error:  # noqa: BLE001  an unexpected fault of these files must not affect other clients
        named = "" if isinstance(error, InternalFault) else f"{', '.join(map(str, paths))}: cannot be used: "
        fault = f"{named}{describe_error(error)}"
        return _Entry(stamps=stamps, context=None if former is None else former.context, fault=fault)
    return _Entry(stamps=stamps, context=context, expires_at=expires_at)

"""Disk access of the outbox, on threads: a hanging disk blocks neither a sign-out nor a thread of the application.

Concurrent writes share one fsync of the folder. Renames and deletions are not awaited, and run one at a time in order.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from logout_notifier_publisher import outbox_files
from logout_notifier_publisher.daemon_threads import DaemonThreads
from logout_notifier_publisher.guarded_log import log
from logout_notifier_publisher.log_limit import LogLimit
from logout_notifier_publisher.outbox_files import PENDING, EventFile
from logout_notifier_publisher.outbox_folder import OutboxFolder
from logout_notifier_publisher.publisher_settings import format_error

T = TypeVar("T")


class OutboxDisk:
    """The sub-folder of this process below the root. Not thread-safe. `needs_scan`: list it at the next refresh."""

    def __init__(self, root: Path, threads: DaemonThreads) -> None:
        self.root = root
        self.needs_scan = False
        self._threads = threads
        self._ordered_threads = DaemonThreads(1, "notifier-outbox-names")
        self._folder: OutboxFolder | None = None
        self._background: set[asyncio.Future[None]] = set()
        self._syncing: asyncio.Task[None] | None = None
        self._next_sync: asyncio.Task[None] | None = None
        self._log_limit = LogLimit(time.monotonic)

    @property
    def usable(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    async def refresh(self) -> list[EventFile]:
        """Claim a sub-folder unless this process has one, and take over the files of dead processes.

        Returns all files of the folder if some are new. Never raises OSError.
        """
        try:
            if (folder := self._folder) is not None and not await self._run(folder.exists):
                folder.close()  # the folder was deleted or replaced
                self._folder = None
            if self._folder is None:
                self._folder = await self._run(OutboxFolder.claim, self.root)
                self.needs_scan = True
                log.info("outbox %s opened", self._folder.path)
            taken = await self._run(self._folder.take_over, self._log_takeover_failure)
            found: list[EventFile] = []
            if taken or self.needs_scan:
                self.needs_scan = True  # until the listing succeeds
                found = await self._run_in_order(outbox_files.list_events, self._folder.path)
                self.needs_scan = False
        except OSError as error:
            if self._log_limit.allows("folder"):
                log.error(
                    "the outbox %s cannot be used: %s. Sign-outs continue; their events are only in memory and are lost"
                    " if this process ends before they are published. Check the folder's owner, permissions and disk",
                    self.root, format_error(error),
                )  # fmt: skip
            return []
        self._log_limit.forget("folder")
        if taken:
            log.info("took over %d events of ended processes below %s", taken, self.root)
        return found

    def _log_takeover_failure(self, folder: Path, error: OSError) -> None:
        self.needs_scan = True
        if self._log_limit.allows(folder):
            log.error(
                "the events of an ended process in %s cannot be taken over: %s. It is retried",
                folder,
                format_error(error),
            )

    async def write(self, name: str, content: bytes, suffix: str, on_written: Callable[[Path], None]) -> None:
        """Write a file, and return once it is durable. Calls `on_written` when the file exists. Raises OSError."""
        folder = self._folder
        if folder is None:
            raise FileNotFoundError("no outbox folder is claimed")
        on_written(await self._run(outbox_files.write, folder.path, name, content, suffix))
        if self._next_sync is None:  # callers that arrive during an fsync share the next one
            self._next_sync = asyncio.ensure_future(self._sync(folder, self._syncing))
        await self._next_sync

    async def _sync(self, folder: OutboxFolder, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait({before})
        self._syncing, self._next_sync = self._next_sync, None
        await self._run(outbox_files.sync, folder.path)

    async def read(self, paths: Sequence[Path]) -> list[bytes | OSError]:
        """Return the content of each file, or its error."""
        return await self._run(_read_all, paths)

    def rename_later(self, path: Path, suffix: str) -> Path:
        """Rename a file in the background, without fsync. Returns the new name."""
        self.track(self._run_logged(outbox_files.rename, path, suffix))
        return path.with_suffix(suffix)

    def remove_later(self, paths: Iterable[Path]) -> None:
        """Delete files in the background, without fsync."""
        names = [name for path in paths for name in (path, path.with_suffix(PENDING))]  # its rename may have failed
        if names:
            self.track(self._run_logged(outbox_files.remove, names))

    def track(self, work: "asyncio.Future[None]") -> "asyncio.Future[None]":
        """Track background work: `finish` waits for it."""
        self._background.add(work)
        work.add_done_callback(self._background.discard)
        return work

    def _run_logged(self, what: Callable[..., object], *arguments: object) -> "asyncio.Task[None]":
        async def run() -> None:
            try:
                await self._run_in_order(what, *arguments)
            except OSError as error:
                if not isinstance(error, FileNotFoundError) and self._log_limit.allows("later"):
                    log.warning(
                        "a file of the outbox %s cannot be renamed or deleted: %s", self.root, format_error(error)
                    )

        return asyncio.ensure_future(run())

    async def _run(self, what: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, what, *arguments)

    async def _run_in_order(self, what: Callable[..., T], *arguments: object) -> T:
        """Run a function after all earlier renames and deletions."""
        return await asyncio.get_running_loop().run_in_executor(self._ordered_threads, what, *arguments)

    async def finish(self) -> None:
        """Wait for all background work."""
        while self._background:
            await asyncio.wait(set(self._background))

    async def close(self) -> None:
        """Cancel the background work and release the folder. Waits at most a second for a hanging disk."""
        left = set(self._background)
        for work in left:
            work.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        if self._folder is not None:
            self._folder.close()
        self._ordered_threads.shutdown()


def _read_all(paths: Sequence[Path]) -> list[bytes | OSError]:
    found: list[bytes | OSError] = []
    for path in paths:
        try:
            found.append(outbox_files.read_during_rename(path))
        except OSError as error:
            found.append(error)
    return found

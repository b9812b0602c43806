"""Reads a registry source: for a worker in a dedicated thread, so that its event loop never blocks; for a command once.

The readers themselves are in `notifier.features.registries`.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from notifier.configuration.clients.answers import Cache
from notifier.configuration.clients.client_rows import BuildReader, Row, SourceAnswer
from notifier.configuration.clients.clients_file import pause_garbage_collection
from notifier.model.errors import SourceFault, describe_error
from notifier.model.own_thread import run_in_thread
from notifier.model.record import copy_record
from notifier.settings.registry_settings import RegistrySourceSettings

EXTRA_SECONDS = 2.0  # beyond the source's timeout, after which an unresponsive reading is given up
CACHE_SECONDS = 10.0
ROWS_PER_STEP = 500  # rows freed at a time


class SourceReading:
    """Reads one source repeatedly. It keeps one reader, which may hold an access token or connection."""

    def __init__(
        self, source: RegistrySourceSettings, make_reader: BuildReader, cache: Cache, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._make_reader = make_reader
        self._reader = make_reader(source)
        self._cache = cache
        self._clock = clock
        self._reading: asyncio.Future[SourceAnswer] | None = None
        self._cache_work: asyncio.Future[None] | None = None

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the current clients. If nothing has changed, `rows` is `last.rows`. Raises SourceFault."""
        if self._reading is not None and not self._reading.done():
            raise SourceFault("the last reading still hangs")
        self._reading = run_in_thread(lambda: self._read(last), "registry source")
        await asyncio.wait({self._reading}, timeout=self._source.timeout + EXTRA_SECONDS)
        if not self._reading.done():
            raise SourceFault(f"did not answer within {self._source.timeout:g} s")
        try:
            return self._reading.result()
        except SourceFault:
            raise
        except Exception as error:  # noqa: BLE001  an error of any library must affect only this source
            raise SourceFault(f"reading it failed: {describe_error(error)}") from None

    def _read(self, last: SourceAnswer | None) -> SourceAnswer:
        with pause_garbage_collection():
            answer = asyncio.run(self._reader.read(last))
        if last is None:
            return answer
        new_answer = copy_record(answer, at=self._clock(), since=last.since)
        if answer is last:
            self._cache.confirm(self._source, new_answer)
        return new_answer

    async def settle(self, answer: SourceAnswer, replaced: SourceAnswer | None) -> None:
        """Write the answer to the cache, and free the replaced answer. Never raises."""
        rows = None if replaced is None else replaced.rows
        await self._use_cache(lambda: self._settle(answer, rows))

    async def forget(self) -> None:
        """Discard the reader's state and the cached answer. Never raises."""
        self._reader = self._make_reader(self._source)
        await self._use_cache(lambda: self._cache.forget(self._source))

    async def _use_cache(self, work: Callable[[], None]) -> None:
        """Run the work, unless earlier work hangs. Wait for CACHE_SECONDS at most: its file system may be dead."""
        if self._cache_work is None or self._cache_work.done():
            self._cache_work = run_in_thread(work, "registry cache")
            await asyncio.wait({self._cache_work}, timeout=CACHE_SECONDS)

    def _settle(self, answer: SourceAnswer, replaced: Sequence[Row] | None) -> None:
        if isinstance(replaced, list) and replaced is not answer.rows:
            while replaced:  # in steps: freeing 100,000 rows in one step would block the event loop
                del replaced[-ROWS_PER_STEP:]
                time.sleep(0)
        self._cache.save(self._source, answer)


class DirectReader:
    """Reads each source once, for a command. If the source cannot be read, it returns the cached answer.

    `build_reader` makes the reader of a source. Without it, only the cache is read. `problems`: the reasons of failed
    readings, by source. `cached`: the sources whose answer comes from the cache.
    """

    def __init__(self, build_reader: BuildReader | None) -> None:
        self._build_reader = build_reader
        self.offline = build_reader is None
        self.problems: dict[str, str] = {}
        self.cached: set[str] = set()

    def __call__(self, source: RegistrySourceSettings, folder: Path | None) -> SourceAnswer | None:
        """Return the answer of the source, or of the cache in `folder`; None if there is neither. Blocks."""
        if self._build_reader is not None:
            try:
                return asyncio.run(self._build_reader(source).read(None))
            except SourceFault as fault:
                self.problems[source.source_name] = str(fault)
            except Exception as error:  # noqa: BLE001  an error of any library must affect only this source
                self.problems[source.source_name] = f"reading it failed: {describe_error(error)}"
        cached = Cache(folder, of_owner=os.geteuid() == 0).load(source)
        if cached is not None:
            self.cached.add(source.source_name)
        return cached

"""Reads a registry source in a dedicated thread and event loop, so that it never blocks the worker's loop."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from operator import is_
from pathlib import Path

from notifier.configuration.clients.answers import Cache
from notifier.configuration.clients.client_rows import BuildReader, Row, SourceAnswer, row_ids, row_key
from notifier.configuration.clients.clients_file import pause_garbage_collection
from notifier.model.errors import SourceFault
from notifier.model.frozen import replace
from notifier.model.own_thread import run_in_thread
from notifier.settings.registry_settings import RegistrySourceSettings

EXTRA_SECONDS = 2.0  # seconds beyond the source's timeout, after which an unresponsive reading is given up
ROWS_PER_STEP, PAUSE_SECONDS = 500, 0.001  # rows compared at a time, and seconds that the thread rests after them


class SourceReading:
    """A source that is read repeatedly, with one reader, which may keep a token or connection."""

    def __init__(
        self, source: RegistrySourceSettings, make_reader: BuildReader, cache: Cache, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._make_reader = make_reader
        self._reader = make_reader(source)
        self._cache = cache
        self._clock = clock
        self._reading: asyncio.Future[SourceAnswer] | None = None

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the current clients. Unchanged rows are the same objects as before. Raises SourceFault.

        If no row has changed, `rows` is the object of `last`.
        """
        if self._reading is not None and not self._reading.done():
            raise SourceFault("the last reading still hangs")
        self._reading = run_in_thread(lambda: self._read(last), f"registry-{self._source.source_name}")
        done, _ = await asyncio.wait({self._reading}, timeout=self._source.timeout + EXTRA_SECONDS)
        if not done:
            raise SourceFault(f"did not answer within {self._source.timeout:g} s")
        try:
            return self._reading.result()
        except SourceFault:
            raise
        except Exception as error:  # noqa: BLE001  an error of any library must affect only this source
            raise SourceFault(f"reading it failed with {type(error).__name__}") from None

    def _read(self, last: SourceAnswer | None) -> SourceAnswer:
        with pause_garbage_collection():
            answer = asyncio.run(self._reader.read(last))
        if last is None:
            return answer
        rows = last.rows if answer is last else _reuse_equal_rows(last.rows, answer.rows)
        now = replace(answer, at=self._clock(), rows=rows, since=last.since)
        if rows is last.rows:
            self._cache.confirm(self._source, now)
        return now

    async def settle(self, answer: SourceAnswer, replaced: SourceAnswer | None) -> None:
        """Write the answer to the cache, and free the replaced answer. Never raises."""
        await asyncio.to_thread(self._settle, answer, None if replaced is None else replaced.rows)

    async def forget(self) -> None:
        """Discard the reader's state and the cached answer. Never raises."""
        self._reader = self._make_reader(self._source)
        await asyncio.to_thread(self._cache.forget, self._source)

    def _settle(self, answer: SourceAnswer, replaced: Sequence[Row] | None) -> None:
        self._cache.save(self._source, answer)
        if isinstance(replaced, list) and replaced is not answer.rows:
            while replaced:  # in parts: freeing 100,000 rows in one step would block the event loop
                del replaced[-ROWS_PER_STEP:]
                time.sleep(0)


def _reuse_equal_rows(old: Sequence[Row], new: Sequence[Row]) -> Sequence[Row]:
    """Return the new rows, with the old object for each unchanged row; the old sequence if nothing has changed."""
    rows = list(new)
    old_ids = row_ids(old)
    if all(id(row) in old_ids for row in rows):
        return old if len(rows) == len(old) and all(map(is_, rows, old)) else rows
    old_rows = {row_key(row): row for row in old}
    for index, row in enumerate(rows):
        if index % ROWS_PER_STEP == ROWS_PER_STEP - 1:
            time.sleep(PAUSE_SECONDS)
        old_row = old_rows.get(row_key(row))
        if old_row is not None and old_row == row:
            rows[index] = old_row
    same = len(rows) == len(old) and all(map(is_, rows, old))
    return old if same else rows


class DirectReader:
    """Reads each source once, for a command; from the cache if the source cannot be read.

    `build` makes the reader of a source; None: use the cache only. `problems`: the reasons of failed readings, by
    source.
    """

    def __init__(self, build: BuildReader | None) -> None:
        self._build = build
        self.offline = build is None
        self.problems: dict[str, str] = {}
        self.cached: set[str] = set()

    def __call__(self, source: RegistrySourceSettings, folder: Path | None) -> SourceAnswer | None:
        """Return the answer of the source or the cache. Blocks."""
        if self._build is not None:
            try:
                return asyncio.run(self._build(source).read(None))
            except SourceFault as fault:
                self.problems[source.source_name] = str(fault)
            except Exception as error:  # noqa: BLE001  an error of any library must affect only this source
                self.problems[source.source_name] = f"reading it failed with {type(error).__name__}"
        cached = Cache(folder, of_owner=os.geteuid() == 0).load(source)
        if cached is not None:
            self.cached.add(source.source_name)
        return cached

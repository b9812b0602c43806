"""The registry source `sql`: the clients of a database, by a preset's tables or by a query of the operator's own.

It is made for 100,000 clients beside a busy event loop: rows come in parts with pauses, and a row that is as it was stays
the object that it was, so that whoever keeps something beside it need not look at it again.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from notifier.adapters.registries.sql_columns import Listing, parts, text
from notifier.adapters.registries.sql_connection import Deadline, reading
from notifier.adapters.registries.sql_duende import duende
from notifier.adapters.registries.sql_query import own_query
from notifier.adapters.registries.sql_rights import may_write
from notifier.domain.client_rows import Answer, Row, SourceFault
from notifier.domain.errors import Mistake
from notifier.settings.sql_settings import SqlSettings, url_mistake


class SqlReader:
    """Reads all clients of a database. Each reading has a connection of its own, so a new password is taken at once."""

    def __init__(
        self,
        settings: SqlSettings,
        timeout: float,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`timeout`: seconds for a reading. `pause` gives the process's other threads their turn."""
        self._settings = settings
        self._timeout = timeout
        self._clock = clock
        self._pause = pause

    async def read(self, last: Answer | None) -> Answer:
        """Return the clients; `last` itself if all are as they were. Raises SourceFault."""
        return self._read(last)

    async def warnings(self) -> list[str]:
        """Return what an operator should know though it works: that the user may write. Raises SourceFault."""
        with reading(self._url(), Deadline(self._timeout)) as connection:
            return may_write(connection)

    def _read(self, last: Answer | None) -> Answer:
        deadline, at = Deadline(self._timeout), self._clock()
        with reading(self._url(), deadline) as connection:
            gathered = _Gathered(last.rows if last else (), self._pause)
            listing = self._listing(connection, deadline)
            number = 0
            for part in parts(listing.result, deadline, self._pause):
                for row in part:
                    number += 1
                    gathered.add(row, listing, number)
        return gathered.answer(at, last)

    def _listing(self, connection: sa.Connection, deadline: Deadline) -> Listing:
        if self._settings.query is not None:
            return own_query(connection, self._settings.query)
        return duende(connection, self._settings, deadline, self._pause)

    def _url(self) -> str:
        if self._settings.url is not None:
            return self._settings.url.get_secret_value()
        file = self._settings.url_file
        assert file is not None
        try:
            url = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceFault(f"url_file {file} cannot be read as UTF-8 text ({type(error).__name__})") from None
        if (wrong := url_mistake(url)) is not None:
            raise SourceFault(f"url_file {file} {wrong}")
        return url


_STEP = 5000


class _Gathered:
    """The rows of one reading, laid beside those of the last."""

    def __init__(self, last: Sequence[Row], pause: Callable[[float], None]) -> None:
        self._old: dict[Hashable, Row] = {}
        for start in range(0, len(last), _STEP):
            self._old.update((_key(row), row) for row in last[start : start + _STEP])
            pause(0.001)
        self._rows: dict[Hashable, Row] = {}
        self._kept = 0
        self._twice: set[Hashable] = set()
        self._faults: list[Mistake] = []

    def add(self, given: Sequence[Any], listing: Listing, number: int) -> None:
        """Take a row, or note what is wrong with it."""
        try:
            row = listing.read(given)
            if row is None:
                return
            if not row.get("client_id"):
                raise ValueError("client_id is empty")
        except ValueError as error:
            self._faults.append(Mistake(_named(given[listing.client_id], number), str(error)))
            return
        key = _key(row)
        first = self._rows.get(key)
        if first is None and key not in self._twice:
            old = self._old.get(key)
            self._kept += old == row
            self._rows[key] = old if old == row else row
        elif first is not None and first != row:
            self._twice.add(key)
            self._kept -= self._rows.pop(key) is self._old.get(key)
            text = "has several rows that differ; select one of them, or tell them apart by issuer"
            self._faults.append(Mistake(str(row["client_id"]), text))

    def answer(self, at: float, last: Answer | None) -> Answer:
        """Return the answer; the last one if nothing changed."""
        faults = tuple(self._faults)
        same = last is not None and self._kept == len(self._rows) == len(last.rows) and faults == last.faults
        return last if last is not None and same else Answer(rows=list(self._rows.values()), at=at, faults=faults)


def _key(row: Mapping[str, Any]) -> Hashable:
    issuer = row.get("issuer")
    return row.get("client_id") if issuer is None else (row.get("client_id"), str(issuer))


def _named(client_id: object, number: int) -> str:
    """The client as a fault names it."""
    try:
        return text(client_id) or f"row {number}"
    except ValueError:
        return f"row {number}"

"""The registry source `sql`: the clients of a database, by a preset's tables or by a query of the operator's own.

It is made for 100,000 clients beside a busy event loop: rows come in parts with pauses, and an unchanged row stays the
same object.
"""

import time
from collections.abc import Callable

import sqlalchemy as sa

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import Gathering
from notifier.features.registries.sql_duende import duende
from notifier.features.registries.sql_query import own_query
from notifier.features.registries.sql_rights import may_write
from notifier.features.registries.sql_settings import SqlSettings
from notifier.model.errors import Mistake
from notifier.network.databases.sql_columns import Amount, Listing, parts, text
from notifier.network.databases.sql_connection import Deadline, database_url, reading
from notifier.network.http.json_over_http import LIST_BOUNDS
from notifier.network.http.json_parts import Bounds


class SqlReader:
    """Reads all clients of a database. Each reading has a connection of its own, so a new password is taken at once."""

    def __init__(
        self,
        settings: SqlSettings,
        timeout: float,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        bounds: Bounds = LIST_BOUNDS,
    ) -> None:
        """`timeout`: seconds for a reading, whose rows are within `bounds`. `pause` gives other threads their turn."""
        self._settings = settings
        self._timeout = timeout
        self._clock = clock
        self._pause = pause
        self._bounds = bounds

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the clients; `last` itself if nothing has changed. Raises SourceFault."""
        return self._read(last)

    async def warnings(self) -> list[str]:
        """Return what an operator should know though it works: that the user may write. Raises SourceFault."""
        with reading(self._url(), Deadline(self._timeout), row_security=True) as connection:
            return may_write(connection)

    def _read(self, last: SourceAnswer | None) -> SourceAnswer:
        deadline, at = Deadline(self._timeout), self._clock()
        with reading(self._url(), deadline, row_security=self._settings.row_security) as connection:
            gathering = Gathering(last, unique=True)
            amount = Amount(self._bounds)
            listing = self._listing(connection, deadline, amount)
            for first, part in parts(listing.result, deadline, amount, self._pause):
                for number, cells in enumerate(part, first):
                    try:
                        row = listing.read(cells)
                    except ValueError as error:
                        gathering.refuse(Mistake(_named(cells[listing.client_id], number), str(error)))
                        continue
                    if row is None:
                        continue
                    nameless = row.get("client_id") is None
                    gathering.add(Mistake(f"row {number}", "has no client_id") if nameless else row)
        return gathering.answer(at)

    def _listing(self, connection: sa.Connection, deadline: Deadline, amount: Amount) -> Listing:
        if self._settings.query is not None:
            return own_query(connection, self._settings.query)
        return duende(connection, self._settings, deadline, amount, self._pause)

    def _url(self) -> str:
        return database_url(self._settings.url, self._settings.url_file)


def _named(client_id: object, number: int) -> str:
    """The client as a fault names it."""
    try:
        return text(client_id) or f"row {number}"
    except ValueError:
        return f"row {number}"

"""The registry source `sql`: the clients of a database, by a preset's tables or by the operator's query.

It is made for 100,000 clients beside a busy event loop: rows come in parts with pauses, and an unchanged row stays the
same object.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.sql_duende import duende
from notifier.features.registries.sql_settings import SqlSettings
from notifier.model.errors import InputIssue, SourceFault
from notifier.network.databases.sql_columns import (
    Listing,
    ReadAmount,
    normalize_name,
    read_parts,
    streaming_options,
    to_algorithms,
    to_bool,
    to_list,
    to_lower,
    to_mapping,
    to_text,
)
from notifier.network.databases.sql_connection import Deadline, database_url, open_for_reading
from notifier.network.http.json_over_http import LIST_BOUNDS
from notifier.network.http.json_parts import Bounds


def _jwks(value: object) -> object:
    """The client's keys. A value that is not a JSON object is an error only for clients with encrypted tokens."""
    try:
        return to_mapping(value)
    except ValueError:
        return {}


COLUMNS: Mapping[str, Callable[[object], object]] = {
    "client_id": to_text,
    "issuer": to_list,
    "backchannel_logout_uri": to_text,
    "backchannel_logout_session_required": to_bool,
    "frontchannel_logout_uri": to_text,
    "frontchannel_logout_session_required": to_bool,
    "redirect_uris": to_list,
    "client_name": to_text,
    "id_token_signed_response_alg": to_algorithms,
    "id_token_encrypted_response_alg": to_text,
    "id_token_encrypted_response_enc": to_text,
    "jwks": _jwks,
    "jwks_uri": to_text,
    "subject_type": to_lower,
    "notifier": to_mapping,
    "aliases": to_list,
}
_KNOWN_COLUMNS = {normalize_name(name): name for name in COLUMNS}


def run_query(connection: sa.Connection, query: str) -> Listing:
    """Run the query. Raises SourceFault if its columns are not those of clients."""
    as_it_is = {**streaming_options(connection), "no_parameters": True}  # neither `%` nor `:name` is one
    result = connection.exec_driver_sql(query.strip().rstrip(";"), execution_options=as_it_is)
    if not result.returns_rows:
        raise SourceFault("query must be a SELECT: it gives no rows")
    names = _column_names([str(key) for key in result.keys()])  # noqa: SIM118  a view of its own, not a mapping's
    client_id = names.index("client_id")

    def read(row: Sequence[Any]) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for name, value in zip(names, row, strict=True):
            try:
                content = COLUMNS[name](value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
            if content is not None:
                metadata[name] = content
        return metadata

    return Listing(result=result, client_id=client_id, read=read)


def _column_names(columns: Sequence[str]) -> list[str]:
    """Return the name of each column. Raises SourceFault."""
    names = [_KNOWN_COLUMNS.get(normalize_name(name), "") for name in columns]
    wrong = [f"there is no client metadata {name!r}" for name, known in zip(columns, names, strict=True) if not known]
    wrong += sorted({f"{name} is there twice" for name in names if name and names.count(name) > 1})
    if "client_id" not in names:
        wrong.append("client_id is missing")
    if wrong:
        raise SourceFault(f"columns of query: {'; '.join(wrong)}. Known are {', '.join(COLUMNS)}")
    return names


class SqlReader:
    """Reads all clients of a database. Each reading opens a connection, so a new password takes effect at once."""

    def __init__(
        self,
        settings: SqlSettings,
        timeout: float,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        bounds: Bounds = LIST_BOUNDS,
    ) -> None:
        """`timeout`: seconds for a reading, whose rows are within `bounds`. `pause` yields to other threads."""
        self._settings = settings
        self._timeout = timeout
        self._clock = clock
        self._pause = pause
        self._bounds = bounds

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the clients; `last` itself if nothing has changed. Raises SourceFault."""
        deadline, at = Deadline(self._timeout), self._clock()
        with open_for_reading(self._url(), deadline, row_security=self._settings.row_security) as connection:
            collector = RowCollector(last, unique=True)
            amount = ReadAmount(self._bounds)
            listing = self._listing(connection, deadline, amount)
            for first, part in read_parts(listing.result, deadline, amount, self._pause):
                for number, cells in enumerate(part, first):
                    try:
                        row = listing.read(cells)
                    except ValueError as error:
                        collector.refuse(InputIssue(_client_name(cells[listing.client_id], number), str(error)))
                        continue
                    if row is None:
                        continue
                    nameless = row.get("client_id") is None
                    collector.add(InputIssue(f"row {number}", "has no client_id") if nameless else row)
        return collector.answer(at)

    def _listing(self, connection: sa.Connection, deadline: Deadline, amount: ReadAmount) -> Listing:
        if self._settings.query is not None:
            return run_query(connection, self._settings.query)
        return duende(connection, self._settings, deadline, amount, self._pause)

    def _url(self) -> str:
        return database_url(self._settings.url, self._settings.url_file)


def _client_name(client_id: object, number: int) -> str:
    """Return the client's name for an error."""
    try:
        return to_text(client_id) or f"row {number}"
    except ValueError:
        return f"row {number}"

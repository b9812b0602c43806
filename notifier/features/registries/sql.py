"""The registry source `sql`: the clients of a database, by the tables of a preset or the operator's query.

A reading of 100,000 clients runs in a thread beside a busy event loop. It therefore reads rows in parts with pauses,
and returns the object of the last reading for an unchanged row.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.list_settings import SqlSettings
from notifier.features.registries.sql_duende import list_duende_clients
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
from notifier.network.http.json_client import LIST_BOUNDS
from notifier.network.http.json_parts import Bounds


def _to_jwks(value: object) -> object:
    """Return the client's JWK Set, and an empty one for an invalid value: only clients with encryption need keys."""
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
    "jwks": _to_jwks,
    "jwks_uri": to_text,
    "subject_type": to_lower,
    "notifier": to_mapping,
    "aliases": to_list,
}
_KNOWN_COLUMNS = {normalize_name(name): name for name in COLUMNS}


def run_query(connection: sa.Connection, query: str) -> Listing:
    """Run the query. Raises SourceFault if it returns no rows, or other columns than those of clients."""
    options = {**streaming_options(connection), "no_parameters": True}  # `%` and `:name` are no placeholders
    result = connection.exec_driver_sql(query.strip().rstrip(";"), execution_options=options)
    if not result.returns_rows:
        raise SourceFault("query must be a SELECT: it gives no rows")
    names = _column_names([str(key) for key in result.keys()])  # noqa: SIM118  SQLAlchemy's result is not a mapping
    client_id = names.index("client_id")

    def read_row(row: Sequence[Any]) -> dict[str, Any]:
        """Return the metadata in a row. Raises ValueError."""
        metadata: dict[str, Any] = {}
        for name, value in zip(names, row, strict=True):
            try:
                converted = COLUMNS[name](value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
            if converted is not None:
                metadata[name] = converted
        return metadata

    return Listing(result=result, client_id=client_id, read=read_row)


def _column_names(columns: Sequence[str]) -> list[str]:
    """Return the client metadata that each column has. Raises SourceFault for unknown, repeated or missing columns."""
    names = [_KNOWN_COLUMNS.get(normalize_name(column)) for column in columns]
    known = [name for name in names if name is not None]
    errors = [
        f"there is no client metadata {column!r}" for column, name in zip(columns, names, strict=True) if not name
    ]
    errors += sorted({f"{name} is there twice" for name in known if known.count(name) > 1})
    if "client_id" not in known:
        errors.append("client_id is missing")
    if errors:
        raise SourceFault(f"columns of query: {'; '.join(errors)}. Known are {', '.join(COLUMNS)}")
    return known


class SqlReader:
    """Reads all clients of a database. Each reading opens a connection, so that a new password takes effect at once."""

    def __init__(
        self,
        settings: SqlSettings,
        timeout: float,
        pause: Callable[[float], None] = time.sleep,
        bounds: Bounds = LIST_BOUNDS,
    ) -> None:
        """`timeout`: of a reading, in seconds. `pause`: sleep, so that other threads run. `bounds`: of the rows."""
        self._settings = settings
        self._timeout = timeout
        self._pause = pause
        self._bounds = bounds

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the clients; `last` itself if nothing has changed. Raises SourceFault."""
        deadline, read_at = Deadline(self._timeout), time.time()
        url = database_url(self._settings.url, self._settings.url_file)
        with open_for_reading(url, deadline, row_security=self._settings.row_security) as connection:
            collector = RowCollector(last, unique=True)
            amount = ReadAmount(self._bounds)
            listing = self._start_listing(connection, deadline, amount)
            for first, part in read_parts(listing.result, deadline, amount, self._pause):
                for number, row in enumerate(part, first):
                    try:
                        metadata = listing.read(row)
                    except ValueError as error:
                        collector.refuse(InputIssue(_name_row(row[listing.client_id], number), str(error)))
                        continue
                    if metadata is None:  # a client of another protocol than OpenID Connect
                        continue
                    has_name = metadata.get("client_id") is not None
                    collector.add(metadata if has_name else InputIssue(f"row {number}", "has no client_id"))
        return collector.answer(read_at)

    def _start_listing(self, connection: sa.Connection, deadline: Deadline, amount: ReadAmount) -> Listing:
        if self._settings.query is not None:
            return run_query(connection, self._settings.query)
        return list_duende_clients(connection, self._settings, deadline, amount, self._pause)


def _name_row(client_id: object, number: int) -> str:
    """Return the client ID for an error, or the row's number without a valid client ID."""
    try:
        return to_text(client_id) or f"row {number}"
    except ValueError:
        return f"row {number}"

"""The registry source `sql`: the clients of a database, by a preset's tables or by the operator's query.

It is made for 100,000 clients beside a busy event loop: rows come in parts with pauses, and an unchanged row stays the
same object.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
# Metadata that has nothing to do with logout (RFC 7591 §2, OpenID Connect Registration §2), without secrets.
_IGNORED = frozenset(
    map(
        normalize_name,
        [
            "application_type",
            "client_uri",
            "contacts",
            "default_acr_values",
            "default_max_age",
            "grant_types",
            "client_id_issued_at",
            "client_secret_expires_at",
            "initiate_login_uri",
            "logo_uri",
            "policy_uri",
            "post_logout_redirect_uris",
            "request_object_signing_alg",
            "request_uris",
            "require_auth_time",
            "response_types",
            "scope",
            "sector_identifier_uri",
            "software_id",
            "software_version",
            "token_endpoint_auth_method",
            "token_endpoint_auth_signing_alg",
            "tos_uri",
            "userinfo_signed_response_alg",
        ],
    )
)


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
            if not name:
                continue
            try:
                content = COLUMNS[name](value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
            if content is not None:
                metadata[name] = content
        return metadata

    return Listing(result=result, client_id=client_id, read=read)


def _column_names(columns: Sequence[str]) -> list[str]:
    """The name of each column; empty for metadata that is ignored. Raises SourceFault."""
    names = [_KNOWN_COLUMNS.get(normalize_name(name), "") for name in columns]
    wrong = [
        f"there is no client metadata {name!r}"
        for name, known in zip(columns, names, strict=True)
        if not known and normalize_name(name) not in _IGNORED
    ]
    wrong += sorted({f"{name} is there twice" for name in names if name and names.count(name) > 1})
    if "client_id" not in names:
        wrong.append("client_id is missing")
    if wrong:
        raise SourceFault(f"columns of query: {'; '.join(wrong)}. Known are {', '.join(COLUMNS)}")
    return names


_POSTGRESQL = """
SELECT quote_ident(s.nspname) || '.' || quote_ident(c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'f') AND s.nspname NOT IN ('pg_catalog', 'information_schema')
AND s.nspname NOT LIKE 'pg\\_%' AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
ORDER BY 1 LIMIT 1
"""
_SQL_SERVER = """
SELECT TOP 1 QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name) FROM sys.tables
WHERE HAS_PERMS_BY_NAME(QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name), 'OBJECT', 'INSERT') = 1
OR HAS_PERMS_BY_NAME(QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name), 'OBJECT', 'UPDATE') = 1
OR HAS_PERMS_BY_NAME(QUOTENAME(SCHEMA_NAME(schema_id)) + '.' + QUOTENAME(name), 'OBJECT', 'DELETE') = 1
ORDER BY 1
"""
_WRITE_RIGHTS = re.compile(r"\b(ALL PRIVILEGES|INSERT|UPDATE|DELETE|DROP|ALTER|CREATE|SUPER)\b")


def may_write(connection: sa.Connection) -> list[str]:
    """Return a warning if the user may write to some table. SQLite has no users."""
    match connection.dialect.name:
        case "postgresql":
            right = _first(connection, _POSTGRESQL)
        case "mssql":
            right = _first(connection, _SQL_SERVER)
        case "mysql" | "mariadb":
            grants = [str(row[0]) for row in _rows(connection, "SHOW GRANTS")]
            right = find_write_grant(grant for grant in grants if not _is_to_public(grant))
            if right is None and (right := find_write_grant(filter(_is_to_public, grants))) is not None:
                return [f"every user of the database may write to {right}, by a grant to PUBLIC; revoke it there"]
        case _:
            right = None
    if right is None:
        return []
    return [f"the database's user may write, such as to {right}; give notifier one that has the right to SELECT alone"]


def _is_to_public(grant: str) -> bool:
    """Return whether a grant of MariaDB is to PUBLIC."""
    return grant.rpartition(" TO ")[2].strip("`'\" ").upper() == "PUBLIC"


def find_write_grant(grants: Iterable[str]) -> str | None:
    """Return the first table, or other object, that grants of MySQL or MariaDB allow the user to write to."""
    for grant in grants:
        rights, _, rest = grant.partition(" ON ")
        what, of_somebody, _ = rest.partition(" TO ")
        if of_somebody and _WRITE_RIGHTS.search(rights.upper()):
            return what
    return None


def _first(connection: sa.Connection, statement: str) -> str | None:
    return next((str(row[0]) for row in _rows(connection, statement)), None)


def _rows(connection: sa.Connection, statement: str) -> list[Any]:
    return list(connection.exec_driver_sql(statement, execution_options={"no_parameters": True}))


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
        return self._read(last)

    async def warnings(self) -> list[str]:
        """Return a warning if the database's user may write. Raises SourceFault."""
        with open_for_reading(self._url(), Deadline(self._timeout), row_security=True) as connection:
            return may_write(connection)

    def _read(self, last: SourceAnswer | None) -> SourceAnswer:
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

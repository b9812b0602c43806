"""The tables of IdentityServer4 from 2.x on and of Duende IdentityServer to 8, as Entity Framework makes them.

The columns about logout are the same in all of them, but for the algorithms, which IdentityServer4 has from 4.0 on.
Names are compared without regard to case and `_`: naming conventions for PostgreSQL change both. Views do as well.

What the server does itself is done here: a disabled client is told nothing, and one that speaks another protocol than
OpenID Connect is none. `PairWiseSubjectSalt` has no effect, as in the server.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import quoted_name

from notifier.adapters.registries.redirects import redirect_uris
from notifier.adapters.registries.sql_columns import (
    Amount,
    Listing,
    algorithms,
    lower,
    parts,
    plain,
    scalar,
    streaming,
    text,
    truth,
)
from notifier.adapters.registries.sql_connection import Deadline
from notifier.domain.client_rows import SourceFault
from notifier.settings.sql_settings import DuendeTables, SqlSettings

_CLIENTS = (
    "ClientId", "Id", "Enabled", "ProtocolType",
    "BackChannelLogoutUri", "BackChannelLogoutSessionRequired",
    "FrontChannelLogoutUri", "FrontChannelLogoutSessionRequired",
    "AllowedIdentityTokenSigningAlgorithms", "SubjectType", "ClientName",
)  # fmt: skip
_NEEDED = ("ClientId", "BackChannelLogoutUri")  # a view may leave out the rest
_PROPERTIES = ("ClientId", "Key", "Value")
_REDIRECTS = ("ClientId", "RedirectUri")
_OURS = "notifier:"
# SQLAlchemy reflects by SHOW CREATE, for which the right to SELECT is not enough if it is a view.
_MYSQL_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_name = :table AND table_schema = COALESCE(:schema, DATABASE()) ORDER BY ordinal_position
"""
_SHOWN = 8

_Properties = Mapping[object, Sequence[tuple[str, object]]]
_Redirects = Mapping[object, Sequence[object]]
_Taken = Callable[[sa.Select[Any]], Iterator[Sequence[Any]]]


def duende(
    connection: sa.Connection, settings: SqlSettings, deadline: Deadline, amount: Amount, pause: Callable[[float], None]
) -> Listing:
    """Find the tables and read the clients. Raises SourceFault."""
    tables, schema = settings.tables or DuendeTables(), settings.db_schema
    finder = TableFinder(connection, schema)
    named = settings.tables.model_fields_set if settings.tables else set()

    def beside(name: str, field: str) -> str | None:
        table = finder.find(name, DuendeTables.model_fields[field].alias or field, explicit=field in named)
        if table is None and name and field in named:
            raise SourceFault(finder.nothing_like(name))
        return table

    clients = finder.find(tables.clients, "Clients", explicit="clients" in named)
    if clients is None:
        raise SourceFault(finder.nothing_like(tables.clients))
    columns = finder.columns(clients, _CLIENTS, _NEEDED)

    def taken(statement: sa.Select[Any]) -> Iterator[Sequence[Any]]:
        result = connection.execute(statement, execution_options=streaming(connection))
        for _, part in parts(result, deadline, amount, pause):
            yield from part

    table = beside(tables.properties, "properties")
    properties = {} if table is None else _properties(finder, table, taken)
    table = beside(tables.redirect_uris, "redirect_uris")
    redirects = {} if table is None else _redirects(finder, table, taken)
    statement = sa.select(*[columns.get(name, sa.null()) for name in _CLIENTS])
    result = connection.execute(statement, execution_options=streaming(connection))
    return Listing(result=result, client_id=0, read=lambda row: _client(row, properties, redirects))


def _client(row: Sequence[Any], properties: _Properties, redirects: _Redirects) -> dict[str, Any] | None:
    client_id, key, enabled, protocol, uri, session, front_uri, front_session, signed_by, subject_type, name = row
    if protocol != "oidc" and (text(protocol) or "oidc").lower() != "oidc":
        return None
    found: dict[str, Any] = {"client_id": text(client_id)}
    if _truth("Enabled", enabled) is False:
        return found
    if (word := text(uri)) is not None and word.strip():
        found["backchannel_logout_uri"] = word
        found["backchannel_logout_session_required"] = _truth("BackChannelLogoutSessionRequired", session) is not False
    if (word := text(front_uri)) is not None and word.strip():
        found["frontchannel_logout_uri"] = word
        required = _truth("FrontChannelLogoutSessionRequired", front_session)
        found["frontchannel_logout_session_required"] = required is not False
        if (shown := text(name)) is not None:
            found["client_name"] = shown
    if (
        uris := redirect_uris(_each("RedirectUri", redirects.get(key, ())), found.get("frontchannel_logout_uri"))
    ) is not None:
        found["redirect_uris"] = uris
    if (algorithm := algorithms(signed_by)) is not None:
        found["id_token_signed_response_alg"] = algorithm
    if (word := lower(subject_type)) is not None:
        found["subject_type"] = word
    if (own := properties.get(key)) is not None:
        found["notifier"] = _nested(own)
    return found


def _truth(column: str, value: object) -> bool | None:
    try:
        return truth(value)
    except ValueError as error:
        raise ValueError(f"{column} {error}") from None


def _each(column: str, values: Iterable[object]) -> list[str]:
    try:
        return [word for word in map(text, values) if word is not None]
    except ValueError as error:
        raise ValueError(f"{column} {error}") from None


def _nested(properties: Iterable[tuple[str, object]]) -> dict[str, Any]:
    """`notifier:retry:base` is the member `base` of `retry`, as .NET writes it."""
    found: dict[str, Any] = {}
    for name, value in properties:
        *path, last = name.split(":")
        inner: Any = found
        for step in path:
            inner = inner.setdefault(step, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last in inner:
            raise ValueError(f"property {_OURS}{name} is there twice, or belongs to one that has a value itself")
        inner[last] = scalar(next(iter(_each(f"property {_OURS}{name}", [value])), ""))
    return found


def _properties(finder: "TableFinder", table: str, taken: _Taken) -> _Properties:
    """The properties for us, by the key of their client."""
    columns = finder.columns(table, _PROPERTIES, _PROPERTIES)
    owner, key, value = (columns[column] for column in _PROPERTIES)
    statement = sa.select(owner, key, value).where(sa.func.lower(key).like(f"{_OURS}%")).order_by(owner, key)
    found: dict[object, list[tuple[str, object]]] = {}
    for client, word, content in taken(statement):
        found.setdefault(client, []).append((word[len(_OURS) :].rstrip(" "), content))
    return found


def _redirects(finder: "TableFinder", table: str, taken: _Taken) -> _Redirects:
    """The redirect URIs, by the key of their client. Where a user comes back after a sign-out is another table."""
    columns = finder.columns(table, _REDIRECTS, _REDIRECTS)
    owner, uri = (columns[column] for column in _REDIRECTS)
    statement = sa.select(owner, uri).order_by(owner, uri)
    found: dict[object, list[object]] = {}
    for client, content in taken(statement):
        found.setdefault(client, []).append(content)
    return found


class TableFinder:
    """Finds tables and columns as they are really called."""

    def __init__(self, connection: sa.Connection, schema: str | None) -> None:
        self.connection = connection
        self._schema = None if schema is None else quoted_name(schema, quote=True)
        self._inspector = sa.inspect(connection)
        self._names = self._names_in(self._schema)

    def find(self, name: str, member: str, *, explicit: bool) -> str | None:
        """The one table of that name. An exact name counts only if somebody wrote it."""
        hits = [hit for hit in self._names if plain(hit) == plain(name)] if name else []
        if explicit and name in hits:
            return name
        if len(hits) > 1:
            raise SourceFault(f"there are the tables {' and '.join(hits)}; say which one it is by sql.tables.{member}")
        return hits[0] if hits else None

    def columns(self, table: str, wanted: Sequence[str], needed: Sequence[str]) -> dict[str, sa.ColumnElement[Any]]:
        """The columns of a table by the names that we know. Raises SourceFault if one is missing or there twice."""
        found: dict[str, list[str]] = {}
        for column in self._columns_of(table):
            found.setdefault(plain(column), []).append(column)
        missing = [name for name in needed if plain(name) not in found]
        if missing:
            raise SourceFault(f"table {table} has no column {' and no '.join(missing)}; is it the right table?")
        hits = {name: found[plain(name)] for name in wanted if plain(name) in found}
        twice = next((names for names in hits.values() if len(names) > 1), None)
        if twice:
            text = f"table {table} has the columns {' and '.join(twice)}; use a view with one of them, or query"
            raise SourceFault(text)
        bare: dict[str, sa.ColumnClause[Any]] = {
            name: sa.column(quoted_name(names[0], quote=True)) for name, names in hits.items()
        }
        selected = sa.table(quoted_name(table, quote=True), *bare.values(), schema=self._schema)
        return {name: selected.c[column.name] for name, column in bare.items()}

    def nothing_like(self, name: str) -> str:
        """What to say if there is no such table."""
        schema = self._schema or self._inspector.default_schema_name
        where = f"the schema {schema}" if schema else "the database"
        shown = ", ".join(sorted(self._names)[:_SHOWN]) + (" …" if len(self._names) > _SHOWN else "")
        here = f"it shows notifier's user {shown}" if self._names else "it shows notifier's user no table"
        others = [
            str(other)
            for other in self._inspector.get_schema_names()
            if other not in ("information_schema", schema)
            and any(plain(hit) == plain(name) for hit in self._names_in(quoted_name(other, quote=True)))
        ]
        hint = f"; there is one in the schema {' and in '.join(others)}: set sql.schema" if others else ""
        return (
            f"there is no table like {name} in {where} ({here}){hint or '; set sql.schema or sql.tables,'}"
            f"{'' if others else ' or give it the right to SELECT'}"
        )

    def _columns_of(self, table: str) -> list[str]:
        if self.connection.dialect.name not in ("mysql", "mariadb"):
            columns = self._inspector.get_columns(quoted_name(table, quote=True), schema=self._schema)
            return [column["name"] for column in columns]
        rows = self.connection.execute(sa.text(_MYSQL_COLUMNS), {"table": table, "schema": self._schema})
        return [column for name, column in rows if name == table]  # its comparison may ignore case

    def _names_in(self, schema: str | None) -> list[str]:
        names = [*self._inspector.get_table_names(schema), *self._inspector.get_view_names(schema)]
        if self.connection.dialect.name == "postgresql":
            names += self._inspector.get_materialized_view_names(schema)
        return names

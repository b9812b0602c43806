"""Read the tables of IdentityServer4 from 2.x on and of Duende IdentityServer to 8, as Entity Framework makes them.

The columns about logout are the same in all versions, except for the algorithms, which IdentityServer4 has from 4.0 on.
Names are compared without regard to case and `_`, since naming conventions for PostgreSQL change both. Columns
of all versions are required, except in a view that the settings declare as partial.

Like the server, the reader skips disabled clients and clients of other protocols than OpenID Connect.
`PairWiseSubjectSalt` has no effect, as in the server.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from notifier.configuration.clients.remote_rows import redirect_uris
from notifier.features.registries.sql_settings import DuendeTables, SqlSettings
from notifier.model.errors import SourceFault
from notifier.network.databases.sql_columns import (
    Listing,
    ReadAmount,
    parse_scalar,
    read_parts,
    streaming_options,
    to_algorithms,
    to_bool,
    to_lower,
    to_text,
)
from notifier.network.databases.sql_connection import Deadline
from notifier.network.databases.table_finder import TableFinder

_CLIENTS = (
    "ClientId", "Id", "Enabled", "ProtocolType",
    "BackChannelLogoutUri", "BackChannelLogoutSessionRequired",
    "FrontChannelLogoutUri", "FrontChannelLogoutSessionRequired",
    "ClientName", "AllowedIdentityTokenSigningAlgorithms", "SubjectType",
)  # fmt: skip
_IN_ALL_VERSIONS = _CLIENTS[:-2]  # without `Enabled`, disabled clients would be notified
_NEEDED_OF_A_VIEW = ("ClientId", "BackChannelLogoutUri")
_PROPERTIES = ("ClientId", "Key", "Value")
_REDIRECTS = ("ClientId", "RedirectUri")
_PREFIX = "notifier:"

_Properties = Mapping[object, Sequence[tuple[str, object]]]
_Redirects = Mapping[object, Sequence[object]]
_Select = Callable[[sa.Select[Any]], Iterator[Sequence[Any]]]


def duende(
    connection: sa.Connection,
    settings: SqlSettings,
    deadline: Deadline,
    amount: ReadAmount,
    pause: Callable[[float], None],
) -> Listing:
    """Find the tables and read the clients. Raises SourceFault."""
    tables, schema = settings.tables or DuendeTables(), settings.db_schema
    finder = TableFinder(connection, schema)
    named = settings.tables.model_fields_set if settings.tables else set()
    some = settings.columns == "some"

    def table_error(name: str, field: str) -> str | None:
        member = DuendeTables.model_fields[field].alias or field
        table = finder.find(name, member, explicit=field in named)
        if table is None and name and (field in named or not some):
            way = f'; set sql.tables.{member}: "" if nothing is to be read of it'
            raise SourceFault(finder.nothing_like(name) + way)
        return table

    clients = finder.find(tables.clients, "Clients", explicit="clients" in named)
    if clients is None:
        raise SourceFault(finder.nothing_like(tables.clients))
    columns = finder.columns(
        clients,
        _CLIENTS,
        _NEEDED_OF_A_VIEW if some else _IN_ALL_VERSIONS,
        "" if some else " A view that leaves columns out says so by sql.columns: some",
    )

    def select(statement: sa.Select[Any]) -> Iterator[Sequence[Any]]:
        result = connection.execute(statement, execution_options=streaming_options(connection))
        for _, part in read_parts(result, deadline, amount, pause):
            yield from part

    table = table_error(tables.properties, "properties")
    properties = {} if table is None else _read_properties(finder, table, select)
    table = table_error(tables.redirect_uris, "redirect_uris")
    redirects = {} if table is None else _read_redirects(finder, table, select)
    statement = sa.select(*[columns.get(name, sa.null()) for name in _CLIENTS])
    result = connection.execute(statement, execution_options=streaming_options(connection))
    return Listing(result=result, client_id=0, read=lambda row: _client(row, properties, redirects))


def _client(row: Sequence[Any], properties: _Properties, redirects: _Redirects) -> dict[str, Any] | None:
    client_id, key, enabled, protocol, uri, session, front_uri, front_session, name, signed_by, subject_type = row
    if protocol != "oidc" and (to_text(protocol) or "oidc").lower() != "oidc":
        return None
    metadata: dict[str, Any] = {"client_id": to_text(client_id)}
    if _parse_bool("Enabled", enabled) is False:
        return metadata
    if (word := to_text(uri)) is not None and word.strip():
        metadata["backchannel_logout_uri"] = word
        metadata["backchannel_logout_session_required"] = (
            _parse_bool("BackChannelLogoutSessionRequired", session) is not False
        )
    if (word := to_text(front_uri)) is not None and word.strip():
        metadata["frontchannel_logout_uri"] = word
        required = _parse_bool("FrontChannelLogoutSessionRequired", front_session)
        metadata["frontchannel_logout_session_required"] = required is not False
        if (shown := to_text(name)) is not None:
            metadata["client_name"] = shown
    if (
        uris := redirect_uris(_to_texts("RedirectUri", redirects.get(key, ())), metadata.get("frontchannel_logout_uri"))
    ) is not None:
        metadata["redirect_uris"] = uris
    if (algorithm := to_algorithms(signed_by)) is not None:
        metadata["id_token_signed_response_alg"] = algorithm
    if (word := to_lower(subject_type)) is not None:
        metadata["subject_type"] = word
    if (own := properties.get(key)) is not None:
        metadata["notifier"] = _nest(own)
    return metadata


def _parse_bool(column: str, value: object) -> bool | None:
    try:
        return to_bool(value)
    except ValueError as error:
        raise ValueError(f"{column} {error}") from None


def _to_texts(column: str, values: Iterable[object]) -> list[str]:
    try:
        return [word for word in map(to_text, values) if word is not None]
    except ValueError as error:
        raise ValueError(f"{column} {error}") from None


def _nest(properties: Iterable[tuple[str, object]]) -> dict[str, Any]:
    """`notifier:retry:base` is the member `base` of `retry`, as .NET writes it."""
    settings: dict[str, Any] = {}
    for name, value in properties:
        *path, last = name.split(":")
        inner: Any = settings
        for step in path:
            inner = inner.setdefault(step, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last in inner:
            raise ValueError(f"property {_PREFIX}{name} is there twice, or below a property with a value")
        inner[last] = parse_scalar(next(iter(_to_texts(f"property {_PREFIX}{name}", [value])), ""))
    return settings


def _read_properties(finder: "TableFinder", table: str, select: _Select) -> _Properties:
    """The properties for us, by the key of their client."""
    columns = finder.columns(table, _PROPERTIES, _PROPERTIES)
    owner, key, value = (columns[column] for column in _PROPERTIES)
    statement = sa.select(owner, key, value).where(sa.func.lower(key).like(f"{_PREFIX}%")).order_by(owner, key)
    words: dict[object, list[tuple[str, object]]] = {}
    for client, word, content in select(statement):
        words.setdefault(client, []).append((word[len(_PREFIX) :].rstrip(" "), content))
    return words


def _read_redirects(finder: "TableFinder", table: str, select: _Select) -> _Redirects:
    """The redirect URIs, by the key of their client. Where a user comes back after a sign-out is another table."""
    columns = finder.columns(table, _REDIRECTS, _REDIRECTS)
    owner, uri = (columns[column] for column in _REDIRECTS)
    statement = sa.select(owner, uri).order_by(owner, uri)
    uris: dict[object, list[object]] = {}
    for client, content in select(statement):
        uris.setdefault(client, []).append(content)
    return uris

"""Read the tables of Duende IdentityServer and IdentityServer4 (2.x to Duende 8), which Entity Framework creates.

All versions have the same columns about logout, except `AllowedIdentityTokenSigningAlgorithms` (from 4.0 on). Names are
compared without case and `_`, since naming conventions for PostgreSQL change both. The columns of all versions are
required, except in a view that the settings declare as partial (`columns: some`).

Like the server, the reader skips clients of other protocols than OpenID Connect. A disabled client has no addresses.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from notifier.configuration.clients.remote_rows import redirect_uris
from notifier.features.registries.list_settings import DuendeTables, SqlSettings
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
_REQUIRED_COLUMNS = _CLIENTS[:-2]  # those of all versions; without `Enabled`, disabled clients would be notified
_REQUIRED_VIEW_COLUMNS = ("ClientId", "BackChannelLogoutUri")
_PROPERTIES = ("ClientId", "Key", "Value")
_REDIRECTS = ("ClientId", "RedirectUri")
_PREFIX = "notifier:"
_T = TypeVar("_T")

_Properties = Mapping[object, Sequence[tuple[str, object]]]
_Redirects = Mapping[object, Sequence[object]]
_Select = Callable[[sa.Select[Any]], Iterator[Sequence[Any]]]


def list_duende_clients(
    connection: sa.Connection,
    settings: SqlSettings,
    deadline: Deadline,
    amount: ReadAmount,
    pause: Callable[[float], None],
) -> Listing:
    """Read properties and redirect URIs, and return the rows of the table of clients. Raises SourceFault."""
    tables = settings.tables or DuendeTables()
    configured = tables.model_fields_set
    finder = TableFinder(connection, settings.db_schema)
    is_view = settings.columns == "some"

    def find_optional_table(name: str, field: str) -> str | None:
        """Return a table that a view may lack; None if it is missing. Raises SourceFault if it is required."""
        member = DuendeTables.model_fields[field].alias or field
        table = finder.find(name, member, explicit=field in configured)
        is_required = name != "" and (field in configured or not is_view)
        if table is None and is_required:
            remedy = f'; set sql.tables.{member}: "" if nothing is to be read of it'
            raise SourceFault(finder.explain_missing_table(name) + remedy)
        return table

    clients = finder.find(tables.clients, "Clients", explicit="clients" in configured)
    if clients is None:
        raise SourceFault(finder.explain_missing_table(tables.clients))
    required = _REQUIRED_VIEW_COLUMNS if is_view else _REQUIRED_COLUMNS
    remedy = "" if is_view else " A view that leaves columns out says so by sql.columns: some"
    columns = finder.columns(clients, _CLIENTS, required, remedy)

    def select(statement: sa.Select[Any]) -> Iterator[Sequence[Any]]:
        result = connection.execute(statement, execution_options=streaming_options(connection))
        for _, part in read_parts(result, deadline, amount, pause):
            yield from part

    table = find_optional_table(tables.properties, "properties")
    properties = {} if table is None else _read_properties(finder, table, select)
    table = find_optional_table(tables.redirect_uris, "redirect_uris")
    redirects = {} if table is None else _read_redirects(finder, table, select)
    statement = sa.select(*[columns.get(name, sa.null()) for name in _CLIENTS])
    result = connection.execute(statement, execution_options=streaming_options(connection))
    return Listing(result=result, client_id=0, read=lambda row: _to_metadata(row, properties, redirects))


def _to_metadata(row: Sequence[Any], properties: _Properties, redirects: _Redirects) -> dict[str, Any] | None:
    """Return the metadata of a client, from its row with _CLIENTS columns; None for a client of another protocol."""
    client_id, key, enabled, protocol, uri, session, front_uri, front_session, name, algorithms, subject_type = row
    if protocol != "oidc" and (to_text(protocol) or "oidc").lower() != "oidc":
        return None
    metadata: dict[str, Any] = {"client_id": to_text(client_id)}
    if _convert_column("Enabled", to_bool, enabled) is False:
        return metadata
    logout_uri = to_text(uri)
    if logout_uri is not None and logout_uri.strip():
        metadata["backchannel_logout_uri"] = logout_uri
        required = _convert_column("BackChannelLogoutSessionRequired", to_bool, session)
        metadata["backchannel_logout_session_required"] = required is not False
    front_channel = to_text(front_uri)
    if front_channel is not None and front_channel.strip():
        metadata["frontchannel_logout_uri"] = front_channel
        required = _convert_column("FrontChannelLogoutSessionRequired", to_bool, front_session)
        metadata["frontchannel_logout_session_required"] = required is not False
        metadata["client_name"] = to_text(name)
    redirect_texts = [_convert_column("RedirectUri", to_text, value) for value in redirects.get(key, ())]
    metadata["redirect_uris"] = redirect_uris(redirect_texts, metadata.get("frontchannel_logout_uri"))
    metadata["id_token_signed_response_alg"] = to_algorithms(algorithms)
    metadata["subject_type"] = to_lower(subject_type)
    if key in properties:
        metadata["notifier"] = _nest_properties(properties[key])
    return {member: value for member, value in metadata.items() if value is not None or member == "client_id"}


def _convert_column(column: str, convert: Callable[[object], _T], value: object) -> _T:
    """Return the converted value of a column. Raises ValueError with the column's name."""
    try:
        return convert(value)
    except ValueError as error:
        raise ValueError(f"{column} {error}") from None


def _nest_properties(properties: Iterable[tuple[str, object]]) -> dict[str, Any]:
    """Return the options in properties. `:` separates nested members, as in .NET: `retry:base` is `base` of `retry`."""
    options: dict[str, Any] = {}
    for name, value in properties:
        *sections, option = name.split(":")
        section: Any = options
        for section_name in sections:
            section = section.setdefault(section_name, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict) or option in section:
            raise ValueError(f"property {_PREFIX}{name} is there twice, or below a property with a value")
        section[option] = parse_scalar(_convert_column(f"property {_PREFIX}{name}", to_text, value) or "")
    return options


def _read_properties(finder: "TableFinder", table: str, select: _Select) -> _Properties:
    """Return the properties with the prefix `notifier:`, by the key of their client: name without prefix, and value."""
    columns = finder.columns(table, _PROPERTIES, _PROPERTIES)
    client, name, value = (columns[column] for column in _PROPERTIES)
    statement = sa.select(client, name, value).where(sa.func.lower(name).like(f"{_PREFIX}%")).order_by(client, name)
    properties: dict[object, list[tuple[str, object]]] = {}
    for client_key, full_name, content in select(statement):
        properties.setdefault(client_key, []).append((full_name[len(_PREFIX) :].rstrip(" "), content))
    return properties


def _read_redirects(finder: "TableFinder", table: str, select: _Select) -> _Redirects:
    """Return the redirect URIs, by the key of their client. Post-logout redirect URIs are in another table."""
    columns = finder.columns(table, _REDIRECTS, _REDIRECTS)
    client, uri = (columns[column] for column in _REDIRECTS)
    statement = sa.select(client, uri).order_by(client, uri)
    uris: dict[object, list[object]] = {}
    for client_key, content in select(statement):
        uris.setdefault(client_key, []).append(content)
    return uris

"""Reads clients by the operator's own query. Its columns are named as client metadata, whatever the case and `_`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from notifier.model.errors import SourceFault
from notifier.network.databases.sql_columns import (
    Listing,
    algorithms,
    listed,
    lower,
    mapping,
    plain,
    streaming,
    text,
    truth,
)


def _jwks(value: object) -> object:
    """The client's keys. What is no JSON object is a mistake only of clients that want encrypted tokens."""
    try:
        return mapping(value)
    except ValueError:
        return {}


COLUMNS: Mapping[str, Callable[[object], object]] = {
    "client_id": text,
    "issuer": listed,
    "backchannel_logout_uri": text,
    "backchannel_logout_session_required": truth,
    "frontchannel_logout_uri": text,
    "frontchannel_logout_session_required": truth,
    "redirect_uris": listed,
    "client_name": text,
    "id_token_signed_response_alg": algorithms,
    "id_token_encrypted_response_alg": text,
    "id_token_encrypted_response_enc": text,
    "jwks": _jwks,
    "jwks_uri": text,
    "subject_type": lower,
    "notifier": mapping,
    "aliases": listed,
}
_KNOWN = {plain(name): name for name in COLUMNS}
# Metadata that has nothing to do with logout (RFC 7591 §2, OpenID Connect Registration §2), without secrets.
_IGNORED = frozenset(
    map(
        plain,
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


def own_query(connection: sa.Connection, query: str) -> Listing:
    """Run the query. Raises SourceFault if its columns are not those of clients."""
    as_it_is = {**streaming(connection), "no_parameters": True}  # neither `%` nor `:name` is one
    result = connection.exec_driver_sql(query.strip().rstrip(";"), execution_options=as_it_is)
    if not result.returns_rows:
        raise SourceFault("query must be a SELECT: it gives no rows")
    names = _names([str(key) for key in result.keys()])  # noqa: SIM118  a view of its own, not a mapping's
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


def _names(columns: Sequence[str]) -> list[str]:
    """The name of each column; empty for metadata that is ignored. Raises SourceFault."""
    names = [_KNOWN.get(plain(name), "") for name in columns]
    wrong = [
        f"there is no client metadata {name!r}"
        for name, known in zip(columns, names, strict=True)
        if not known and plain(name) not in _IGNORED
    ]
    wrong += sorted({f"{name} is there twice" for name in names if name and names.count(name) > 1})
    if "client_id" not in names:
        wrong.append("client_id is missing")
    if wrong:
        raise SourceFault(f"columns of query: {'; '.join(wrong)}. Known are {', '.join(COLUMNS)}")
    return names

"""Convert a client of Keycloak's Admin API to client metadata.

Keycloak keeps what concerns logout in `attributes`, as texts (`OIDCConfigAttributes`): `"true"` stands for true. They
include secrets, so a row has only the members that are needed.

Keycloak itself notifies each client that has a back-channel logout URL. To prevent that, the address may be in an
attribute of notifier instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import from_json

from notifier.configuration.clients.client_rows import Row
from notifier.configuration.clients.remote_rows import redirect_uris
from notifier.model.client import Algorithm
from notifier.model.egress import find_uri_issue
from notifier.model.errors import InputIssue
from notifier.network.http.json_parts import OutOfBounds

_URL, _SESSION = "backchannel.logout.url", "backchannel.logout.session.required"
_PAIRWISE = "-pairwise-sub-mapper"  # Keycloak's own is oidc-sha256-pairwise-sub-mapper; extensions end alike
_PREFIX = "notifier."
_OWN_URL, _OWN_SESSION = "notifier.backchannel_logout_uri", "notifier.backchannel_logout_session_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeycloakRealm:
    """The common data of a realm's clients.

    `issuer`: of each row, None if the source's settings have it. `base` and `admin`: Keycloak's front-end and
    admin address without a slash at the end. `default_algorithm`: of clients that name none.
    """

    issuer: str | None
    base: str
    admin: str
    default_algorithm: Algorithm

    def row(self, client: Any, place: str) -> Row | InputIssue:
        """Return the client's metadata, or the error in it. `place` identifies a client without a name."""
        if isinstance(client, OutOfBounds):
            return InputIssue(place, client.text)
        name = client.get("clientId") if isinstance(client, dict) else None
        if not isinstance(name, str) or not name:
            return InputIssue(place, "has no clientId")
        attributes = client["attributes"] if isinstance(client.get("attributes"), dict) else {}
        row: dict[str, object] = {"client_id": name}
        if self.issuer is not None:
            row["issuer"] = self.issuer
        if _is_pairwise(client):
            row["subject_type"] = "pairwise"
        settings = _parse_options(attributes)
        if settings:
            row["notifier"] = settings
        if client.get("enabled") is False or client.get("protocol") not in (None, "", "openid-connect"):
            return row  # Keycloak sends no back-channel logout to disabled clients or SAML clients
        return self._add_logout(row, client, attributes) or row

    def _add_logout(
        self, row: dict[str, object], client: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> InputIssue | None:
        """Add the client's logout metadata, or return the error in it."""
        name = str(row["client_id"])
        uri = self._resolve(_to_text(attributes.get(_OWN_URL)) or _to_text(attributes.get(_URL)), client)
        registered_algorithm = _to_text(attributes.get("id.token.signed.response.alg"))
        algorithm = self.default_algorithm if registered_algorithm in ("", "any") else registered_algorithm
        if algorithm in tuple(Algorithm):
            row["id_token_signed_response_alg"] = str(algorithm)
        if client.get("frontchannelLogout") is True:
            self._add_front_channel(row, client, attributes)
        listed = client["redirectUris"] if isinstance(client.get("redirectUris"), list) else ()
        own = [self._resolve(_to_text(uri), client) for uri in listed]
        if (uris := redirect_uris(own, row.get("frontchannel_logout_uri"))) is not None:
            row["redirect_uris"] = uris
        if (shown := _to_text(client.get("name"))) and not shown.startswith("${"):  # a key of Keycloak's translations
            row["client_name"] = shown
        if not uri:
            return None
        text = _find_variable(uri) or find_uri_issue(uri)
        if text is not None:
            return InputIssue(name, f"its back-channel logout URL {text}")
        if algorithm not in tuple(Algorithm):
            ways = ", ".join(Algorithm)
            return InputIssue(
                name, f"its ID tokens are signed with {algorithm[:20]!r}; choose one of {ways} in Keycloak"
            )
        row["backchannel_logout_uri"] = uri
        row["backchannel_logout_session_required"] = _is_true(attributes.get(_OWN_SESSION) or attributes.get(_SESSION))
        if alg := _to_text(attributes.get("id.token.encrypted.response.alg")):
            self._add_encryption(row, client, attributes, alg)
        return None

    def _add_encryption(
        self, row: dict[str, object], client: Mapping[str, Any], attributes: Mapping[str, Any], alg: str
    ) -> None:
        """Add encryption: like Keycloak, encrypt logout tokens like ID tokens, to a key of the JWKS or JWKS URL."""
        row["id_token_encrypted_response_alg"] = alg
        if enc := _to_text(attributes.get("id.token.encrypted.response.enc")):
            row["id_token_encrypted_response_enc"] = enc
        if _is_true(attributes.get("use.jwks.url")):
            row["jwks_uri"] = self._resolve(_to_text(attributes.get("jwks.url")), client)
        elif _is_true(attributes.get("use.jwks.string")):
            row["jwks"] = _parse_value(_to_text(attributes.get("jwks.string")))

    def _add_front_channel(
        self, row: dict[str, object], client: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        """Add the front-channel URL, by default the base URL as in Keycloak. An invalid URL is omitted."""
        uri = self._resolve(
            _to_text(attributes.get("frontchannel.logout.url")) or _to_text(client.get("baseUrl")), client
        )
        if uri and not _find_variable(uri) and find_uri_issue(uri) is None:
            row["frontchannel_logout_uri"] = uri
            if "frontchannel.logout.session.required" in attributes:
                required = _is_true(attributes["frontchannel.logout.session.required"])
                row["frontchannel_logout_session_required"] = required

    def _resolve(self, url: str, client: Mapping[str, Any]) -> str:
        """Resolve a URL like Keycloak's `ResolveRelative`: a path is appended to the root URL including its path."""
        if url.startswith("/"):
            root = _to_text(client.get("rootUrl"))
            parts = urlsplit(self.base)
            url = (root or f"{parts.scheme}://{parts.netloc}") + url
        return url.replace("${authBaseUrl}", self.base).replace("${authAdminUrl}", self.admin)


def _find_variable(uri: str) -> str | None:
    start = uri.find("${")
    if start < 0:
        return None
    end = uri.find("}", start)
    variable = uri[start : end + 1 if end > 0 else None][:60]
    return f"holds {variable}, which only Keycloak's own machine knows; write it out"


def _is_pairwise(client: Mapping[str, Any]) -> bool:
    mappers = client.get("protocolMappers")
    kinds = [mapper.get("protocolMapper") for mapper in mappers or () if isinstance(mapper, dict)]
    return any(isinstance(kind, str) and kind.endswith(_PAIRWISE) for kind in kinds)


def _parse_options(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return notifier's settings from attributes such as `notifier.timeout` and `notifier.retry.base`."""
    settings: dict[str, Any] = {}
    for name, value in attributes.items():
        if not name.startswith(_PREFIX) or name in (_OWN_URL, _OWN_SESSION) or not _to_text(value):
            continue
        section = settings
        *sections, last = name.removeprefix(_PREFIX).split(".")
        for part in sections:
            inner = section.setdefault(part, {})
            section = inner if isinstance(inner, dict) else {}
        section[last] = _parse_value(_to_text(value))
    return settings


def _parse_value(text: str) -> Any:
    """Parse numbers, true, false, lists and mappings as JSON; anything else is a text."""
    try:
        return from_json(text)
    except ValueError:
        return text


def _to_text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _is_true(value: object) -> bool:
    return value is True or _to_text(value).lower() == "true"

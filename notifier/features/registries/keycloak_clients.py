"""Convert a client of Keycloak's Admin API to a row of client metadata.

Keycloak stores logout settings in the client's `attributes` (`OIDCConfigAttributes`), a map of strings with `"true"`
for true. The attributes include secrets, so that a row has only the members that notifier needs. Keycloak itself
notifies each client that has `backchannel.logout.url`. To avoid that, the URL may be in notifier's own attribute.
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
_PAIRWISE_SUFFIX = "-pairwise-sub-mapper"  # Keycloak's is oidc-sha256-pairwise-sub-mapper; extensions have the suffix
_PREFIX = "notifier."
_OWN_URL, _OWN_SESSION = "notifier.backchannel_logout_uri", "notifier.backchannel_logout_session_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeycloakRealm:
    """The data that the clients of a realm have in common.

    `issuer`: the issuer of each row; None if the source's settings have it. `frontend_url` and `admin_url`: Keycloak's,
    without a slash at the end. `default_algorithm`: of clients without a registered algorithm.
    """

    issuer: str | None
    frontend_url: str
    admin_url: str
    default_algorithm: Algorithm

    def to_row(self, client: Any, position: str) -> Row | InputIssue:
        """Return the client's metadata, or its error. `position` in the list identifies a client without a name."""
        if isinstance(client, OutOfBounds):
            return InputIssue(position, client.text)
        name = client.get("clientId") if isinstance(client, dict) else None
        if not isinstance(name, str) or not name:
            return InputIssue(position, "has no clientId")
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
        mistake = self._add_logout(row, client, attributes)
        return row if mistake is None else mistake

    def _add_logout(
        self, row: dict[str, object], client: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> InputIssue | None:
        """Add the client's metadata to its row. Return the error in those about back-channel logout, if any."""
        client_id = str(row["client_id"])
        uri = self._resolve(_to_text(attributes.get(_OWN_URL)) or _to_text(attributes.get(_URL)), client)
        registered_algorithm = _to_text(attributes.get("id.token.signed.response.alg"))
        algorithm = self.default_algorithm if registered_algorithm in ("", "any") else registered_algorithm
        if algorithm in tuple(Algorithm):
            row["id_token_signed_response_alg"] = str(algorithm)
        if client.get("frontchannelLogout") is True:
            self._add_front_channel(row, client, attributes)
        registered_uris = client["redirectUris"] if isinstance(client.get("redirectUris"), list) else ()
        resolved_uris = [self._resolve(_to_text(uri), client) for uri in registered_uris]
        if (uris := redirect_uris(resolved_uris, row.get("frontchannel_logout_uri"))) is not None:
            row["redirect_uris"] = uris
        display_name = _to_text(client.get("name"))
        if display_name and not display_name.startswith("${"):  # `${…}` is a key of Keycloak's translations
            row["client_name"] = display_name
        if not uri:
            return None
        text = _find_variable(uri) or find_uri_issue(uri)
        if text is not None:
            return InputIssue(client_id, f"its back-channel logout URL {text}")
        if algorithm not in tuple(Algorithm):
            text = f"its ID tokens are signed with {algorithm[:20]!r}; choose one of {', '.join(Algorithm)} in Keycloak"
            return InputIssue(client_id, text)
        row["backchannel_logout_uri"] = uri
        row["backchannel_logout_session_required"] = _is_true(attributes.get(_OWN_SESSION) or attributes.get(_SESSION))
        encryption_algorithm = _to_text(attributes.get("id.token.encrypted.response.alg"))
        if encryption_algorithm:
            row["id_token_encrypted_response_alg"] = encryption_algorithm
            self._add_encryption_key(row, client, attributes)
        return None

    def _add_encryption_key(
        self, row: dict[str, object], client: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        """Add the content encryption and the client's keys. Keycloak encrypts logout tokens as it does ID tokens."""
        if enc := _to_text(attributes.get("id.token.encrypted.response.enc")):
            row["id_token_encrypted_response_enc"] = enc
        if _is_true(attributes.get("use.jwks.url")):
            row["jwks_uri"] = self._resolve(_to_text(attributes.get("jwks.url")), client)
        elif _is_true(attributes.get("use.jwks.string")):
            row["jwks"] = _parse_value(_to_text(attributes.get("jwks.string")))

    def _add_front_channel(
        self, row: dict[str, object], client: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        """Add the front-channel logout URL, if it is valid. Like in Keycloak, its default is the client's base URL."""
        url = _to_text(attributes.get("frontchannel.logout.url")) or _to_text(client.get("baseUrl"))
        uri = self._resolve(url, client)
        is_valid = uri and _find_variable(uri) is None and find_uri_issue(uri) is None
        if is_valid:
            row["frontchannel_logout_uri"] = uri
            if "frontchannel.logout.session.required" in attributes:
                required = _is_true(attributes["frontchannel.logout.session.required"])
                row["frontchannel_logout_session_required"] = required

    def _resolve(self, url: str, client: Mapping[str, Any]) -> str:
        """Return the absolute URL of a client, as Keycloak's `ResolveRelative`: a path follows the whole root URL."""
        if url.startswith("/"):
            root = _to_text(client.get("rootUrl"))
            parts = urlsplit(self.frontend_url)
            url = (root or f"{parts.scheme}://{parts.netloc}") + url
        return url.replace("${authBaseUrl}", self.frontend_url).replace("${authAdminUrl}", self.admin_url)


def _find_variable(uri: str) -> str | None:
    """Return the error if a variable of Keycloak remains in a URL; None without one."""
    start = uri.find("${")
    if start < 0:
        return None
    end = uri.find("}", start)
    variable = uri[start : end + 1 if end > 0 else None][:60]
    return f"holds {variable}, which only Keycloak's own machine knows; write it out"


def _is_pairwise(client: Mapping[str, Any]) -> bool:
    """Return whether a mapper of the client computes a pairwise `sub`."""
    mappers = client.get("protocolMappers")
    kinds = [mapper.get("protocolMapper") for mapper in mappers or () if isinstance(mapper, dict)]
    return any(isinstance(kind, str) and kind.endswith(_PAIRWISE_SUFFIX) for kind in kinds)


def _parse_options(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return notifier's settings from attributes such as `notifier.timeout` and `notifier.retry.base`.

    An attribute below another one with a value is ignored, such as the latter beside `notifier.retry`.
    """
    settings: dict[str, Any] = {}
    for name, value in attributes.items():
        is_option = name.startswith(_PREFIX) and name not in (_OWN_URL, _OWN_SESSION)
        if not is_option or not _to_text(value):
            continue
        section = settings
        *section_names, option = name.removeprefix(_PREFIX).split(".")
        for section_name in section_names:
            inner = section.setdefault(section_name, {})
            section = inner if isinstance(inner, dict) else {}
        section[option] = _parse_value(_to_text(value))
    return settings


def _parse_value(text: str) -> Any:
    """Return the value of JSON, such as a number, `true` or a list. A text that is not JSON is returned as it is."""
    try:
        return from_json(text)
    except ValueError:
        return text


def _to_text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _is_true(value: object) -> bool:
    return value is True or _to_text(value).lower() == "true"

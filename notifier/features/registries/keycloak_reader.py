"""The registry source `keycloak`: the clients of a Keycloak realm, by its Admin API.

`POST realms/{realm}/protocol/openid-connect/token` returns a token for 300 s by the client-credentials grant (RFC 6749
§4.4). `GET admin/realms/{realm}/clients?first&max` returns clients in the order of `clientId`, and past the end an
empty list. The response contains client secrets, and is dropped after each page.
"""

from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, Field

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.keycloak_clients import KeycloakRealm
from notifier.features.registries.page_requests import Advice, ShiftingPages, access_token, ask
from notifier.model.client import Algorithm
from notifier.model.errors import InputIssue, SourceFault
from notifier.network.http.json_client import JsonAnswer, JsonWeb
from notifier.settings.choices import exactly_one
from notifier.settings.remote_server import RemoteServerSettings, server_address
from notifier.settings.secret_text import SecretPath, SecretText, secret_of
from notifier.settings.values import Name, WebAddress

PAGE_SIZE = 100  # clients of about 1 KB
_ROLE = "the role view-clients of realm-management (Clients → {client} → Service accounts roles)"


def _check_realm(name: str) -> str:
    if "/" in name:
        raise ValueError("must be the realm's name alone, such as demo")
    return name


class KeycloakSettings(RemoteServerSettings):
    """The clients of one realm, by Keycloak's Admin API. One of `client_secret` and `client_secret_file` is given."""

    url: Annotated[
        WebAddress, server_address("/realms", "/admin", instead="client_id and client_secret_file are for that")
    ]
    """Keycloak's address, with its path if any, such as https://kc.example.com."""
    realm: Annotated[str, Field(min_length=1), AfterValidator(_check_realm)]
    """The realm's name."""
    client_id: Name = Field(min_length=1)
    """A client of the realm with a service account that has the role view-clients of realm-management."""
    client_secret: SecretText | None = None
    """Its secret."""
    client_secret_file: SecretPath | None = None
    """A file with its secret. It is read each time."""
    default_algorithm: Algorithm = Algorithm.RS256
    """The realm's default signature algorithm, which clients without one of their own have."""

    @property
    def own_issuer(self) -> str:
        """Return the issuer of the realm."""
        return f"{self.url}/realms/{quote(self.realm, safe='')}"

    _check_secret = exactly_one("client_secret", "client_secret_file")


async def collect_keycloak(
    settings: KeycloakSettings, issuer: str | None, server: JsonWeb, last: SourceAnswer | None
) -> RowCollector:
    """Return the clients of one realm, each time with a new token. Raises SourceFault. `issuer`: that of the source."""
    collector, pages = RowCollector(last), ShiftingPages(PAGE_SIZE)
    session, realm = _AdminSession(settings, server), _build_realm(settings, issuer)
    while (first := pages.first) is not None:
        clients = await session.clients(first)
        if not clients and first == 0:
            raise SourceFault(
                f"the realm {settings.realm} answered with no clients, which cannot be: give "
                f"{_ROLE.format(client=settings.client_id)}; query-clients alone shows none"
            )
        rows = [realm.to_row(client, f"[{position}]") for position, client in enumerate(clients, first)]
        names = [row.path if isinstance(row, InputIssue) else str(row["client_id"]) for row in rows]
        if not pages.accept(names):
            continue
        for row in rows:
            if isinstance(row, InputIssue):
                collector.refuse(row)
        await collector.add_all(row for row in rows if not isinstance(row, InputIssue))
    return collector


class _AdminSession:
    """Sends requests to the Admin API with an access token, which it replaces when Keycloak refuses it."""

    def __init__(self, settings: KeycloakSettings, server: JsonWeb) -> None:
        self._settings = settings
        self._server = server
        self._token: str | None = None

    async def clients(self, first: int) -> list[Any]:
        """Return the page of clients at the offset `first`. Raises SourceFault."""
        realm = quote(self._settings.realm, safe="")
        url = f"{self._settings.url}/admin/realms/{realm}/clients?first={first}&max={PAGE_SIZE}"
        answer = await self._get(url, expected=(401,))
        if answer.status == 401:
            self._token = None
            answer = await self._get(url)
        if not isinstance(answer.content, list):
            raise SourceFault("its list of clients is not a list; is `url` the address of a Keycloak?")
        return answer.content

    async def _get(self, url: str, expected: tuple[int, ...] = ()) -> JsonAnswer:
        if self._token is None:
            self._token = await self._request_token()
        headers = {"Authorization": f"Bearer {self._token}"}
        return await ask(self._server, url, headers, _page_advice(self._settings), expected=expected)

    async def _request_token(self) -> str:
        """Return a new access token. Raises SourceFault."""
        settings = self._settings
        form = {"grant_type": "client_credentials", "client_id": settings.client_id, "client_secret": _secret(settings)}
        url = f"{settings.url}/realms/{quote(settings.realm, safe='')}/protocol/openid-connect/token"
        advice = {404: _explain_not_found(settings)}
        answer = await ask(self._server, url, {}, advice, form=form, expected=(400, 401, 403))
        if answer.status >= 400:
            raise SourceFault(
                f"no token ({answer.status}): client_id {settings.client_id} or its secret is wrong; or that client is"
                " disabled, or lacks Client authentication or Service accounts roles; or Keycloak takes https only here"
            )
        return access_token(answer, "a Keycloak")


def _build_realm(settings: KeycloakSettings, issuer: str | None) -> KeycloakRealm:
    """Return the realm. `issuer`: that of the source; if None, each row names the realm's own issuer.

    Keycloak's front-end URL, with which an issuer begins, may differ from `url`, where notifier reaches Keycloak.
    """
    path = f"/realms/{quote(settings.realm, safe='')}"
    is_issuer_of_realm = issuer is not None and issuer.endswith(path)
    return KeycloakRealm(
        issuer=settings.own_issuer if issuer is None else None,
        frontend_url=str(issuer).removesuffix(path) if is_issuer_of_realm else settings.url,
        admin_url=settings.url,
        default_algorithm=settings.default_algorithm,
    )


def _secret(settings: KeycloakSettings) -> str:
    if settings.client_secret is not None:
        return settings.client_secret.get_secret_value()
    assert settings.client_secret_file is not None, "the settings require one of the two"
    return secret_of("client_secret_file", settings.client_secret_file)


def _page_advice(settings: KeycloakSettings) -> Advice:
    return {
        401: "it refuses the token that it just gave: `url` must be an address under which Keycloak calls itself by its"
        " own issuer (settings hostname and hostname-admin)",
        403: f"give {_ROLE.format(client=settings.client_id)}",
        404: _explain_not_found(settings),
    }


def _explain_not_found(settings: KeycloakSettings) -> str:
    return (
        f"there is no realm {settings.realm} at {settings.url}: check `realm` (capitals matter) and the path of "
        "`url` (/auth in old versions and where http-relative-path says so)"
    )

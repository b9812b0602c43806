"""Read the clients of a Keycloak realm by its Admin API, as a client with a service account.

| path below `url` | |
|---|---|
| `POST realms/{realm}/protocol/openid-connect/token` | a token by the client-credentials grant (RFC 6749 §4.4), 300 s |
| `GET admin/realms/{realm}/clients?first&max` | clients, ordered by `clientId`; past the end an empty list |

The role `view-clients` shows the secret of each client too, so a page is dropped as soon as its rows are made.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.keycloak_clients import KeycloakRealm
from notifier.features.registries.page_requests import Advice, ShiftingPages, access_token, ask
from notifier.model.client import Algorithm
from notifier.model.errors import InputIssue, SourceFault
from notifier.network.http.json_client import JsonAnswer
from notifier.network.http.json_over_http import JsonWeb, open_web
from notifier.settings.registry_settings import RegistrySourceSettings
from notifier.settings.remote_server import RemoteServerSettings, server_address
from notifier.settings.secret_text import SecretPath, SecretText, secret_of
from notifier.settings.values import Name, WebAddress

PAGE = 100  # clients, of about 1 KB each
_ROLE = "the role view-clients of realm-management (Clients → {client} → Service accounts roles)"


def _realm_name(name: str) -> str:
    if "/" in name:
        raise ValueError("must be the realm's name alone, such as demo")
    return name


class KeycloakSettings(RemoteServerSettings):
    """The clients of one realm, by Keycloak's Admin API. One of `client_secret` and `client_secret_file` is given."""

    url: Annotated[
        WebAddress, server_address("/realms", "/admin", instead="client_id and client_secret_file are for that")
    ]
    """Keycloak's address, with its path if any, such as https://kc.example.com."""
    realm: Annotated[str, Field(min_length=1), AfterValidator(_realm_name)]
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
        """The realm's issuer, whose clients these are."""
        return f"{self.url}/realms/{quote(self.realm, safe='')}"

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.client_secret is None) == (self.client_secret_file is None):
            both = "; it has both" if self.client_secret is not None else ""
            raise ValueError(f"needs client_secret or client_secret_file{both}")
        return self


class KeycloakReader:
    """Reads one realm, each time with a new token."""

    def __init__(self, source: RegistrySourceSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = source.of_kind(KeycloakSettings)
        self._source = source
        self._clock = clock
        self._realm = _realm(self._settings, source.issuer)

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the realm's clients; `last` itself if nothing has changed. Raises SourceFault."""
        collector, pages = RowCollector(last), ShiftingPages(PAGE)
        at = self._clock()
        async with open_web(self._settings.tls, self._source.timeout) as opened:
            session = _AdminSession(self._settings, opened)
            while pages.first is not None:
                await self._take_page(session, pages, collector)
        return collector.answer(at)

    async def _take_page(self, session: "_AdminSession", pages: ShiftingPages, collector: RowCollector) -> None:
        first = pages.first or 0
        clients = await session.clients(first)
        if not clients and first == 0:
            raise SourceFault(
                f"the realm {self._settings.realm} answered with no clients, which cannot be: give "
                f"{_ROLE.format(client=self._settings.client_id)}; query-clients alone shows none"
            )
        rows = [self._realm.row(client, f"[{first + nth}]") for nth, client in enumerate(clients)]
        names = [row.path if isinstance(row, InputIssue) else str(row["client_id"]) for row in rows]
        if not pages.take(names):
            rows.clear()
        for row in rows:
            if isinstance(row, InputIssue):
                collector.refuse(row)
        await collector.add_all(row for row in rows if not isinstance(row, InputIssue))


class _AdminSession:
    """Sends requests to the Admin API, and renews the token when it expires, also in the middle of a reading."""

    def __init__(self, settings: KeycloakSettings, opened: JsonWeb) -> None:
        self._settings = settings
        self._web = opened
        self._token: str | None = None

    async def clients(self, first: int) -> list[Any]:
        """Return a page of clients. Raises SourceFault."""
        realm = quote(self._settings.realm, safe="")
        url = f"{self._settings.url}/admin/realms/{realm}/clients?first={first}&max={PAGE}"
        answer = await self._get(url, expected=(401,))
        if answer.status == 401:
            self._token = None
            answer = await self._get(url)
        if not isinstance(answer.content, list):
            raise SourceFault("its list of clients is not a list; is `url` the address of a Keycloak?")
        return answer.content

    async def _get(self, url: str, expected: tuple[int, ...] = ()) -> JsonAnswer:
        if self._token is None:
            self._token = await self._new_token()
        headers = {"Authorization": f"Bearer {self._token}"}
        return await ask(self._web, url, headers, _page_advice(self._settings), expected=expected)

    async def _new_token(self) -> str:
        settings = self._settings
        form = {"grant_type": "client_credentials", "client_id": settings.client_id, "client_secret": _secret(settings)}
        url = f"{settings.url}/realms/{quote(settings.realm, safe='')}/protocol/openid-connect/token"
        advice = {404: _not_found(settings)}
        answer = await ask(self._web, url, {}, advice, form=form, expected=(400, 401, 403))
        if answer.status >= 400:
            raise SourceFault(
                f"no token ({answer.status}): client_id {settings.client_id} or its secret is wrong; or that client is"
                " disabled, or lacks Client authentication or Service accounts roles; or Keycloak takes https only here"
            )
        return access_token(answer, "a Keycloak")


def _realm(settings: KeycloakSettings, issuer: str | None) -> KeycloakRealm:
    """Return the realm. Its front-end address is that of the issuer if given, since `url` may bypass a proxy."""
    realm = f"/realms/{quote(settings.realm, safe='')}"
    return KeycloakRealm(
        issuer=f"{settings.url}{realm}" if issuer is None else None,
        base=issuer.removesuffix(realm) if issuer is not None and issuer.endswith(realm) else settings.url,
        admin=settings.url,
        default_algorithm=settings.default_algorithm,
    )


def _secret(settings: KeycloakSettings) -> str:
    if settings.client_secret is not None:
        return settings.client_secret.get_secret_value()
    return secret_of("client_secret_file", settings.client_secret_file or Path())


def _page_advice(settings: KeycloakSettings) -> Advice:
    return {
        401: "it refuses the token that it just gave: `url` must be an address under which Keycloak calls itself by its"
        " own issuer (settings hostname and hostname-admin)",
        403: f"give {_ROLE.format(client=settings.client_id)}",
        404: _not_found(settings),
    }


def _not_found(settings: KeycloakSettings) -> str:
    return (
        f"there is no realm {settings.realm} at {settings.url}: check `realm` (capitals matter) and the path of "
        "`url` (/auth in old versions and where http-relative-path says so)"
    )

"""Read the applications of an Auth0 tenant by its Management API, as an application with the scope `read:clients`.

| | |
|---|---|
| `POST /oauth/token` | a token by the client-credentials grant for the audience `{url}/api/v2/`; it lasts for a day |
| `GET /api/v2/clients?fields&page&per_page` | at most 100 a page; `fields` names members, so that no secret comes |

A tenant's monthly quota of tokens is small. So a token is kept in memory until it expires or is refused.
"""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import redirect_uris
from notifier.features.registries.list_settings import Auth0Settings
from notifier.features.registries.page_requests import NumberedPage, access_token, ask, gather_pages
from notifier.model.errors import InputIssue, SourceFault
from notifier.network.http.json_client import JsonAnswer
from notifier.network.http.json_over_http import JsonWeb, open_web
from notifier.settings.registry_settings import RegistrySourceSettings
from notifier.settings.secret_text import secret_of

PAGE = 100
SCOPE = "read:clients"
_EARLY = 60.0  # seconds before its expiry from which a token is not used
_FIELDS = "client_id,name,callbacks,oidc_logout,jwt_configuration"
_GRANT = f"authorize the application for the Auth0 Management API with the scope {SCOPE}"
_TOKEN_ADVICE = {
    400: "client_id or the grant is wrong: it must be a machine-to-machine application",
    401: "client_id or the secret in client_secret_file is wrong",
    403: _GRANT,
    404: "there is no tenant; `url` must be its own address, such as https://acme.eu.auth0.com",
    429: "the tenant has asked for too many tokens or sent too many requests; give the source a longer `every`",
}
_LIST_ADVICE = {
    401: "its Management API refuses the token that Auth0 just issued; `url` must not be a custom domain",
    403: _GRANT,
}


class Auth0Reader:
    """All applications of one tenant."""

    def __init__(self, source: RegistrySourceSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = source.of_kind(Auth0Settings)
        self._source = source
        self._clock = clock
        self._token = ""
        self._token_ends = 0.0

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return all applications; `last` itself if nothing has changed. Raises SourceFault."""
        async with open_web(None, self._source.timeout) as server:
            at = self._clock()
            collector = await gather_pages(lambda nth: self._page(server, nth), last)
            return collector.answer(at)

    async def _page(self, server: JsonWeb, nth: int) -> NumberedPage:
        asked = {"fields": _FIELDS, "include_fields": "true", "is_global": "false", "include_totals": "true"}
        url = f"{self._settings.url}/api/v2/clients?{urlencode(asked | {'page': str(nth), 'per_page': str(PAGE)})}"
        content = (await self._get(server, url)).content
        clients = content.get("clients") if isinstance(content, dict) else None
        total = content.get("total") if isinstance(content, dict) else None
        if not isinstance(clients, list) or type(total) is not int:
            raise SourceFault("its list of applications is not a list; is `url` the address of an Auth0 tenant?")
        if not clients and nth == 0:
            raise SourceFault("its list has no application, which cannot be: notifier's own must be in it")
        more = bool(clients) and nth * PAGE + len(clients) < total
        return NumberedPage(rows=[_row(client) for client in clients], total=total, more=more)

    async def _get(self, server: JsonWeb, url: str) -> JsonAnswer:
        """Send a GET with a token, and again with a new token if the cached token is refused."""
        token = self._token if self._clock() < self._token_ends - _EARLY else None
        if token is not None:
            answer = await ask(server, url, {"Authorization": f"Bearer {token}"}, _LIST_ADVICE, expected=(401,))
            if answer.status != 401:
                return answer
        await self._renew(server)
        return await ask(server, url, {"Authorization": f"Bearer {self._token}"}, _LIST_ADVICE)

    async def _renew(self, server: JsonWeb) -> None:
        settings = self._settings
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": secret_of("client_secret_file", settings.client_secret_file),
            "audience": f"{settings.url}/api/v2/",
        }
        at = self._clock()
        answer = await ask(server, f"{settings.url}/oauth/token", {}, _TOKEN_ADVICE, form=form)
        token, lasts = access_token(answer, "an Auth0 tenant"), answer.content.get("expires_in")
        self._token, self._token_ends = token, at + (lasts if isinstance(lasts, int | float) else 0.0)


def _row(client: Any) -> Any:
    if not isinstance(client, dict):
        return client
    logout, tokens = (_section(client, name) for name in ("oidc_logout", "jwt_configuration"))
    uris = logout.get("backchannel_logout_urls") or []
    client_id = client.get("client_id")
    if not isinstance(uris, list) or len(uris) > 1:
        return InputIssue(
            str(client_id), "oidc_logout.backchannel_logout_urls must have one address; notifier calls one"
        )
    row = {
        "client_id": client_id,
        "client_name": name if isinstance(name := client.get("name"), str) else None,
        "redirect_uris": redirect_uris(client.get("callbacks")),
    }
    return row | {"backchannel_logout_uri": uris[0], "id_token_signed_response_alg": tokens.get("alg")} if uris else row


def _section(client: dict[str, Any], name: str) -> dict[str, Any]:
    value = client.get(name)
    return value if isinstance(value, dict) else {}

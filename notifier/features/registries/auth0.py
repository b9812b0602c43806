"""The registry source `auth0`: the applications of an Auth0 tenant, by its Management API.

`POST /oauth/token` returns a token for a day by the client-credentials grant. `GET /api/v2/clients` returns up to 100
clients per page, with the members in `fields`, which exclude the secrets. A tenant's monthly quota of tokens is small,
so that a token is kept in memory until it expires or is refused.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector, redirect_uris
from notifier.features.registries.list_settings import Auth0Settings
from notifier.features.registries.page_requests import NumberedPage, access_token, ask, gather_pages, section_of
from notifier.model.errors import InputIssue, SourceFault
from notifier.network.http.json_client import JsonAnswer, JsonWeb
from notifier.settings.secret_text import secret_of

PAGE_SIZE = 100
SCOPE = "read:clients"
_TOKEN_MARGIN_SECONDS = 60.0  # before its expiry, a token is no longer used
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


class Auth0Tenant:
    """Reads the applications of one tenant, with a token that it keeps. `clock` returns epoch seconds."""

    def __init__(self, settings: Auth0Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._token = ""
        self._token_expires_at = 0.0

    async def collect(self, server: JsonWeb, last: SourceAnswer | None) -> RowCollector:
        """Return all applications. Raises SourceFault."""
        return await gather_pages(partial(self._read_page, server), last)

    async def _read_page(self, server: JsonWeb, index: int) -> NumberedPage:
        """Return the page with an index, which starts at 0. Raises SourceFault."""
        query = {"fields": _FIELDS, "include_fields": "true", "is_global": "false", "include_totals": "true"}
        query |= {"page": str(index), "per_page": str(PAGE_SIZE)}
        content = (await self._get(server, f"{self._settings.url}/api/v2/clients?{urlencode(query)}")).content
        clients = content.get("clients") if isinstance(content, dict) else None
        total = content.get("total") if isinstance(content, dict) else None
        if not isinstance(clients, list) or type(total) is not int:
            raise SourceFault("its list of applications is not a list; is `url` the address of an Auth0 tenant?")
        if not clients and index == 0:
            raise SourceFault("its list has no application, which cannot be: notifier's own must be in it")
        is_last = not clients or index * PAGE_SIZE + len(clients) >= total
        return NumberedPage(rows=[_to_row(client) for client in clients], total=total, is_last=is_last)

    async def _get(self, server: JsonWeb, url: str) -> JsonAnswer:
        """Send a GET with the cached token. If it has expired or is refused, send a GET with a new token."""
        if self._clock() < self._token_expires_at - _TOKEN_MARGIN_SECONDS:
            headers = {"Authorization": f"Bearer {self._token}"}
            answer = await ask(server, url, headers, _LIST_ADVICE, expected=(401,))
            if answer.status != 401:
                return answer
        await self._renew_token(server)
        return await ask(server, url, {"Authorization": f"Bearer {self._token}"}, _LIST_ADVICE)

    async def _renew_token(self, server: JsonWeb) -> None:
        """Request a token, and keep it with its expiry. Raises SourceFault."""
        settings = self._settings
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": secret_of("client_secret_file", settings.client_secret_file),
            "audience": f"{settings.url}/api/v2/",
        }
        requested_at = self._clock()
        answer = await ask(server, f"{settings.url}/oauth/token", {}, _TOKEN_ADVICE, form=form)
        self._token = access_token(answer, "an Auth0 tenant")
        lifetime = answer.content.get("expires_in")
        self._token_expires_at = requested_at + lifetime if isinstance(lifetime, int | float) else 0.0


def _to_row(client: Any) -> Any:
    """Return the row of an application, or its error. An entry that is not an object is returned, and refused later."""
    if not isinstance(client, dict):
        return client
    logout, tokens = section_of(client, "oidc_logout"), section_of(client, "jwt_configuration")
    uris = logout.get("backchannel_logout_urls") or []
    client_id, name = client.get("client_id"), client.get("name")
    if not isinstance(uris, list) or len(uris) > 1:
        text = "oidc_logout.backchannel_logout_urls must have one address; notifier calls one"
        return InputIssue(str(client_id), text)
    row = {
        "client_id": client_id,
        "client_name": name if isinstance(name, str) else None,
        "redirect_uris": redirect_uris(client.get("callbacks")),
    }
    if uris:
        row |= {"backchannel_logout_uri": uris[0], "id_token_signed_response_alg": tokens.get("alg")}
    return row

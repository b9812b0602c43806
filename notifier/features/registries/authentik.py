"""The registry source `authentik`: the OAuth2 providers of authentik, by `GET /api/v3/providers/oauth2/`.

authentik's *OAuth2 provider* is the registration of one client. By default each has a separate issuer, but an event has
one issuer for all clients of a session. A provider must therefore have `issuer_mode: global`. The response contains
client secrets, and is dropped after each page.
"""

from typing import Any

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector, redirect_uris
from notifier.features.registries.list_settings import AuthentikSettings
from notifier.features.registries.page_requests import NumberedPage, ask, gather_pages
from notifier.model.errors import InputIssue, SourceFault
from notifier.network.http.json_client import JsonWeb
from notifier.settings.secret_text import secret_of

PAGE_SIZE = 100
_PERMISSION = "the permission `Can view OAuth2/OpenID Provider` on all providers"
_ADVICE = {
    401: "the token in token_file is wrong or has run out",
    403: f"the token in token_file is wrong or has run out, or its user lacks {_PERMISSION}",
    404: "this is not authentik; check `url`",
}


async def collect_authentik(settings: AuthentikSettings, server: JsonWeb, last: SourceAnswer | None) -> RowCollector:
    """Return all OAuth2 providers of one authentik. Raises SourceFault."""
    headers = {"Authorization": f"Bearer {secret_of('token_file', settings.token_file)}"}

    async def read_page(index: int) -> NumberedPage:
        url = f"{settings.url}/api/v3/providers/oauth2/?ordering=pk&page={index + 1}&page_size={PAGE_SIZE}"
        content = (await ask(server, url, headers, _ADVICE)).content
        providers = content.get("results") if isinstance(content, dict) else None
        pagination = content.get("pagination") if isinstance(content, dict) else None
        if not isinstance(providers, list) or not isinstance(pagination, dict):
            raise SourceFault("its list of providers is not a list; is `url` the address of an authentik?")
        if not providers and index == 0:
            raise SourceFault(f"its list has no provider: the token's user lacks {_PERMISSION}, or there is none yet")
        total = pagination.get("count")
        return NumberedPage(
            rows=[_to_row(provider) for provider in providers],
            total=int(total) if isinstance(total, int | float) else len(providers),
            is_last=not pagination.get("next"),
        )

    return await gather_pages(read_page, last)


def _to_row(provider: Any) -> Any:
    """Return the row of a provider, or its error. An entry that is not an object is returned, and refused later."""
    if not isinstance(provider, dict):
        return provider
    uri = provider.get("logout_uri") or provider.get("backchannel_logout_uri")  # the second name is that of 2025.8
    if provider.get("logout_method") == "frontchannel":
        return _informational_metadata(provider, uri) | {"frontchannel_logout_uri": uri}
    if not uri:
        return _informational_metadata(provider)
    error = _find_error(provider)
    if error is not None:
        return InputIssue(str(provider.get("client_id")), error)
    return _informational_metadata(provider) | {"backchannel_logout_uri": uri}


def _informational_metadata(provider: dict[str, Any], front_channel: object = None) -> dict[str, Any]:
    """Return the metadata that are not about back-channel logout. `front_channel`: the front-channel logout URI.

    A redirect URI may be a regular expression. Which origins match is unknown, so that `*` replaces it.
    """
    name, redirects = provider.get("assigned_application_name"), provider.get("redirect_uris")
    entries = [entry for entry in redirects if isinstance(entry, dict)] if isinstance(redirects, list) else []
    uris = ["*" if entry.get("matching_mode") == "regex" else entry.get("url") for entry in entries]
    return {
        "client_id": provider.get("client_id"),
        "client_name": name if isinstance(name, str) else None,
        "redirect_uris": redirect_uris(uris, front_channel),
    }


def _find_error(provider: dict[str, Any]) -> str | None:
    """Return why a provider cannot be notified by back-channel; None if it can."""
    if provider.get("issuer_mode") != "global":
        return (
            "has an issuer of its own (issuer_mode per_provider), so no event of another issuer can name it: set its "
            "Issuer mode to `Same identifier is used for all providers`"
        )
    if not provider.get("signing_key"):
        return "has no signing_key, so its tokens are HS256, which would need its secret: choose a Signing Key"
    if provider.get("encryption_key"):
        return "has an encryption_key, and encrypted tokens are not supported: remove its Encryption Key"
    return None

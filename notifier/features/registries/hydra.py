"""The registry source `hydra`: the clients of Ory Hydra, by its admin API.

`GET /admin/clients?page_size&page_token` returns up to 500 clients, in the order of `client_id`, without secrets. The
header `Link` has the URL of the next page with a page token, which is valid for an hour. The URL may lack a path prefix
that a proxy adds, so that only the token is used. Hydra closes the connection on an invalid token.

A client's `metadata` are free. Their member `notifier` has notifier's options. It may also have the logout URI, if
Hydra itself shall not notify the client.
"""

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.list_settings import HydraSettings
from notifier.features.registries.page_requests import EndlessListError, PageLimit, ask, find_next_url
from notifier.model.errors import SourceFault
from notifier.network.http.json_client import JsonWeb

PAGE_SIZE = 500
_MEMBERS = (
    "client_id",
    "backchannel_logout_uri",
    "backchannel_logout_session_required",
    "frontchannel_logout_uri",
    "frontchannel_logout_session_required",
    "redirect_uris",
    "client_name",
    "subject_type",
)
_MOVABLE_MEMBERS = ("backchannel_logout_uri", "backchannel_logout_session_required")
_ADVICE = {
    401: "whatever stands before the admin API wants credentials; set `headers`",
    403: "whatever stands before the admin API refuses us; check `headers`",
    404: "this is not an admin API of Hydra; `admin_url` must lead to its admin port (4445), not the public one",
}


async def collect_hydra(settings: HydraSettings, server: JsonWeb, last: SourceAnswer | None) -> RowCollector:
    """Return all clients of one Hydra. Raises SourceFault."""
    collector = RowCollector(last)
    token = await _read_page(settings, server, None, collector)
    try:
        await _read_following_pages(settings, server, token, collector)
    except EndlessListError:
        raise
    except SourceFault:  # the page token may be invalid: Hydra's secret has changed, or a proxy truncated it
        collector = RowCollector(last)
        token = await _read_page(settings, server, None, collector)
        await _read_following_pages(settings, server, token, collector)
    return collector


async def _read_following_pages(
    settings: HydraSettings, server: JsonWeb, token: str | None, collector: RowCollector
) -> None:
    """Add the clients of the page of a token, and of all pages after it. Raises SourceFault."""
    visited: set[str] = set()
    limit = PageLimit()
    while token is not None:
        if token in visited:
            raise SourceFault("its list of clients never ends: a page token comes again")
        visited.add(token)
        limit.on_next_page(collector.known_count)
        token = await _read_page(settings, server, token, collector)


async def _read_page(
    settings: HydraSettings, server: JsonWeb, token: str | None, collector: RowCollector
) -> str | None:
    """Add the clients of the page of a token (None: the first page). Return the token of the next page, or None."""
    query = urlencode({"page_size": PAGE_SIZE} | ({} if token is None else {"page_token": token}))
    url = f"{settings.admin_url}/admin/clients?{query}"
    answer = await ask(server, url, settings.headers or {}, _ADVICE)
    if not isinstance(answer.content, list):
        raise SourceFault("its list of clients is not a list; `admin_url` must lead to Hydra's admin port")
    await collector.add_all(_to_row(client) for client in answer.content)
    next_url = find_next_url(answer.joined_header("Link"), url)
    if next_url is None:
        return None
    tokens = parse_qs(urlsplit(next_url).query).get("page_token")
    if not tokens:
        raise SourceFault("its next page (Link: rel=next) has no page_token; is this Hydra 2.x?")
    return tokens[0]


def _to_row(client: Any) -> Any:
    """Return the row of a client. An entry that is not an object is returned as it is, and refused later."""
    if not isinstance(client, dict):
        return client
    row = {name: client.get(name) for name in _MEMBERS}
    metadata = client.get("metadata")
    options = metadata.get("notifier") if isinstance(metadata, dict) else None
    if isinstance(options, dict):
        row |= {name: options[name] for name in _MOVABLE_MEMBERS if options.get(name) not in (None, "")}
        options = {name: value for name, value in options.items() if name not in _MOVABLE_MEMBERS}
    return row | {"notifier": options}

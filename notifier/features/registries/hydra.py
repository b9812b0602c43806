"""Read the clients of Ory Hydra by its admin API.

`GET /admin/clients?page_size&page_token`: at most 500 a page, in the order of `client_id`. `Link` holds the token of
the next page, which lives for an hour. Its address is relative and may lack a prefix that a proxy adds, so only the
token is taken. A token that Hydra cannot read makes it close the connection without an answer. The list has no secrets.

Hydra accepts anything as an address, so each is checked here. `metadata` belongs to the client's owner. Its member
`notifier` holds notifier's settings, and may hold the address (and whether a session is required), so that Hydra itself
does not notify the client.
"""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.list_settings import HydraSettings
from notifier.features.registries.page_requests import EndlessListError, PageLimit, ask, next_link
from notifier.model.errors import SourceFault
from notifier.network.http.json_over_http import JsonWeb, open_web
from notifier.settings.registry_settings import RegistrySourceSettings

PAGE = 500
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
_OPTIONS_FIRST = ("backchannel_logout_uri", "backchannel_logout_session_required")
_ADVICE = {
    401: "whatever stands before the admin API wants credentials; set `headers`",
    403: "whatever stands before the admin API refuses us; check `headers`",
    404: "this is not an admin API of Hydra; `admin_url` must lead to its admin port (4445), not the public one",
}


class HydraReader:
    """Reads all clients of one Hydra."""

    def __init__(self, source: RegistrySourceSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = source.of_kind(HydraSettings)
        self._source = source
        self._clock = clock

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return all clients; `last` itself if nothing has changed. Raises SourceFault."""
        async with open_web(self._settings.tls, self._source.timeout) as server:
            at = self._clock()
            token = await self._read_page(server, None, collector := RowCollector(last))
            try:
                await self._read_all_pages(server, token, collector)
            except EndlessListError:
                raise
            except SourceFault:  # perhaps an invalid page token: a restart with another secret, or a proxy that cut it
                token = await self._read_page(server, None, collector := RowCollector(last))
                await self._read_all_pages(server, token, collector)
            return collector.answer(at)

    async def _read_all_pages(self, server: JsonWeb, token: str | None, collector: RowCollector) -> None:
        visited: set[str] = set()
        limit = PageLimit()
        while token is not None:
            if token in visited:
                raise SourceFault("its list of clients never ends: a page token comes again")
            visited.add(token)
            limit.on_next_page(collector.known_count)
            token = await self._read_page(server, token, collector)

    async def _read_page(self, server: JsonWeb, token: str | None, collector: RowCollector) -> str | None:
        """Read a page. Return the token of the next."""
        query = urlencode({"page_size": PAGE} | ({} if token is None else {"page_token": token}))
        url = f"{self._settings.admin_url}/admin/clients?{query}"
        answer = await ask(server, url, self._settings.headers or {}, _ADVICE)
        if not isinstance(answer.content, list):
            raise SourceFault("its list of clients is not a list; `admin_url` must lead to Hydra's admin port")
        await collector.add_all(_row(client) for client in answer.content)
        following = next_link(answer.whole("Link"), url)
        if following is None:
            return None
        tokens = parse_qs(urlsplit(following).query).get("page_token")
        if not tokens:
            raise SourceFault("its next page (Link: rel=next) has no page_token; is this Hydra 2.x?")
        return tokens[0]


def _row(client: Any) -> Any:
    if not isinstance(client, dict):
        return client
    row = {name: client.get(name) for name in _MEMBERS}
    metadata = client.get("metadata")
    settings = metadata.get("notifier") if isinstance(metadata, dict) else None
    if isinstance(settings, dict):
        settings = dict(settings)
        row |= {name: value for name in _OPTIONS_FIRST if (value := settings.pop(name, None)) not in (None, "")}
    return row | {"notifier": settings}

"""The registry source `http`: a JSON list of client metadata (RFC 7591) at a URL, in one or several pages."""

from collections.abc import Iterator
from typing import Any

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.list_settings import HttpListSettings
from notifier.features.registries.page_requests import EndlessListError, PageLimit, ask, next_page_url
from notifier.model.errors import AnswerFault, SourceFault
from notifier.network.http.json_client import JsonAnswer
from notifier.network.http.json_over_http import JsonWeb

_ADVICE = {
    401: "the server wants credentials; set `headers`, such as {Authorization: {file: PATH}}",
    403: "the server refuses us; check `headers`",
    404: "there is no list; check `url`",
}


async def collect_http_list(settings: HttpListSettings, server: JsonWeb, last: SourceAnswer | None) -> RowCollector:
    """Return all clients of the list at one address. Raises SourceFault."""
    headers = {"Accept": "application/json", **(settings.headers or {})}
    collector, visited, limit = RowCollector(last, unique=True), set[str](), PageLimit()
    url: str | None = settings.url
    while url is not None:
        if url in visited:
            raise EndlessListError("its list never ends: a page comes again (Link: rel=next)")
        if visited:
            limit.on_next_page(collector.known_count)
        visited.add(url)
        try:
            answer = await ask(server, url, headers, _ADVICE)
        except AnswerFault as fault:
            remedy = "; YAML is not read: serve the list as JSON" if str(fault).endswith("not JSON") else ""
            raise AnswerFault(f"{fault}{remedy}") from None
        await collector.add_all(_pop_each(_clients_in(answer)))
        url = next_page_url(answer.joined_header("Link"), url)
    return collector


def _pop_each(clients: list[Any]) -> Iterator[Any]:
    """Yield the clients, and free each before the next. To free all at once would block the event loop."""
    clients.reverse()
    while clients:
        yield clients.pop()


def _clients_in(answer: JsonAnswer) -> list[Any]:
    """Return the list of clients in a response. Raises SourceFault if there is no list."""
    content = answer.content
    if isinstance(content, dict) and "clients" in content:
        content = content["clients"]
    if not isinstance(content, list):
        what = "is empty; it must be [] if there are no clients" if content is None else "is not a list of clients"
        raise SourceFault(f"the answer {what}")
    return content

"""Read a list of client metadata from an address, in the form of a clients file or of RFC 7591, as JSON.

A list of one page is requested with `If-None-Match` or `If-Modified-Since` (RFC 9110 §13.1) of the last answer. A list
of several pages (`Link: rel=next`) is read whole each time, since the headers of the first page do not cover the
others.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from notifier import __version__
from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.list_settings import HttpListSettings
from notifier.features.registries.page_requests import EndlessListError, PageLimit, ask, next_page
from notifier.model.errors import SourceFault
from notifier.network.http.json_client import JsonAnswer
from notifier.network.http.json_over_http import open_web
from notifier.settings.registry_settings import RegistrySourceSettings

_ADVICE = {
    401: "the server wants credentials; set `headers`, such as {Authorization: {file: PATH}}",
    403: "the server refuses us; check `headers`",
    404: "there is no list; check `url`",
}


class HttpListReader:
    """Reads the list at one address."""

    def __init__(self, source: RegistrySourceSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = source.of_kind(HttpListSettings)
        self._source = source
        self._clock = clock

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return all clients; `last` itself if the server reports no change. Raises SourceFault."""
        first = self._settings.url
        headers = {"Accept": "application/json", **(self._settings.headers or {})}
        collector, visited, limit = RowCollector(last, unique=True), {first}, PageLimit()
        async with open_web(self._settings.tls, self._source.timeout) as server:
            at = self._clock()
            answer = await ask(server, first, {**headers, **_conditions(last, first)}, _ADVICE)
            if answer.status == 304:
                if last is None:
                    raise SourceFault("answered 304 (not modified), though nobody asked for that; see its cache")
                return last
            mark = _format_mark(answer, first)
            await collector.add_all(_drain_list(_clients(answer)))
            following = next_page(answer.whole("Link"), first)
            while following is not None:
                if following in visited:
                    raise EndlessListError("its list never ends: a page comes again (Link: rel=next)")
                visited.add(following)
                limit.on_next_page(collector.known_count)
                mark = None
                answer = await ask(server, following, headers, _ADVICE)
                await collector.add_all(_drain_list(_clients(answer)))
                following = next_page(answer.whole("Link"), following)
            return collector.answer(at, mark)


def _conditions(last: SourceAnswer | None, url: str) -> Mapping[str, str]:
    """Return the headers that request the list only if it has changed since `last`."""
    try:
        mark = json.loads(last.mark) if last is not None and last.mark is not None else {}
        if (mark.get("url"), mark.get("version")) != (url, __version__):
            return {}
        names = {"etag": "If-None-Match", "modified": "If-Modified-Since"}
        return {header: str(mark[name]) for name, header in names.items() if name in mark}
    except (ValueError, AttributeError):
        return {}


def _format_mark(answer: JsonAnswer, url: str) -> str | None:
    names = {"etag": "ETag", "modified": "Last-Modified"}
    marks = {name: answer.headers[header] for name, header in names.items() if header in answer.headers}
    return json.dumps({"url": url, "version": __version__, **marks}) if marks else None


def _drain_list(clients: list[Any]) -> Iterator[Any]:
    """Yield the clients, each freed before the next: freeing all at once would block the loop."""
    clients.reverse()
    while clients:
        yield clients.pop()


def _clients(answer: JsonAnswer) -> list[Any]:
    content = answer.content
    if isinstance(content, dict) and "clients" in content:
        content = content["clients"]
    if not isinstance(content, list):
        what = "is empty; it must be [] if there are no clients" if content is None else "is not a list of clients"
        raise SourceFault(f"the answer {what}")
    return content

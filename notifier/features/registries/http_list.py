"""Read a list of client metadata from an address, in the form of clients.yaml or of RFC 7591, as JSON or YAML.

A list of one page is requested with `If-None-Match` or `If-Modified-Since` (RFC 9110 §13.1) of the last answer. A list
of several pages (`Link: rel=next`) is read whole each time, since the headers of the first page do not cover the
others.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from notifier import __version__
from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.features.registries.list_settings import HttpListSettings
from notifier.features.registries.page_requests import EndlessListError, PageLimit, ask, next_page
from notifier.model.errors import SourceFault
from notifier.network.http.json_client import JsonAnswer
from notifier.network.http.json_over_http import open_web
from notifier.network.http.json_parts import MAX_NESTING, Bounds, NotJson, format_size, read_json
from notifier.settings.document_files import parse_yaml
from notifier.settings.registry_settings import RegistrySourceSettings

_MAX_VALUES_PER_CLIENT = 4  # a byte at most: an alias of YAML (`*name`) repeats what it names
YAML_LIMIT = 16 * 1024 * 1024  # bytes: read in one go, in some 5 s. Larger lists are JSON
_ACCEPT = {"Accept": "application/json, application/yaml;q=0.9, text/yaml;q=0.8"}
_YAML = ("/yaml", "/x-yaml", "+yaml", "/vnd.yaml")
_UNSPECIFIC_TYPES = (
    "",
    "text/plain",
    "application/octet-stream",
)  # the types that web servers send for a file that ends with .yaml
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
        headers = {**_ACCEPT, **(self._settings.headers or {})}
        collector, visited, limit = RowCollector(last, unique=True), {first}, PageLimit()
        async with open_web(self._settings.tls, self._source.timeout, read=_read) as server:
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


async def _read(body: bytes, content_type: str, bounds: Bounds) -> Any:
    """Parse the body: as YAML if its type is YAML, or unspecific and the body is not JSON. Raises ValueError."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(_YAML):
        return _yaml(body, bounds)
    try:
        return await read_json(body, bounds)
    except NotJson:
        if kind in _UNSPECIFIC_TYPES:
            return _yaml(body, bounds)
        raise ValueError("is not JSON; a list in YAML must have the type application/yaml") from None


def _yaml(body: bytes, bounds: Bounds) -> Any:
    if len(body) > YAML_LIMIT:
        raise ValueError(f"is YAML of more than {format_size(YAML_LIMIT)}; a list of that size must be JSON")
    try:
        return _to_json_types(
            parse_yaml(body.decode("utf-8-sig")), [min(bounds.values, _MAX_VALUES_PER_CLIENT * (len(body) + 1000))]
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"is not YAML{place}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise ValueError("is not YAML") from None


def _to_json_types(value: Any, left: list[int], depth: int = 0) -> Any:
    """Return the value in JSON's types (a date as text). Raises ValueError if it has more than `left[0]` values."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("has too many values, or repeats its aliases (*name) too often")
    if depth > 2 + MAX_NESTING:
        raise ValueError(f"has a client that is nested more than {MAX_NESTING} deep")
    if isinstance(value, dict):
        return {str(name): _to_json_types(member, left, depth + 1) for name, member in value.items()}
    if isinstance(value, list):
        return [_to_json_types(member, left, depth + 1) for member in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)

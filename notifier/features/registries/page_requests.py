"""Request the pages of a list for the readers of registry sources. A SourceFault names an error and its remedy.

A request is repeated after 429, or after 503 with `Retry-After` (RFC 9110 §10.2.3), while the reading has time left.
Reading several pages of a list that changes meanwhile can omit clients: `gather_pages` and `ShiftingPages` detect this.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urljoin, urlsplit

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import ListAmount, RowCollector
from notifier.model.errors import SourceFault
from notifier.model.outcome import read_retry_after
from notifier.model.record import record
from notifier.network.http.json_client import JsonAnswer, JsonWeb, open_web, redact_url
from notifier.settings.policies import TlsSettings

MAX_HEADER_CHARS = 65_536  # of all `Link` headers together
_LINK = re.compile(r'<([^<>]*)>((?:[^,"]|"[^"]*")*)')
_PARAMETER = re.compile(r';\s*([A-Za-z0-9*._-]+)\s*=\s*("[^"]*"|[^\s;,"]*)')
_PORTS = {"http": 80, "https": 443}
MAX_PAGES = 10_000  # of one reading
MAX_USELESS_PAGES = 20  # consecutive pages without a new client
_MAX_TRIES = 5  # of one request
_BACKOFF_SECONDS = 1.0  # after a 429 without Retry-After; doubled after each further 429
MAX_READINGS = 4  # of a list that changes while it is read


def find_next_url(links: str, url: str) -> str | None:
    """Return the URL of the page after `url` from the headers `Link`; None for the last page. Raises SourceFault."""
    if len(links) > MAX_HEADER_CHARS:
        raise SourceFault(f"its headers Link are longer than {MAX_HEADER_CHARS // 1024} KiB")
    for target, parameters in _LINK.findall(links):
        relations = next((value for name, value in _PARAMETER.findall(parameters) if name.lower() == "rel"), "")
        if "next" in relations.strip('"').lower().split():  # the first `rel` counts (RFC 8288 §3.3)
            try:
                return str(urljoin(url, target))
            except ValueError:
                raise SourceFault("its next page (Link: rel=next) is not an address") from None
    return None


def next_page_url(links: str, url: str) -> str | None:
    """Do the same as `find_next_url`, but raise SourceFault for another server, which must not receive credentials."""
    next_url = find_next_url(links, url)
    if next_url is not None and _origin(next_url) != _origin(url):
        raise SourceFault("its next page (Link: rel=next) is on another server; that is not followed")
    return next_url


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL, with the default port."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # an invalid port
        return "", None, None


Advice: TypeAlias = Mapping[int, str]
"""The remedy for each status of a response."""

_REASONS = {
    401: "the credentials are missing or wrong",
    403: "permission is missing",
    404: "there is no such address; check the setting `url`",
    429: "too many requests; give the source a longer `every`",
}


class EndlessListError(SourceFault):
    """The pages of the server's list do not end."""


class PageLimit:
    """Ends the reading of an endless list. A reader creates one for each reading."""

    def __init__(self) -> None:
        self._pages = 0
        self._client_count = 0
        self._useless_pages = 0

    def on_next_page(self, client_count: int) -> None:
        """Count the page that was read. Call it before the next is requested. Raises EndlessListError.

        `client_count`: the different clients of all pages so far.
        """
        self._pages += 1
        self._useless_pages = 0 if client_count > self._client_count else self._useless_pages + 1
        self._client_count = max(client_count, self._client_count)
        if self._useless_pages >= MAX_USELESS_PAGES:
            why = "it changes faster than it can be read, or a proxy answers for it with the same page"
            raise EndlessListError(f"its list never ends: {MAX_USELESS_PAGES} pages in a row have no new client; {why}")
        if self._pages >= MAX_PAGES:
            why = f"more than {MAX_PAGES:,} pages; if they are real, put more clients on each page"
            raise EndlessListError(f"its list never ends: {why}")


async def ask(
    web: JsonWeb,
    url: str,
    headers: Mapping[str, str],
    advice: Advice,
    *,
    form: Mapping[str, str] | None = None,
    expected: Collection[int] = (),
) -> JsonAnswer:
    """GET the URL, or POST the form. Return a response with status 2xx or one of `expected`. Raises SourceFault."""
    method = "GET" if form is None else "POST"
    failed_tries = 0
    while True:
        answer = await web.ask(method, url, headers, data=form)
        if 200 <= answer.status < 300 or answer.status in expected:
            return answer
        failed_tries += 1
        wait = _seconds_to_retry(answer, failed_tries)
        if wait is None or failed_tries == _MAX_TRIES or wait >= web.left():
            request = "" if wait is None else f", and asks to wait for {wait:.0f} s"
            default = "its own fault; see its log" if answer.status >= 500 else "is this the right address?"
            remedy = advice.get(answer.status) or _REASONS.get(answer.status) or default
            raise SourceFault(f"{redact_url(url)} answered {answer.status}{request}: {remedy}")
        await asyncio.sleep(wait)


def _seconds_to_retry(answer: JsonAnswer, failed_tries: int) -> float | None:
    """Return the seconds until the request may be repeated; None if it must not be repeated."""
    if answer.status not in (429, 503):
        return None
    header: str | None = answer.headers.get("Retry-After")
    if header is None and answer.status == 429:
        return float(_BACKOFF_SECONDS * 2 ** (failed_tries - 1))
    return read_retry_after(header, answer.headers.get("Date"), time.time())


def access_token(answer: JsonAnswer, server: str) -> str:
    """Return the access token in a token endpoint's response (RFC 6749 §5.1). Raises SourceFault without one.

    `server`: the kind of server, for the error.
    """
    token = answer.content.get("access_token") if isinstance(answer.content, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise SourceFault(f"its token endpoint answered without an access token; is `url` that of {server}?")
    return token


def section_of(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object in a member; an empty object without one."""
    member = document.get(name)
    return member if isinstance(member, dict) else {}


CollectClients: TypeAlias = Callable[[JsonWeb, SourceAnswer | None], Awaitable[RowCollector]]
"""Reads all clients of a server, given the last answer. Raises SourceFault."""


class WebReader:
    """Reads the clients of one server, each time over new connections. `timeout`: of a reading, in seconds."""

    def __init__(self, collect: CollectClients, tls: TlsSettings | None, timeout: float) -> None:
        self._collect = collect
        self._tls = tls
        self._timeout = timeout

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return all clients; `last` itself if nothing has changed. Raises SourceFault."""
        async with open_web(self._tls, self._timeout) as server:
            read_at = time.time()
            collector = await self._collect(server, last)
            return collector.answer(read_at)


@record
class NumberedPage:
    """A page of a list. `total`: the clients of the whole list according to this page."""

    rows: Sequence[Any]
    total: int
    is_last: bool


ReadPage: TypeAlias = Callable[[int], Awaitable[NumberedPage]]
"""Requests the page with an index, which starts at 0. Raises SourceFault."""


async def gather_pages(read_page: ReadPage, last: SourceAnswer | None) -> RowCollector:
    """Return the clients of all pages. Raises SourceFault.

    The list may change between two pages, so that a client moves to a page that was already read. The list is read
    again if its pages state different sizes, if it has fewer clients than stated, or if several pages lack a client of
    `last`; at most until two consecutive readings have the same clients, each once.
    """
    previous_names: frozenset[str] | None = None
    for _ in range(MAX_READINGS):
        collector = RowCollector(last)
        totals = await _read_pages(read_page, collector)
        names = collector.names()
        is_complete = len(set(totals)) == 1 and len(names) >= totals[0]
        if is_complete and (len(totals) == 1 or not collector.has_missing_clients()):
            return collector
        is_confirmed = names == previous_names and len(names) == collector.count
        if is_confirmed:
            return collector
        previous_names = names
    raise SourceFault("its list changes faster than it can be read, or a proxy answers for it with the same page")


async def _read_pages(read_page: ReadPage, collector: RowCollector) -> list[int]:
    """Add the clients of all pages to the collector. Return the size of the list according to each page."""
    totals: list[int] = []
    limit = PageLimit()
    while True:
        page = await read_page(len(totals))
        await collector.add_all(page.rows)
        totals.append(page.total)
        if page.is_last:
            return totals
        limit.on_next_page(collector.known_count)


class ShiftingPages:
    """The position in a list that is read by offset and may change meanwhile. `first`: the offset; None at the end.

    Each page overlaps the page before by one client. If that client is missing, clients were removed, and an earlier
    page is read again.
    """

    def __init__(self, size: int) -> None:
        self.first: int | None = 0
        self._size = size
        self._known_names: set[str] = set()
        self._amount = ListAmount()
        self._useless_pages = 0
        self._limit = PageLimit()

    def accept(self, names: Sequence[str]) -> bool:
        """Accept the page at `first`, and move `first`. Return False if the page must not be used, and is read again.

        Raises EndlessListError if the list changes faster than it is read, or if its pages repeat. Raises SourceFault
        if it has more than a list may have.
        """
        first = self.first or 0
        has_new_names = any(name not in self._known_names for name in names)
        self._useless_pages = 0 if has_new_names else self._useless_pages + 1
        is_connected = first == 0 or (len(names) > 0 and names[0] in self._known_names)
        if not is_connected:
            self._useless_pages = max(self._useless_pages, 1)  # go back by one more page each time
            self.first = max(0, first - self._size * self._useless_pages)
            self._limit.on_next_page(len(self._known_names))
            return False
        for name in names:
            self._amount.add({"client_id": name})
        self._known_names.update(names)
        self.first = first + len(names) - 1 if len(names) > 1 else None
        if self.first is not None:
            self._limit.on_next_page(len(self._known_names))
        return True

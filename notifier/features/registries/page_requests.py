"""Request a page of a server, and convert any other answer to a SourceFault that names the remedy.

After 429, or 503 with `Retry-After` (RFC 9110 §10.2.3), the request is repeated as long as the reading has time.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urljoin, urlsplit

from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.remote_rows import RowCollector
from notifier.model.errors import SourceFault
from notifier.model.frozen import frozen
from notifier.model.outcome import read_retry_after
from notifier.network.http.json_client import JsonAnswer
from notifier.network.http.json_over_http import JsonWeb, origin_of_url

MAX_HEADER_CHARS = 65_536  # characters of all headers together
_LINK = re.compile(r'<([^<>]*)>((?:[^,"]|"[^"]*")*)')
_PARAMETER = re.compile(r';\s*([A-Za-z0-9*._-]+)\s*=\s*("[^"]*"|[^\s;,"]*)')
_PORTS = {"http": 80, "https": 443}
MAX_PAGES = 10_000  # of one reading
MAX_USELESS_PAGES = 20  # pages in a row without a new client
_MAX_TRIES = 5
_BACKOFF_SECONDS = 1.0  # seconds, doubled each time, after a 429 without Retry-After
MAX_READINGS = 4


def next_link(links: str, url: str) -> str | None:
    """Return the address of the page after `url`, None if that is the last; on any server. Raises SourceFault."""
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


def next_page(links: str, url: str) -> str | None:
    """Return the same, on the same server only, since the request's headers may hold a secret. Raises SourceFault."""
    following = next_link(links, url)
    if following is not None and _origin(following) != _origin(url):
        raise SourceFault("its next page (Link: rel=next) is on another server; that is not followed")
    return following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # an invalid port
        return "", None, None


Advice: TypeAlias = Mapping[int, str]
"""Status → what the operator must do."""

_REASONS = {
    401: "the credentials are missing or wrong",
    403: "permission is missing",
    404: "there is no such address; check the setting `url`",
    429: "too many requests; give the source a longer `every`",
}


class EndlessListError(SourceFault):
    """The server's list never ends."""


class PageLimit:
    """Stops the reading of an endless list. Every reader of pages creates one for each reading."""

    def __init__(self) -> None:
        self._pages = 0
        self._known = 0
        self._useless_pages = 0

    def on_next_page(self, known: int) -> None:
        """Count a page before the next. `known`: the clients read so far. Raises EndlessListError."""
        self._pages += 1
        self._useless_pages = 0 if known > self._known else self._useless_pages + 1
        self._known = max(known, self._known)
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
    """GET the URL, or POST the form. The answer is 2xx or one of the `expected` statuses. Raises SourceFault."""
    nth = 0
    while True:
        answer = await web.ask("GET" if form is None else "POST", url, headers, data=form)
        if 200 <= answer.status < 300 or answer.status in expected:
            return answer
        wait = _wait(answer, nth)
        if wait is None or nth == _MAX_TRIES - 1 or wait >= web.left():
            asks = "" if wait is None else f", and asks to wait for {wait:.0f} s"
            raise SourceFault(f"{origin_of_url(url)} answered {answer.status}{asks}: {_reason(answer.status, advice)}")
        await asyncio.sleep(wait)
        nth += 1


def _reason(status: int, advice: Advice) -> str:
    default = "its own fault; see its log" if status >= 500 else "is this the right address?"
    return advice.get(status) or _REASONS.get(status) or default


def _wait(answer: JsonAnswer, nth: int) -> float | None:
    """Return the seconds until the request is repeated, None if it is not."""
    if answer.status not in (429, 503):
        return None
    header: str | None = answer.headers.get("Retry-After")
    if header is None and answer.status == 429:
        return float(_BACKOFF_SECONDS * 2**nth)
    return read_retry_after(header, answer.headers.get("Date"), time.time())


def access_token(answer: JsonAnswer, server: str) -> str:
    """Return the token in a token endpoint's answer (RFC 6749 §5.1). Raises SourceFault if it has none."""
    token = answer.content.get("access_token") if isinstance(answer.content, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise SourceFault(f"its token endpoint answered without an access token; is `url` that of {server}?")
    return token


@frozen
class NumberedPage:
    """The rows of a page, the size of the list, and whether another page follows."""

    rows: Sequence[Any]
    total: int
    more: bool


TakePage: TypeAlias = Callable[[int], Awaitable[NumberedPage]]
"""Requests a page. The first has the number 0. Raises SourceFault."""


async def gather_pages(take: TakePage, last: SourceAnswer | None) -> RowCollector:
    """Return the clients of all pages. Raises SourceFault."""
    before: frozenset[str] | None = None
    for _ in range(MAX_READINGS):
        collector = RowCollector(last)
        totals = await _read(take, collector)
        names = collector.names()
        whole = len(set(totals)) == 1 and len(names) >= totals[0]
        if whole and (len(totals) == 1 or not collector.has_missing_clients()):
            return collector
        if names == before and len(names) == collector.count:
            return collector
        before = names
    raise SourceFault("its list changes faster than it can be read, or a proxy answers for it with the same page")


async def _read(take: TakePage, collector: RowCollector) -> list[int]:
    """Read all pages. Return the size of the list according to each."""
    totals: list[int] = []
    limit = PageLimit()
    while True:
        page = await take(len(totals))
        await collector.add_all(page.rows)
        totals.append(page.total)
        if not page.more:
            return totals
        limit.on_next_page(collector.known_count)


class ShiftingPages:
    """The position in a list of pages of `size`. `first` is the next offset, None at the end."""

    def __init__(self, size: int) -> None:
        self.first: int | None = 0
        self._size = size
        self._seen: set[str] = set()
        self._useless_pages = 0
        self._limit = PageLimit()

    def take(self, names: Sequence[str]) -> bool:
        """Add the page at `first`. False if it does not join the known clients and must not be used.

        Raises EndlessListError if the list changes faster than it is read, or the same page comes again and again.
        """
        first = self.first or 0
        new = sum(name not in self._seen for name in set(names))
        self._useless_pages = 0 if new else self._useless_pages + 1
        if first and (not names or names[0] not in self._seen):
            self._useless_pages = max(self._useless_pages, 1)
            self.first = max(0, first - self._size * self._useless_pages)
            self._limit.on_next_page(len(self._seen))
            return False
        self._seen.update(names)
        self.first = first + len(names) - 1 if len(names) > 1 else None
        if self.first is not None:
            self._limit.on_next_page(len(self._seen))
        return True

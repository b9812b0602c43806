"""Asks a server for a page, and turns any other answer into a fault with a clear text.

A server that says how long it must rest (429, 503 with `Retry-After`, RFC 9110 §10.2.3) is asked again, as long as the
reading has time.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import TypeAlias

from notifier.model.errors import SourceFault
from notifier.model.outcome import read_retry_after
from notifier.network.http.json_client import JsonAnswer
from notifier.network.http.json_over_http import Web, place_of

Advice: TypeAlias = Mapping[int, str]
"""Status → what the operator must do."""

MOST_PAGES = 10_000  # of one reading
MOST_IN_VAIN = 20  # pages in a row without a new client
_TRIES = 5
_BACK_OFF = 1.0  # seconds, doubled each time, where a 429 does not say how long
_REASONS = {
    401: "the credentials are missing or wrong",
    403: "permission is missing",
    404: "there is no such address; check the setting `url`",
    429: "too many requests; give the source a longer `every`",
}


class EndlessList(SourceFault):
    """A list never ends: its server gives page after page."""


class PageLimit:
    """Ends the reading of a list that its server never ends. Every reader of pages has one for each reading."""

    def __init__(self) -> None:
        self._pages = 0
        self._known = 0
        self._vain = 0

    def before_next(self, known: int) -> None:
        """Note a page that another is to follow. `known`: the clients that are known by now. Raises EndlessList."""
        self._pages += 1
        self._vain = 0 if known > self._known else self._vain + 1
        self._known = max(known, self._known)
        if self._vain >= MOST_IN_VAIN:
            why = "it changes faster than it can be read, or a proxy answers for it with the same page"
            raise EndlessList(f"its list never ends: {MOST_IN_VAIN} pages in a row have no new client; {why}")
        if self._pages >= MOST_PAGES:
            why = f"more than {MOST_PAGES:,} pages; if they are real, put more clients on each page"
            raise EndlessList(f"its list never ends: {why}")


async def ask(
    web: Web,
    url: str,
    headers: Mapping[str, str],
    advice: Advice,
    *,
    form: Mapping[str, str] | None = None,
    expected: Collection[int] = (),
) -> JsonAnswer:
    """GET the URL, or POST the form. The answer is 2xx, 304, or one of the `expected` statuses. Raises SourceFault."""
    nth = 0
    while True:
        answer = await web.ask("GET" if form is None else "POST", url, headers, data=form)
        if 200 <= answer.status < 300 or answer.status == 304 or answer.status in expected:
            return answer
        wait = _wait(answer, nth)
        if wait is None or nth == _TRIES - 1 or wait >= web.left():
            asks = "" if wait is None else f", and asks to wait for {wait:.0f} s"
            raise SourceFault(f"{place_of(url)} answered {answer.status}{asks}: {_reason(answer.status, advice)}")
        await asyncio.sleep(wait)
        nth += 1


def _reason(status: int, advice: Advice) -> str:
    default = "its own fault; see its log" if status >= 500 else "is this the right address?"
    return advice.get(status) or _REASONS.get(status) or default


def _wait(answer: JsonAnswer, nth: int) -> float | None:
    """How long to wait before the same is asked again. None: not at all."""
    if answer.status not in (429, 503):
        return None
    header: str | None = answer.headers.get("Retry-After")
    if header is None and answer.status == 429:
        return float(_BACK_OFF * 2**nth)
    return read_retry_after(header, answer.headers.get("Date"), time.time())


def access_token(answer: JsonAnswer, server: str) -> str:
    """The token that a token endpoint gave (RFC 6749 §5.1). Raises SourceFault if there is none."""
    token = answer.content.get("access_token") if isinstance(answer.content, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise SourceFault(f"its token endpoint answered without an access token; is `url` that of {server}?")
    return token

"""A user's browser of few lines: follows redirections, sends each page's form with the user's answers."""

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from notifier.model.record import record

MOST_STEPS = 30
REDIRECTIONS = frozenset({301, 302, 303, 307})


@record
class Page:
    """Where a request led to."""

    status: int
    url: str
    text: str


class Browser:
    """`answers`: what the user enters, by the name of the field. Cookies belong to a port: each site has one."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers
        self._cookies: dict[str, dict[str, str]] = {}
        self.visited: list[str] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def visit(self, url: str) -> Page:
        """Open a page, and send its form and those of the pages that follow."""
        page = await self._follow("GET", url, None)
        for _ in range(MOST_STEPS):
            form = _Form(page.text)
            if page.status >= 400 or form.method is None:
                return page
            fields = {name: self._answers.get(name, value) for name, value in form.fields.items()}
            page = await self._follow(form.method, urljoin(page.url, form.action), fields)
        raise AssertionError(f"forms without end: {self.visited[-6:]}")

    async def claims(self, base: str) -> dict[str, Any] | None:
        """Return the claims of the ID token by which the client at `base` knows the user; None without a session."""
        page = await self._request("GET", f"{base}/me", None)
        return dict(json.loads(page.text)) if page.status == 200 else None

    async def _follow(self, method: str, url: str, form: Mapping[str, str] | None) -> Page:
        for _ in range(MOST_STEPS):
            page = await self._request(method, url, form)
            if page.status not in REDIRECTIONS:
                return page
            method, url, form = "GET", page.url, None
        raise AssertionError(f"redirections without end: {self.visited[-6:]}")

    async def _request(self, method: str, url: str, form: Mapping[str, str] | None) -> Page:
        cookies = self._cookies.setdefault(urlsplit(url).netloc, {})
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), "Accept": "text/html"}
        if method == "POST":
            headers["Origin"] = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        async with self._session.request(method, url, data=form, headers=headers, allow_redirects=False) as answer:
            for cookie in answer.headers.getall("Set-Cookie", []):
                name, _, value = cookie.partition(";")[0].partition("=")
                if value and "1970" not in cookie and "Max-Age=0" not in cookie:
                    cookies[name] = value
                else:
                    cookies.pop(name, None)
            self.visited.append(f"{method} {url[:120]} {answer.status}")
            to = urljoin(url, answer.headers["Location"]) if answer.status in REDIRECTIONS else url
            return Page(status=answer.status, url=to, text=await answer.text())


class _Form(HTMLParser):
    """The form of a page. Buttons may be outside of it; `method` is None without a form."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.method: str | None = None
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and self.method is None:
            self.method, self.action = given.get("method", "get").upper(), given.get("action", "")
        elif tag in ("input", "button") and "name" in given:
            self.fields[given["name"]] = given.get("value", "")

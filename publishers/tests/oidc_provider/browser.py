"""The browser of one user at a node-oidc-provider: signs in at clients by its pages, and out again."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp

from publishers.tests.oidc_provider.clients import ANSWERS_AT, SECRET, client

_FORM = re.compile(r'<form[^>]*action="([^"]+)"')
_FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
MOST_STEPS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a request led to: an answer of the provider's, or the address of a client."""

    status: int
    url: str
    text: str

    @property
    def form(self) -> tuple[str, dict[str, str]] | None:
        """Return the action of the page's form, and its preset fields."""
        found = _FORM.search(self.text)
        return None if found is None else (urljoin(self.url, found[1]), dict(_FIELD.findall(self.text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedOut:
    """The answer to the confirmation of a sign-out, and how many seconds it took."""

    status: int
    seconds: float


class Browser:
    """Signs `user` in. `at`: the process that it speaks to, if that is not where the issuer's URL leads.

    `connector`: the connections that many browsers share.
    """

    def __init__(
        self,
        issuer: str,
        user: str = "alice",
        *,
        at: str | None = None,
        connector: aiohttp.TCPConnector | None = None,
    ) -> None:
        self.issuer = issuer
        self.user = user
        self.at = at or issuer
        self.tokens: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        self._connector = connector

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            timeout=aiohttp.ClientTimeout(total=30),
            connector=self._connector,
            connector_owner=self._connector is None,
        )
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._session.close()

    # ── signing in ──

    async def sign_in(self, *client_ids: str, **more: str) -> Self:
        """Sign in at these clients, one after the other; `more` goes into the authorization request."""
        for client_id in client_ids:
            await self._sign_in(client_id, more)
        return self

    async def _sign_in(self, client_id: str, more: Mapping[str, str]) -> None:
        redirect_uri = client(client_id)["redirect_uris"][0]
        query = {"client_id": client_id, "response_type": "code", "scope": "openid", "redirect_uri": redirect_uri}
        page = await self._go("GET", f"{self.issuer}/auth?{urlencode({**query, **more})}")
        for _ in range(MOST_STEPS):
            if page.url.startswith(redirect_uri) or (form := page.form) is None:
                break
            action, fields = form
            login = {"login": self.user, "password": "x"} if 'name="login"' in page.text else {}
            page = await self._go("POST", action, {**fields, **login})
        code = parse_qs(urlsplit(page.url).query).get("code")
        assert code is not None, f"no code for {client_id}: {page.status} {page.url} {page.text[:500]}"
        answer = await self.ask(
            client_id, "/token", grant_type="authorization_code", code=code[0], redirect_uri=redirect_uri
        )
        self.tokens[client_id] = answer
        self.claims[client_id] = _claims(answer["id_token"])

    async def ask(self, client_id: str, path: str, **form: str) -> dict[str, Any]:
        """A request of the client's own, such as for tokens."""
        headers = {"Authorization": aiohttp.encode_basic_auth(client_id, SECRET)}
        async with self._session.post(f"{self.at}{path}", data=form, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            return dict(json.loads(text or "{}"))

    # ── signing out ──

    async def sign_out(self, hint: str | None = None, *, everywhere: bool = True) -> SignedOut:
        """Sign out as `hint` asks for it. `everywhere`: the user agrees to leave the provider too."""
        return await self.confirm(await self.ask_to_sign_out(hint), everywhere=everywhere)

    async def ask_to_sign_out(self, hint: str | None = None) -> Page:
        """The page that asks the user."""
        query = {}
        if hint is not None:
            where = client(hint)["post_logout_redirect_uris"][0]
            query = {"id_token_hint": self.tokens[hint]["id_token"], "post_logout_redirect_uri": where}
        page = await self._go("GET", f"{self.issuer}/session/end?{urlencode(query)}")
        assert page.status == 200, page
        return page

    async def confirm(self, page: Page, *, everywhere: bool = True) -> SignedOut:
        """Answer that page."""
        assert page.form is not None, page
        action, fields = page.form
        began = time.perf_counter()
        answer = await self._request("POST", action, {**fields, **({"logout": "yes"} if everywhere else {})})
        return SignedOut(status=answer.status, seconds=time.perf_counter() - began)

    async def double_click(self, hint: str | None = None) -> list[SignedOut]:
        """Sign out by two confirmations at once."""
        page = await self.ask_to_sign_out(hint)
        return list(await asyncio.gather(self.confirm(page), self.confirm(page)))

    @property
    def cookies(self) -> list[str]:
        """Return the values of all cookies, without deleted ones."""
        return [morsel.value for morsel in self._session.cookie_jar if morsel.value]

    # ── the application's own code ──

    async def own(self, what: str, **query: str) -> dict[str, Any]:
        """Let the application do something with this user's session."""
        async with self._session.get(f"{self.at}/own/{what}", params=query) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            return dict(json.loads(text))

    async def lives(self) -> bool:
        """Whether the provider still has the session of this browser."""
        return bool((await self.own("state"))["lives"])

    # ── requests ──

    async def _go(self, method: str, url: str, form: Mapping[str, str] | None = None) -> Page:
        """Follow where it leads, up to a client."""
        for _ in range(MOST_STEPS):
            page = await self._request(method, url, form)
            if page.status not in (302, 303):
                return page
            url, method, form = page.url, "GET", None
            if url.startswith(ANSWERS_AT):
                return page
        raise AssertionError(f"redirected without end, at last to {url}")

    async def _request(self, method: str, url: str, form: Mapping[str, str] | None = None) -> Page:
        """One request; `url` of the page is where a redirection leads."""
        at = url.replace(self.issuer, self.at, 1)
        async with self._session.request(method, at, data=form, allow_redirects=False) as answer:
            leads = urljoin(url, answer.headers.get("Location", ""))
            return Page(status=answer.status, url=leads, text=await answer.text())


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))

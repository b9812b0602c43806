"""One user's browser at a Keycloak: signs in and out of clients through Keycloak's pages."""

import base64
import html
import json
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp

PAGES = 4  # at most, from the log-in page to the client


class KeycloakBrowser:
    """Stores cookies by name only, because Keycloak marks them `Secure` on loopback too."""

    def __init__(self, url: str, realm: str) -> None:
        self._url = url
        self._protocol = f"{url}/realms/{realm}/protocol/openid-connect"
        self._cookies: dict[str, str] = {}
        self.tokens: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def sign_in(
        self, client_id: str, redirect_uri: str, user: str, password: str, *, scope: str = "openid", **more: str
    ) -> dict[str, Any]:
        """Sign in at a public client; return the ID token's claims and, as `raw`, the token. `tokens` has all tokens.

        `more`: further parameters of the authentication request, such as `prompt`.
        """
        query = {"client_id": client_id, "redirect_uri": redirect_uri, "response_type": "code", "scope": scope, **more}
        code = (await self.led_back(query, user, password))["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "client_id": client_id}
        status, self.tokens[client_id] = await self.post("token", form)
        assert status == 200, self.tokens[client_id]
        raw = self.tokens[client_id]["id_token"]
        payload = raw.split(".")[1]
        return {**json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))), "raw": raw}

    async def led_back(self, query: Mapping[str, str], user: str = "", password: str = "") -> dict[str, str]:
        """Follow an authentication request through the pages and return the redirect parameters that the client
        receives.
        """
        location, page = await self._go("GET", f"{self._protocol}/auth", params=query)
        for _page in range(PAGES):
            if location.startswith(query["redirect_uri"]):
                break
            fields = {"username": user, "password": password, "accept": "Yes"}
            location, page = await (self._go("GET", location) if location else self._fill_in(page, fields))
        assert location.startswith(query["redirect_uri"]), (location, page[:500])
        return dict(parse_qsl(urlsplit(location).query))

    async def _fill_in(self, page: str, fields: Mapping[str, str]) -> tuple[str, str]:
        """Submit a log-in or consent page with the known fields."""
        found = re.search(r'<form[^>]*action="([^"]+)"', page)
        assert found is not None, page[:500]
        hidden = re.search(r'name="code" value="([^"]*)"', page)
        url = urljoin(self._url, html.unescape(found[1]))
        return await self._go("POST", url, data={**fields, "code": hidden[1] if hidden else ""})

    def cookie(self, name: str) -> str:
        """Return a cookie of Keycloak."""
        return self._cookies[name]

    async def ask(self, client_id: str, redirect_uri: str) -> str:
        """Return the redirect of a silent authentication request (`prompt=none`)."""
        query = {"client_id": client_id, "redirect_uri": redirect_uri, "response_type": "code", "scope": "openid"}
        location, page = await self._go("GET", f"{self._protocol}/auth", params=query | {"prompt": "none"})
        assert location.startswith(redirect_uri), (location, page[:500])
        return location

    async def open(self, path: str) -> str:
        """Fetch a page of the realm by its path."""
        _, page = await self._go("GET", self._protocol.removesuffix("/protocol/openid-connect") + path)
        return page

    async def sign_out(self, id_token: str, redirect_uri: str, *, cookies: bool = True, frames: bool = False) -> None:
        """Sign out by RP-Initiated Logout, with hint and cookie.

        `frames`: clients with a front channel exist, so Keycloak shows a page that loads their frames.
        """
        query = {"id_token_hint": id_token, "post_logout_redirect_uri": redirect_uri}
        kept, self._cookies = self._cookies, self._cookies if cookies else {}
        location, page = await self._go("GET", f"{self._protocol}/logout", params=query)
        self._cookies = kept if not cookies else self._cookies
        assert redirect_uri in (html.unescape(page) if frames else location), (location, page[:500])

    async def post(self, path: str, form: Mapping[str, str]) -> tuple[int, Any]:
        """Return status and answer of a realm endpoint to a client's request, without cookies."""
        async with self._session.post(f"{self._protocol}/{path}", data=form) as answer:
            return answer.status, json.loads(text) if (text := await answer.text()) else None

    async def delete_sessions(self, client_id: str, path: str = "") -> int:
        """Delete the user's sessions through the account console, as a client that the user is signed in at; return the
        status.
        """
        url = f"{self._protocol.removesuffix('/protocol/openid-connect')}/account/sessions{path}"
        headers = {"Authorization": f"Bearer {self.tokens[client_id]['access_token']}", "Accept": "application/json"}
        async with self._session.delete(url, headers=headers) as answer:
            return answer.status

    async def _go(self, method: str, url: str, **more: Any) -> tuple[str, str]:
        """Request a page; return the redirect's target, if any, and the page."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        async with self._session.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            for line in answer.headers.getall("Set-Cookie", []):
                name, _, value = line.partition(";")[0].partition("=")
                self._cookies[name] = value
            return answer.headers.get("Location", ""), await answer.text()

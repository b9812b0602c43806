"""A browser of one user at a Keycloak: signs in at clients by its pages, and out again."""

import base64
import html
import json
import re
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import aiohttp


class KeycloakBrowser:
    """Keeps cookies by their names alone: Keycloak marks them `Secure` on loopback too."""

    def __init__(self, url: str, realm: str) -> None:
        self._url = url
        self._protocol = f"{url}/realms/{realm}/protocol/openid-connect"
        self._cookies: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def sign_in(self, client_id: str, redirect_uri: str, user: str, password: str) -> dict[str, Any]:
        """Sign in at a public client; its ID token's claims, and the token itself as `raw`."""
        query = {"client_id": client_id, "redirect_uri": redirect_uri, "response_type": "code", "scope": "openid"}
        location, page = await self._go("GET", f"{self._protocol}/auth", params=query)
        if not location:
            found = re.search(r'<form[^>]*action="([^"]+)"', page)
            assert found is not None, page[:500]
            location, page = await self._go(
                "POST", html.unescape(found[1]), data={"username": user, "password": password}
            )
        assert location.startswith(redirect_uri), (location, page[:500])
        code = parse_qs(urlsplit(location).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "client_id": client_id}
        async with self._session.post(f"{self._protocol}/token", data=form) as answer:
            raw = (await answer.json())["id_token"]
        payload = raw.split(".")[1]
        return {**json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))), "raw": raw}

    async def sign_out(self, id_token: str, redirect_uri: str) -> None:
        """By RP-Initiated Logout, with cookie and hint."""
        query = {"id_token_hint": id_token, "post_logout_redirect_uri": redirect_uri}
        location, page = await self._go("GET", f"{self._protocol}/logout", params=query)
        assert location == redirect_uri, (location, page[:500])

    async def _go(self, method: str, url: str, **more: Any) -> tuple[str, str]:
        """Where it leads, if anywhere, and the page."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        async with self._session.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            for line in answer.headers.getall("Set-Cookie", []):
                name, _, value = line.partition(";")[0].partition("=")
                self._cookies[name] = value
            return answer.headers.get("Location", ""), await answer.text()

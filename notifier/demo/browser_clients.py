"""Three clients for a browser, each of which hears of a sign-out in its own way.

`shop` keeps its sessions on its server: back-channel. `photos` keeps its session in a cookie: front-channel. `notes` is
a page without a server: it asks the check-session page each second.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol
from urllib.parse import urlencode

from aiohttp import web

from notifier.demo.token_check import TokenCheck, Verified


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """What a client learns of a sign-in."""

    sub: str
    sid: str


class Provider(Protocol):
    """The identity server, as its clients know it."""

    issuer: str

    def redeem(self, code: str) -> SignedIn | None:
        """Return what a code stands for. It does so once."""


def page_of(name: str, content: Mapping[str, object]) -> web.Response:
    """Return a page of the demo, with its data. It is the identity server's page, or is shown in a frame there."""
    text = files(__package__).joinpath("pages", name).read_text(encoding="utf-8")
    told_safely = json.dumps(content).replace("<", "\\u003c")
    style = files(__package__).joinpath("pages", "demo.css").read_text(encoding="utf-8")
    return web.Response(
        text=text.replace("/* STYLE */", style).replace("TOLD", told_safely, 1),
        content_type="text/html",
        headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
    )


class BrowserClient:
    """What the three have in common: signing in by a code, at the origin `origin`."""

    client_id = ""
    page = "client.html"

    def __init__(self, origin: str, provider: Provider) -> None:
        self.origin = origin
        self._provider = provider

    @property
    def title(self) -> str:
        """What people call it."""
        return self.client_id.capitalize()

    def metadata(self) -> dict[str, object]:
        """As it is registered."""
        return {"client_id": self.client_id, "client_name": self.title, "redirect_uris": [f"{self.origin}/callback"]}

    def app(self) -> web.Application:
        """The client's site."""
        app = web.Application(client_max_size=65_536)
        app.router.add_get("/", self._show)
        app.router.add_get("/sign-in", self._sign_in)
        app.router.add_get("/callback", self._callback)
        app.router.add_get("/session", self._session)
        app.add_routes(self.routes())
        return app

    def routes(self) -> list[web.RouteDef]:
        """What else it answers."""
        return []

    def start(self, who: SignedIn, response: web.Response) -> None:
        """Begin a session of its own."""

    def user(self, request: web.Request) -> str | None:  # noqa: ARG002  it is what the others need
        """Who is signed in, as far as the server knows."""
        return None

    async def _show(self, _request: web.Request) -> web.Response:
        return page_of(self.page, {"title": self.title})

    async def _sign_in(self, _request: web.Request) -> web.Response:
        query = urlencode({"client_id": self.client_id, "redirect_uri": f"{self.origin}/callback"})
        raise web.HTTPFound(f"{self._provider.issuer}/authorize?{query}")

    async def _callback(self, request: web.Request) -> web.Response:
        who = self._provider.redeem(request.query.get("code", ""))
        if who is None:
            raise web.HTTPBadRequest(text="This sign-in is not valid any more.")
        response = web.Response(status=302, headers={"Location": "/"})
        self.start(who, response)
        return response

    async def _session(self, request: web.Request) -> web.Response:
        return web.json_response({"user": self.user(request)}, headers={"Cache-Control": "no-store"})


class Shop(BrowserClient):
    """Keeps its sessions on its server, and takes logout tokens there."""

    client_id = "shop"

    def __init__(self, origin: str, provider: Provider, check: TokenCheck) -> None:
        super().__init__(origin, provider)
        self._check = check
        self._sessions: dict[str, SignedIn] = {}

    def metadata(self) -> dict[str, object]:
        """With the address for logout tokens."""
        return {**super().metadata(), "backchannel_logout_uri": f"{self.origin}/backchannel-logout"}

    def routes(self) -> list[web.RouteDef]:
        """The address for logout tokens."""
        return [web.post("/backchannel-logout", self._end)]

    def start(self, who: SignedIn, response: web.Response) -> None:
        """The browser gets a name of the session; the session itself stays here."""
        name = secrets.token_hex(16)
        self._sessions[name] = who
        response.set_cookie("shop_session", name, httponly=True, samesite="Lax")

    def user(self, request: web.Request) -> str | None:
        """Whose session the cookie names, if there still is one."""
        who = self._sessions.get(request.cookies.get("shop_session", ""))
        return None if who is None else who.sub

    async def _end(self, request: web.Request) -> web.Response:
        token = self._check.read(str((await request.post()).get("logout_token", "")))
        if not isinstance(token, Verified):
            return web.json_response({"error": "invalid_request", "error_description": token.reason}, status=400)
        self._sessions = {name: who for name, who in self._sessions.items() if who.sid != token.sid}
        return web.Response(status=204, headers={"Cache-Control": "no-store"})


class Photos(BrowserClient):
    """Keeps its session in a cookie, which only the user's browser can remove."""

    client_id = "photos"

    def metadata(self) -> dict[str, object]:
        """With the address for the browser."""
        uri = f"{self.origin}/frontchannel-logout"
        return {**super().metadata(), "frontchannel_logout_uri": uri, "frontchannel_logout_session_required": True}

    def routes(self) -> list[web.RouteDef]:
        """The address for the browser."""
        return [web.get("/frontchannel-logout", self._end)]

    def start(self, who: SignedIn, response: web.Response) -> None:
        """All of the session is in the cookie. (A real client signs it.)"""
        response.set_cookie("photos_session", f"{who.sub}.{who.sid}", httponly=True, samesite="Lax")

    def user(self, request: web.Request) -> str | None:
        """Who the cookie says it is."""
        return request.cookies.get("photos_session", "").partition(".")[0] or None

    async def _end(self, request: web.Request) -> web.Response:
        response = web.Response(text="Signed out.", headers={"Cache-Control": "no-cache, no-store"})
        sid = request.cookies.get("photos_session", "").rpartition(".")[2]
        if request.query.get("iss") == self._provider.issuer and request.query.get("sid") == sid:
            response.del_cookie("photos_session", httponly=True, samesite="Lax")
        return response


class Notes(BrowserClient):
    """A page that keeps its session to itself, and watches the identity server's."""

    client_id = "notes"
    page = "notes.html"

    async def _show(self, _request: web.Request) -> web.Response:
        return page_of(self.page, {"title": self.title, "issuer": self._provider.issuer})

    async def _callback(self, request: web.Request) -> web.Response:
        """A real one redeems its code by script (PKCE); ours is told in the fragment, which no server sees."""
        who = self._provider.redeem(request.query.get("code", ""))
        if who is None:
            raise web.HTTPBadRequest(text="This sign-in is not valid any more.")
        query = urlencode({"user": who.sub, "session_state": request.query.get("session_state", "")})
        raise web.HTTPFound(f"/#{query}")

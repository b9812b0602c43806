"""A small identity server for the demo in a browser: one user, no password, and everything that ends a session.

Its user has signed in at an upstream provider. A sign-out there ends her session here too: notifier asks which one it
is, and tells the identity server as it tells every client.

As behind a real proxy, notifier's pages are under its own origin: the front-channel page below `/connect/notify`, the
check-session page at `/connect/checksession`. It is no example of an OpenID Provider: it checks nothing that one must
check.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from notifier.demo.browser_clients import BrowserClient, SignedIn, page_of
from notifier.demo.happenings import Happenings
from notifier.demo.token_check import TokenCheck, Verified
from notifier.demo.upstream_provider import AUDIENCE, Upstream
from notifier.model.origins import origin_of

USER = "alice"
PAGES = "/connect/notify"
CHECK_SESSION = "/connect/checksession"
STATE_COOKIE, SESSION_COOKIE = "demo_state", "demo_session"
SESSIONS, LOGOUT = "/sessions-of-upstream", "/backchannel-logout"
_PASSED_ON = ("Content-Type", "Content-Security-Policy", "Cache-Control", "Referrer-Policy", "X-Content-Type-Options")

EndSession = Callable[[Mapping[str, object]], Awaitable[str | None]]
"""Hands an event over to notifier. Returns the URL of the front-channel page, if the browser has to ask a client."""


class IdentityServer:
    """The identity server at `issuer`. `listener` is where notifier's web listener is."""

    def __init__(self, issuer: str, listener: str, happenings: Happenings) -> None:
        self.issuer = issuer
        self._listener = listener
        self._happenings = happenings
        self._sessions: dict[str, str] = {}  # sid → browser state
        self._codes: dict[str, SignedIn] = {}
        self._clients: Mapping[str, BrowserClient] = {}
        self._end: EndSession | None = None
        self._upstream: Upstream | None = None
        self._check: TokenCheck | None = None
        self._came_from: dict[str, str] = {}  # sid there → sid here, also of sessions that have ended

    def know(
        self, clients: Mapping[str, BrowserClient], end: EndSession, upstream: Upstream, check: TokenCheck
    ) -> None:
        """Learn who the clients are, who tells them of a session's end, and where the user signs in."""
        self._clients, self._end = clients, end
        self._upstream, self._check = upstream, check

    def metadata(self) -> dict[str, object]:
        """It is a client too: it is told of the sessions that notifier ends."""
        return {"client_id": AUDIENCE, "backchannel_logout_uri": f"{self.issuer}{LOGOUT}"}

    def redeem(self, code: str) -> SignedIn | None:
        """What a code stands for; it stands for it once."""
        return self._codes.pop(code, None)

    def app(self) -> web.Application:
        """Its site."""
        app = web.Application(client_max_size=65_536)
        app.router.add_get("/", self._show)
        app.router.add_post("/sign-in", self._sign_in)
        app.router.add_post("/sign-out", self._sign_out)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_get("/happenings", self._tell)
        app.router.add_post(SESSIONS, self._answer_whose)
        app.router.add_post(LOGOUT, self._end_here)
        app.router.add_get(CHECK_SESSION, self._pass_on)
        app.router.add_route("*", PAGES + "/{path:.*}", self._pass_on)
        return app

    async def _show(self, request: web.Request) -> web.Response:
        self._happenings.visited()
        assert self._upstream is not None, "known before it listens"
        clients = {client.client_id: client.origin for client in self._clients.values()}
        there = next((there for there, sid in self._came_from.items() if sid == self._sid(request)), "")
        content = {"clients": clients, "user": USER if self._sid(request) else None}
        return page_of("identity_server.html", {**content, "upstream": self._upstream.issuer, "session": there})

    async def _sign_in(self, request: web.Request) -> web.Response:
        self._only_ours(request)
        sid, state = secrets.token_hex(8), secrets.token_urlsafe(16)
        self._sessions[sid] = state
        assert self._upstream is not None, "known before it listens"
        there = self._upstream.begin(USER)
        self._came_from[there] = sid
        self._happenings.add("Identity server", f"{USER.capitalize()} signed in, by way of her company.")
        response = web.json_response({"user": USER, "session": there})
        response.set_cookie(SESSION_COOKIE, sid, httponly=True, samesite="Lax")
        response.set_cookie(STATE_COOKIE, state, samesite="Lax")  # scripts of this origin read it, so it is not the sid
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        self._only_ours(request)
        sid, page = self._sid(request), None
        if sid is not None:
            self._happenings.add(
                "Identity server", f"{USER.capitalize()} signed out. notifier is told that the session has ended."
            )
            assert self._end is not None, "known before it listens"
            page = await self._end({"iss": self.issuer, "sub": USER, "sid": sid, "clients": [*self._clients]})
            self._sessions.pop(sid, None)
        return _without_session({"page": page})

    async def _answer_whose(self, request: web.Request) -> web.Response:
        """Answer notifier, which session here has come from the upstream's. (A real one asks who is asking.)"""
        sid = self._came_from.get(str((await request.json()).get("sid")))
        sessions = [] if sid is None else [{"sub": USER, "sid": sid, "clients": [*self._clients, AUDIENCE]}]
        return web.json_response({"sessions": sessions})

    async def _end_here(self, request: web.Request) -> web.Response:
        """End the session that notifier names."""
        assert self._check is not None, "known before it listens"
        token = self._check.read(str((await request.post()).get("logout_token", "")))
        if not isinstance(token, Verified):
            return web.json_response({"error": "invalid_request", "error_description": token.reason}, status=400)
        self._sessions.pop(token.sid, None)
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    async def _authorize(self, request: web.Request) -> web.Response:
        client, sid = self._clients.get(request.query.get("client_id", "")), self._sid(request)
        if client is None or origin_of(request.query.get("redirect_uri", "")) != client.origin:
            raise web.HTTPBadRequest
        if sid is None:
            raise web.HTTPFound(f"{client.origin}/")
        code = secrets.token_urlsafe(16)
        self._codes[code] = SignedIn(sub=USER, sid=sid)
        state = _session_state(client.client_id, client.origin, self._sessions[sid], secrets.token_hex(8))
        raise web.HTTPFound(f"{client.origin}/callback?{urlencode({'code': code, 'session_state': state})}")

    async def _tell(self, request: web.Request) -> web.Response:
        """What has happened, and who is signed in. The browser forgets a session that has ended elsewhere."""
        content = {"happenings": self._happenings.since(int(request.query.get("since", "0")))}
        if SESSION_COOKIE in request.cookies and self._sid(request) is None:
            return _without_session({**content, "user": None})
        return web.json_response({**content, "user": None if self._sid(request) is None else USER})

    async def _pass_on(self, request: web.Request) -> web.Response:
        """As a proxy does, without the cookies."""
        path = "/check-session/demo" if request.path == CHECK_SESSION else request.path_qs.removeprefix(PAGES)
        headers = {name: request.headers[name] for name in ("Content-Type",) if name in request.headers}
        url = URL(self._listener + path, encoded=True)
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=await request.read(), headers=headers) as answer,
        ):
            passed = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=passed)

    def _sid(self, request: web.Request) -> str | None:
        sid = request.cookies.get(SESSION_COOKIE)
        return sid if sid in self._sessions else None

    def _only_ours(self, request: web.Request) -> None:
        """Refuse what a page of another origin sends."""
        if request.headers.get("Origin") != self.issuer:
            raise web.HTTPForbidden
        self._happenings.visited()


def _without_session(document: Mapping[str, object]) -> web.Response:
    response = web.json_response(document)
    response.del_cookie(SESSION_COOKIE, httponly=True, samesite="Lax")
    response.del_cookie(STATE_COOKIE, samesite="Lax")
    return response


def _session_state(client_id: str, origin: str, browser_state: str, salt: str) -> str:
    """As the example of OpenID Connect Session Management 1.0 §2 makes it. `origin` is that of the redirect URI."""
    text = f"{client_id} {origin} {browser_state} {salt}"
    return f"{hashlib.sha256(text.encode()).hexdigest()}.{salt}"

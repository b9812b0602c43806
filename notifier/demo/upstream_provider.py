"""The provider at which the demo's user has signed in: an upstream of the identity server.

It tells a sign-out in both ways that the standards have: by a logout token from server to server, and by a frame in the
page that says that the user has signed out.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from notifier.delivery.channels import LOGOUT_EVENT
from notifier.demo.browser_clients import page_of
from notifier.demo.happenings import Happenings
from notifier.model.client import Algorithm
from notifier.model.origins import origin_of
from notifier.tokens.key_ring import KeyRing

CALLED = "company"
"""Its name in the configuration."""
AUDIENCE = "identity-server"
"""What the identity server is called there."""
WHO = "Company"


class Upstream:
    """The provider at `issuer`. `below`: where notifier takes its requests, on the identity server's origin."""

    def __init__(self, issuer: str, below: str, keys: KeyRing, happenings: Happenings) -> None:
        self.issuer = issuer
        self._below = f"{below}/upstreams/{CALLED}"
        self._keys = keys
        self._happenings = happenings
        self._sessions: dict[str, str] = {}  # sid → user

    def begin(self, user: str) -> str:
        """Sign a user in, and return the session's `sid`."""
        sid = secrets.token_hex(8)
        self._sessions[sid] = user
        return sid

    def settings(self, sessions: str) -> Mapping[str, Any]:
        """As notifier's configuration has it. `sessions` is the address that knows the identity server's sessions."""
        return {
            "issuer": self.issuer,
            "client_id": AUDIENCE,
            "jwks_uri": f"{self.issuer}/jwks",
            "resolve": {"http": {"url": sessions}},
            "front_channel": True,
        }

    def app(self) -> web.Application:
        """Its site."""
        app = web.Application(client_max_size=65_536)
        app.router.add_get("/", self._show)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_post("/sign-out", self._sign_out)
        return app

    async def _show(self, request: web.Request) -> web.Response:
        sid = request.query.get("session", "")
        content = {"session": sid, "user": self._sessions.get(sid), "parent": origin_of(self._below)}
        return page_of("upstream.html", content)

    async def _jwks(self, _request: web.Request) -> web.Response:
        return web.json_response(self._keys.jwks(self.issuer))

    async def _sign_out(self, request: web.Request) -> web.Response:
        """End a session, send the token, and answer with the address of the frame."""
        if request.headers.get("Origin") != self.issuer:
            raise web.HTTPForbidden
        self._happenings.visited()
        sid = request.query.get("session", "")
        user = self._sessions.pop(sid, None)
        if user is None:
            return web.json_response({"page": None})
        self._happenings.add(WHO, f"{user.capitalize()} signed out here. A logout token goes to notifier.")
        status = await self._send(user, sid)
        text = "notifier took the token" if status == 200 else f"notifier answered {status}"
        self._happenings.add("Upstream", f"{text}, and finds out whose session that is at the identity server.")
        query = urlencode({"iss": self.issuer, "sid": sid})
        return web.json_response({"page": f"{self._below}/frontchannel-logout?{query}"})

    async def _send(self, user: str, sid: str) -> int:
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": AUDIENCE, "iat": now, "exp": now + 120, "jti": secrets.token_hex(16),
            "events": {LOGOUT_EVENT: {}}, "sub": f"{user}@company.example", "sid": sid,
        }  # fmt: skip
        token = await self._keys.sign(self.issuer, Algorithm.RS256, "logout+jwt", claims)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self._below}/backchannel-logout", data={"logout_token": token}) as answer,
        ):
            return answer.status

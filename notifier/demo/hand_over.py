"""Signs whoever opens an address into the console, once: for the demo, whose service alone has this route.

The console takes a token from no address: a link could sign somebody in as another. So this page, of the same origin,
puts the token where the console keeps it. The path is a secret, and the page is shown once, since processes and
histories show addresses. No token is in one.
"""

import json
import secrets

from aiohttp import web

from notifier.feature import Feature, Running

KEPT_AS = "notifier.token"
"""Under this name the console keeps the token of the tab (`session.js`)."""


class HandOver:
    """The page. `path` is its secret path."""

    def __init__(self, token: str) -> None:
        self.path = f"/demo/{secrets.token_urlsafe(16)}"
        self._token: str | None = token

    def feature(self) -> Feature:
        """What the demo adds to its service."""
        return Feature(name="demo", run=lambda _given: Running(api=[web.get(self.path, self._show)]))

    async def _show(self, _request: web.Request) -> web.Response:
        token, self._token = self._token, None
        if token is None:
            raise web.HTTPNotFound(text="This address has been opened. Start the demo again.")
        nonce = secrets.token_urlsafe(16)
        script = (
            f'sessionStorage.setItem("{KEPT_AS}", {json.dumps(token)}); location.replace("/console/" + location.hash);'
        )
        headers = {
            "Content-Security-Policy": f"default-src 'none'; script-src 'nonce-{nonce}'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }
        page = f'<!doctype html><title>notifier</title><script nonce="{nonce}">{script}</script>'
        return web.Response(text=page, content_type="text/html", headers=headers)

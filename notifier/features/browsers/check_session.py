"""Serve `GET /check-session/{name}`: the page by which a client checks whether its session has changed.

It is the `check_session_iframe` of Session Management 1.0 §3.2, served by the issuer's proxy on the issuer's origin.
A script in the page computes `session_state` from the browser-state cookie by the identity server's formula, and
compares it with the client's. notifier receives no cookie. Keycloak's formula contains neither client nor origin:
there the script requests the page's address with both in the query, and the registry decides whether the client may
use the page. The page is the same for all users and clients, and can be cached.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files

from aiohttp import web

from notifier.features.browsers.web_settings import CheckSessionSettings
from notifier.model.registry import Registry

PAGE_MAX_AGE_SECONDS = 3600  # Cache-Control; only a new release or new settings change a page
PERMISSION_MAX_AGE_SECONDS = 300  # Cache-Control; the registry may change at any time


def can_check_session(page: CheckSessionSettings, registry: Registry, client_id: str, origin: str) -> bool:
    """Return whether the client is registered with a redirect URI of `origin`, as browsers serialize an origin."""
    client = registry.clients_of(page.issuer).get(client_id)
    return client is not None and origin in client.redirect_origins


_PAGE_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Check session</title>
<script type="application/json" id="settings">{settings}</script>
<script>{script}</script></head><body></body></html>
"""


def read_check_session_script() -> str:
    """Return the JavaScript of the page."""
    return files(__package__).joinpath("check_session.js").read_text(encoding="utf-8")


class CheckSessionRoutes:
    """Serves the pages. `find_page` returns the configured page of a name; `registry` the current registry."""

    def __init__(
        self, find_page: Callable[[str], CheckSessionSettings | None], registry: Callable[[], Registry], script: str
    ) -> None:
        self._find_page = find_page
        self._registry = registry
        self._script = script
        self._script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the web listener's application."""
        return [web.get("/check-session/{name}", self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        """Return the page, or for a request with `client_id` whether that client may use it (204 or 403)."""
        page = self._find_page(request.match_info["name"])
        if page is None:
            raise web.HTTPNotFound
        if page.binds_origin or "client_id" not in request.query:
            return self._render_page(page)
        client_id, origin = request.query["client_id"], request.query.get("origin", "")
        if can_check_session(page, self._registry(), client_id, origin):
            return web.Response(status=204, headers={"Cache-Control": f"public, max-age={PERMISSION_MAX_AGE_SECONDS}"})
        return web.Response(status=403)

    def _render_page(self, page: CheckSessionSettings) -> web.Response:
        """Return the page, which any site may frame, and browsers and proxies may cache."""
        settings = json.dumps({"formula": page.formula, "cookie": page.state_cookie}).replace("<", "\\u003c")
        connect = "" if page.binds_origin else " connect-src 'self';"  # for the script's question with client_id
        script = f"script-src 'sha256-{self._script_hash}'"
        policy = f"default-src 'none'; {script};{connect} base-uri 'none'; form-action 'none'"
        return web.Response(
            text=_PAGE_TEMPLATE.format(settings=settings, script=self._script),
            content_type="text/html",
            charset="utf-8",
            headers={
                "Cache-Control": f"public, max-age={PAGE_MAX_AGE_SECONDS}",
                "Content-Security-Policy": policy,
                "Cross-Origin-Resource-Policy": "cross-origin",
            },
        )

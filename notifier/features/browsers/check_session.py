"""Serve `GET /check-session/{name}`: the page by which a client checks whether its session has changed.

It is the `check_session_iframe` of Session Management 1.0 §3.2, served by the issuer's proxy on the issuer's origin.
A script in the page compares the client's `session_state` with the browser-state cookie of the identity server, by that
server's formula; the proxy forwards no cookie. Only Keycloak's formula binds neither client nor origin: there the page
requests its own address with a query, and the registry decides whether the client may use it. So the page is the same
for every user and client, can be cached by browsers and proxies, and lists no clients.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib.resources import files

from aiohttp import web

from notifier.model.frozen import frozen
from notifier.model.registry import Registry

PAGE_MAX_AGE_SECONDS = 3600  # in caches; only a new release or new settings change a page
PERMISSION_MAX_AGE_SECONDS = 300  # in caches


class SessionFormula(StrEnum):
    """How an identity server computes `session_state` from its browser-state cookie."""

    SPECIFICATION = "specification"
    DUENDE = "duende"
    WSO2 = "wso2"
    KEYCLOAK = "keycloak"


STATE_COOKIES: Mapping[SessionFormula, str] = {
    SessionFormula.DUENDE: "idsrv.session",
    SessionFormula.WSO2: "opbs",
    SessionFormula.KEYCLOAK: "KEYCLOAK_SESSION",
}
"""The cookie name of each product. With the formula of the specification, the settings have the cookie name."""


@frozen
class CheckSessionPage:
    """One page. `cookie`: the name of the browser-state cookie."""

    issuer: str
    formula: SessionFormula
    cookie: str

    @property
    def binds_origin(self) -> bool:
        """Return whether a `session_state` is valid for one client at one origin only."""
        return self.formula is not SessionFormula.KEYCLOAK


def can_check_session(page: CheckSessionPage, registry: Registry, client_id: str, origin: str) -> bool:
    """Return whether the client is registered with a redirect URI of this origin (in browsers' notation)."""
    client = registry.clients_of(page.issuer).get(client_id)
    return client is not None and origin in client.redirect_origins


_PAGE_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Check session</title>
<script type="application/json" id="settings">{settings}</script>
<script>{script}</script></head><body></body></html>
"""


def read_check_session_script() -> str:
    """Return the script of the page."""
    return files(__package__).joinpath("check_session.js").read_text(encoding="utf-8")


class CheckSessionRoutes:
    """Serves the pages. `page` returns the configured page with a name; `registry` returns the current registry."""

    def __init__(
        self, page: Callable[[str], CheckSessionPage | None], registry: Callable[[], Registry], script: str
    ) -> None:
        self._find_page = page
        self._registry = registry
        self._script = script
        self._hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the web listener's application."""
        return [web.get("/check-session/{name}", self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        page = self._find_page(request.match_info["name"])
        if page is None:
            raise web.HTTPNotFound
        if page.binds_origin or "client_id" not in request.query:
            return self._render_page(page)
        client_id, origin = request.query["client_id"], request.query.get("origin", "")
        if can_check_session(page, self._registry(), client_id, origin):
            return web.Response(status=204, headers={"Cache-Control": f"public, max-age={PERMISSION_MAX_AGE_SECONDS}"})
        return web.Response(status=403)

    def _render_page(self, page: CheckSessionPage) -> web.Response:
        settings = json.dumps({"formula": page.formula, "cookie": page.cookie}).replace("<", "\\u003c")
        connect = "" if page.binds_origin else " connect-src 'self';"
        policy = f"default-src 'none'; script-src 'sha256-{self._hash}';{connect} base-uri 'none'; form-action 'none'"
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

"""`GET /check-session/{name}`: the `check_session_iframe` of an issuer, served by its proxy on the issuer's own origin.

The page is the same for every user and client, so that browsers and proxies may keep it. It reads the issuer's cookie
by script; the proxy gives us no cookie. With a formula that binds no origin it asks its own address, by a query,
whether the client may ask. So the page is as small for 10,000 clients as for one, and shows nobody a list of clients.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files

from aiohttp import web

from notifier.features.browsers.check_session import CheckSession, may_ask
from notifier.model.registry import Registry

KEPT = 3600  # seconds that a page may be kept; it changes with a release and with its settings
ALLOWED_KEPT = 300  # seconds that "this client may ask" may be kept

_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Check session</title>
<script type="application/json" id="settings">{settings}</script>
<script>{script}</script></head><body></body></html>
"""


def check_session_script() -> str:
    """Return the script of the page."""
    return files(__package__).joinpath("check_session.js").read_text(encoding="utf-8")


class CheckSessionPages:
    """Serves the pages. `page` gives one by its name, as configured now; `registry` the clients as registered now."""

    def __init__(
        self, page: Callable[[str], CheckSession | None], registry: Callable[[], Registry], script: str
    ) -> None:
        self._page = page
        self._registry = registry
        self._script = script
        self._hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    def routes(self) -> list[web.RouteDef]:
        """The routes, for the application of the web listener."""
        return [web.get("/check-session/{name}", self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        page = self._page(request.match_info["name"])
        if page is None:
            raise web.HTTPNotFound
        if page.binds_origin or "client_id" not in request.query:
            return self._shown(page)
        client_id, origin = request.query["client_id"], request.query.get("origin", "")
        if may_ask(page, self._registry(), client_id, origin):
            return web.Response(status=204, headers={"Cache-Control": f"public, max-age={ALLOWED_KEPT}"})
        return web.Response(status=403)

    def _shown(self, page: CheckSession) -> web.Response:
        settings = json.dumps({"formula": page.formula, "cookie": page.cookie}).replace("<", "\\u003c")
        connect = "" if page.binds_origin else " connect-src 'self';"
        policy = f"default-src 'none'; script-src 'sha256-{self._hash}';{connect} base-uri 'none'; form-action 'none'"
        return web.Response(
            text=_DOCUMENT.format(settings=settings, script=self._script),
            content_type="text/html",
            charset="utf-8",
            headers={
                "Cache-Control": f"public, max-age={KEPT}",
                "Content-Security-Policy": policy,
                "Cross-Origin-Resource-Policy": "cross-origin",
            },
        )

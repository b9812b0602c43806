"""Build the routes of pages for the web listener. Each request uses the current configuration.

`GET /check-session/{name}` is the page by which a client checks whether its session has changed.

It is the `check_session_iframe` of Session Management 1.0 §3.2, served by the issuer's proxy on the issuer's origin.
A script in the page computes `session_state` from the browser-state cookie by the identity server's formula, and
compares it with the client's. notifier receives no cookie. Keycloak's formula contains neither client nor origin:
there the script requests the page's address with both in the query, and the registry decides whether the client may
use the page. The page is the same for all users and clients, and can be cached.
"""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator
from importlib.resources import files

import structlog
from aiohttp import web

from notifier.configuration.clients.authority import issuer_hosts
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.features.browsers.front_channel_context import OpenedContext, seal_context
from notifier.features.browsers.front_channel_counts import FrontChannelCounts
from notifier.features.browsers.front_channel_routes import FrontChannelRoutes, PageDependencies
from notifier.features.browsers.supplied_addresses import SuppliedAddresses
from notifier.features.browsers.web_keys import PageKeys, PagesPart
from notifier.features.browsers.web_settings import CheckSessionSettings, WebIssuerSettings, web_of
from notifier.model.front_channel import FrontChannelContext
from notifier.model.moment import MinuteLimit
from notifier.model.printable import excerpt
from notifier.model.registry import Registry

_UNKNOWN_ISSUER_HINT = (
    "web.issuers has no such issuer: have whoever makes the page write it letter by letter as there, or add it"
)
_FOREIGN_KEY_HINT = "the page's key belongs to another issuer: use a key of the issuer's keys_file, or of web.keys_file"


class WebPages:
    """Builds the routes of pages. Without a section `web` at the worker's start there is no listener for them."""

    def __init__(self, live: LiveConfiguration, counts: FrontChannelCounts) -> None:
        self._live = live
        self._log_limit = MinuteLimit()
        self.supplied = SuppliedAddresses(counts, live.registry, self._hosts_of, self._has_exclusive_keys)
        dependencies = PageDependencies(
            open_context=self._open_context, seal_context=self._seal_context, settings_of=self.settings_of,
            registry=live.registry, supplied=self.supplied, counts=counts,
        )  # fmt: skip
        self._pages = FrontChannelRoutes(dependencies)

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield from self._pages.routes()
        yield from CheckSessionRoutes(
            self._find_check_session_page, self._live.registry, read_check_session_script()
        ).routes()

    def keys(self) -> PageKeys | None:
        """Return the current keys of pages; None without `web.keys_file`."""
        return self._live.current.part(PagesPart).keys

    def settings_of(self, iss: str) -> WebIssuerSettings | None:
        """Return the settings of an issuer's pages; None if it has no pages."""
        section = web_of(self._live.current.settings)
        return None if section is None else section.issuers.get(iss)

    def page_of(self, iss: str, context: FrontChannelContext | None, parents: tuple[str, ...]) -> web.Response:
        """Return a context's page; an empty page without a context, or if the issuer has no pages.

        The origins `parents` may frame the page, besides those of the issuer's settings.
        """
        settings = self.settings_of(iss)
        if settings is None:
            return self._pages.page_of(None, parents)
        return self._pages.page_of(context, tuple(dict.fromkeys((*parents, *settings.origins))))

    def _open_context(self, text: str) -> OpenedContext | None:
        """Return the opened context; None if it is invalid or expired. Log why a validly sealed context is refused."""
        keys = self.keys()
        opened = None if keys is None else keys.open(text, time.time(), self._log_refused_page)
        if opened is not None and self.settings_of(opened.context.iss) is None:
            self._log_refused_page(opened.context.iss)
        return opened

    def _log_refused_page(self, iss: str) -> None:
        """Log why the page of a validly sealed context is refused. The browser receives a 400 without the reason."""
        if not self._log_limit.allows():
            return
        self._log_limit.on_logged()
        hint = _UNKNOWN_ISSUER_HINT if self.settings_of(iss) is None else _FOREIGN_KEY_HINT
        structlog.get_logger().warning("front_channel_refused", iss=excerpt(iss), hint=hint)

    def _seal_context(self, context: FrontChannelContext) -> str:
        keys = self.keys()
        assert keys is not None, (
            "the settings require keys_file with issuers, and only an issuer with pages has contexts"
        )
        return seal_context(context, keys.keys_of(context.iss), time.time())

    def _has_exclusive_keys(self, iss: str) -> bool:
        keys = self.keys()
        return keys is None or keys.has_exclusive_keys(iss)

    def _hosts_of(self, iss: str) -> Collection[str]:
        return issuer_hosts(self._live.current.settings, iss)

    def _find_check_session_page(self, name: str) -> CheckSessionSettings | None:
        section = web_of(self._live.current.settings)
        return None if section is None else section.check_session.get(name)


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

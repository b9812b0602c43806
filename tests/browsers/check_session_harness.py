"""An identity server whose check-session pages nginx serves as docs/session-management.md has it, and two clients.

`spa.test` is on another site than the identity server, `app.corp.test` on the same one.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from playwright.async_api import Page

from notifier.features.browsers.web_pages import (
    CheckSessionRoutes,
    read_check_session_script,
)
from notifier.features.browsers.web_settings import STATE_COOKIES, CheckSessionSettings, SessionFormula
from notifier.model.client import Client
from notifier.model.registry import Registry
from notifier.network.listeners.web_app import web_app
from tests.browsers.sites import Sites, sites
from tests.publishing.serving import serving
from tests.support.npm_modules import node_modules
from tests.support.proxies import documented

HERE = Path(__file__).parent
LOGIN, ELSEWHERE, SAME_SITE = "login.corp.test", "spa.test", "app.corp.test"
SALT = "5f2a"
THIRD_PARTY = "SameSite=None; Secure"
SILENT = "new oidc.UserManager({authority: 'x', client_id: 'x', redirect_uri: 'x'}).signinSilentCallback()"


def session_state(formula: SessionFormula, client: str, origin: str, state: str) -> str:
    """As the products make it; from their sources, and not from the page's script."""
    if formula is SessionFormula.KEYCLOAK:
        return state
    if formula is SessionFormula.DUENDE:
        return f"{_base64url('sha256', client + origin + state + SALT)}.{SALT}"
    return hashlib.sha256(f"{client} {origin} {state} {SALT}".encode()).hexdigest() + f".{SALT}"


def cookie_of(formula: SessionFormula, state: str, algorithm: str = "sha384") -> str:
    """What the cookie holds. Keycloak 26.7 hashes by SHA-384, the first of 26 by SHA-256."""
    return _base64url(algorithm, state) if formula is SessionFormula.KEYCLOAK else state


def _base64url(algorithm: str, text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.new(algorithm, text.encode()).digest()).decode().rstrip("=")


class CheckSessionHarness:
    """The browser at work in that world."""

    def __init__(self, own: Page, places: Sites, busy: asyncio.Event) -> None:
        """`own`: a page that sets cookies. `busy`: while set, a request about a client is answered 503."""
        self._own = own
        self._places = places
        self.busy = busy
        self.issuer = places.origin(LOGIN)

    def origin(self, host: str) -> str:
        """Of a client."""
        return self._places.origin(host)

    def frame(self, formula: SessionFormula) -> str:
        """The check_session_iframe."""
        return f"{self.issuer}/connect/checksession-{formula}"

    def message(self, formula: SessionFormula, host: str, state: str = "SID1") -> str:
        """The `session_state` of the client at that host."""
        return session_state(formula, "spa", self.origin(host), state)

    async def cookie(self, name: str, value: str | None, attributes: str = THIRD_PARTY) -> None:
        """Have the identity server set its cookie; None: remove it."""
        lifetime = f"{name}=; Max-Age=0" if value is None else f"{name}={value}"
        await self._own.goto(f"{self.issuer}/set?{quote(f'{lifetime}; Path=/; {attributes}')}")

    async def state(self, formula: SessionFormula, state: str | None, attributes: str = THIRD_PARTY) -> None:
        """Sign a user in with this browser state; None: out."""
        value = None if state is None else cookie_of(formula, state)
        await self.cookie(STATE_COOKIES.get(formula, "own"), value, attributes)

    async def asker(self, host: str, formula: SessionFormula) -> Page:
        """A page of a client, with `ask(text)` and `silence(text)`."""
        return await self._page(f"{self.origin(host)}/asker#{quote(self.frame(formula))}")

    async def watcher(self, host: str, formula: SessionFormula) -> Page:
        """Open a client's page where oidc-client-ts watches, each second; `states()` has the answers."""
        options: dict[str, Any] = {"issuer": self.issuer, "client": "spa", "frame": self.frame(formula)}
        options["state"] = self.message(formula, host)
        page = await self._page(f"{self.origin(host)}/watcher#{quote(json.dumps(options))}")
        await page.evaluate("watch()")
        return page

    async def _page(self, url: str) -> Page:
        page = await self._own.context.new_page()
        await page.goto(url)
        return page


@asynccontextmanager
async def check_session_harness(folder: Path, pem: Path, own: Page) -> AsyncIterator[CheckSessionHarness]:
    """The world, while entered. One page for each formula."""
    clients: dict[str, Client] = {}
    registry = Registry(clients={"issuer": clients})
    pages = {
        str(formula): CheckSessionSettings.model_construct(
            issuer="issuer", formula=formula, cookie=STATE_COOKIES.get(formula, "own")
        )
        for formula in SessionFormula
    }
    served = CheckSessionRoutes(pages.get, lambda: registry, read_check_session_script())
    busy, app = asyncio.Event(), web_app(served.routes())
    app.middlewares.append(_while_busy(busy))
    async with serving(app) as listener:
        handlers = {LOGIN: _login, ELSEWHERE: _client, SAME_SITE: _client}
        notifier = f"http://{listener.host}:{listener.port}"
        async with sites(folder, pem, handlers, LOGIN, notifier, "\n".join(_locations())) as places:
            origins = (places.origin(ELSEWHERE), places.origin(SAME_SITE))
            clients["spa"] = Client(
                iss="issuer", client_id="spa", backchannel_logout_uri=None, redirect_origins=origins
            )
            yield CheckSessionHarness(own, places, busy)


def _while_busy(busy: asyncio.Event) -> Middleware:
    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=429) if busy.is_set() and request.query else await handler(request)

    return refuse


def _locations() -> Iterator[str]:
    snippet = documented("nginx", "docs/session-management.md")
    for formula in SessionFormula:
        location = snippet.replace("/connect/checksession", f"/connect/checksession-{formula}")
        yield location.replace("check-session/login", f"check-session/{formula}")


async def _login(request: web.Request) -> web.Response:
    if request.path == "/set":
        return web.Response(text="set", headers={"Set-Cookie": unquote(request.rel_url.raw_query_string)})
    if request.path == "/authorize":  # prompt=none, and nobody is signed in
        query = request.query
        raise web.HTTPFound(f"{query['redirect_uri']}?error=login_required&state={query['state']}")
    return web.Response(status=404)


async def _client(request: web.Request) -> web.StreamResponse:
    if request.path == "/oidc-client-ts.js":
        return web.FileResponse(node_modules(HERE) / "oidc-client-ts/dist/browser/oidc-client-ts.min.js")
    if request.path == "/silent":
        text = f"<script src='/oidc-client-ts.js'></script><script>{SILENT}</script>"
        return web.Response(text=text, content_type="text/html")
    return web.FileResponse(HERE / f"{request.path.strip('/')}.html")

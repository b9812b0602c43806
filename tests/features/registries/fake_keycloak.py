"""A Keycloak that goes wrong on demand: its token endpoint and its list of clients, on loopback."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

SECRET = "s3cret-of-notifier"
Fault = Callable[[web.Request, int], Awaitable[web.StreamResponse | None]]


def client(name: str, **more: Any) -> dict[str, Any]:
    """A client as the Admin API shows it, with its secret."""
    attributes = {"backchannel.logout.url": f"https://{name}.example.com/logout"}
    return {"clientId": name, "enabled": True, "secret": f"secret-of-{name}", "attributes": attributes, **more}


class FakeKeycloak:
    """Holds `clients` by name. `page_fault` and `token_fault` may answer instead: they get the request's number."""

    def __init__(self, count: int = 250) -> None:
        self.clients = {f"app-{nth:04}": client(f"app-{nth:04}") for nth in range(count)}
        self.page_fault: Fault | None = None
        self.token_fault: Fault | None = None
        self.pages: list[int] = []
        self.tokens: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.url = ""

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Answer the client-credentials grant."""
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        if self.token_fault and (answer := await self.token_fault(request, len(self.forms))) is not None:
            return answer
        self.tokens.append(f"token-{len(self.tokens)}")
        return web.json_response({"access_token": self.tokens[-1], "expires_in": 300, "token_type": "Bearer"})

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Return a page of the clients, ordered by name, by its offset."""
        first, most = int(request.query["first"]), int(request.query["max"])
        self.pages.append(first)
        if self.page_fault and (answer := await self.page_fault(request, len(self.pages))) is not None:
            return answer
        if request.headers["Authorization"] != f"Bearer {self.tokens[-1]}":
            return web.json_response({"error": "HTTP 401 Unauthorized"}, status=401)
        return web.json_response([self.clients[name] for name in sorted(self.clients)][first : first + most])


@asynccontextmanager
async def fake_keycloak(count: int = 250) -> AsyncIterator[FakeKeycloak]:
    """Serve a FakeKeycloak."""
    fake, app = FakeKeycloak(count), web.Application()
    app.router.add_post("/realms/demo/protocol/openid-connect/token", fake.token)
    app.router.add_get("/admin/realms/demo/clients", fake.page)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake

"""A console under test: clients with scripted answers, a worker, tokens of each kind, windows of both browsers."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import async_playwright, expect

from tests.browsers.debian_browsers import Browsers, share_one_loop
from tests.features.console.browser.window import Window, window
from tests.system.clients import Answer, Clients, Hit
from tests.system.site import API_TOKEN, ISSUER, OTHER, Site, client
from tests.system.waiting import until
from tests.system.worker_process import WorkerProcess, worker

HERE = Path(__file__).parent
SRE, SUPPORT, BOUND = "sre-0123456789abcdef", "support-0123456789abcdef", "bound-0123456789abcdef"
TOKENS = [
    {"name": "idp", "token": API_TOKEN, "scopes": ["publish"]},
    {"name": "alice", "token": SRE, "scopes": ["read", "repair"]},
    {"name": "bob", "token": SUPPORT, "scopes": ["read"]},
    {"name": "carol", "token": BOUND, "scopes": ["read", "repair"], "issuers": [ISSUER]},
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    share_one_loop(items, HERE)


class Service:
    """The service under test. `answers`: each client's answer, by its path; 200 by default."""

    def __init__(self, site: Site, clients: Clients) -> None:
        self.site = site
        self.clients = clients
        self.answers: dict[str, Callable[[], Answer | Awaitable[Answer]]] = {}
        self._sessions = 0
        clients.judge = self._answer

    def _answer(self, hit: Hit) -> Answer | Awaitable[Answer]:
        return self.answers.get(hit.path.strip("/"), lambda: 200)()

    def answer(self, name: str, status: int, text: str = "") -> None:
        """Have a client answer so from now on."""
        self.answers[name] = lambda: web.Response(status=status, text=text)

    def hold(self, name: str) -> Callable[[], None]:
        """Have a client answer 200, but not before the returned function is called.

        A worker tries a client every few seconds by itself, and may find it well before a test has clicked.
        """
        given = asyncio.Event()

        async def answer() -> Answer:
            await given.wait()
            return 200

        self.answers[name] = answer
        return given.set

    async def until_watching(self, running: WorkerProcess) -> None:
        """Wait until the newest job, a retry, counts what becomes of the deliveries.

        A delivery that ends before is pending for the job, but none of its results.
        """

        async def answered() -> int:
            _, listed = await running.ask("GET", "/v1/jobs", SRE)
            return listed["jobs"][0]["workers"]["answered"] if listed["jobs"] else 0

        await until(answered, lambda count: count > 0)

    def worker(self) -> AbstractAsyncContextManager[WorkerProcess]:
        """A worker."""
        return worker(self.site)

    async def reload(self, running: WorkerProcess) -> None:
        """Have a worker read its files again."""
        seen = len(running.logged("reloaded"))
        running.send(signal.SIGHUP)
        await running.until_logged("reloaded", lambda _: len(running.logged("reloaded")) > seen)

    async def sign_out(
        self, running: WorkerProcess, client_id: str, count: int = 1, iss: str = ISSUER, answered: int | None = None
    ) -> None:
        """Publish the ends of `count` sessions of a client. `answered`: the client's status from now on."""
        if answered is not None:
            self.answer(client_id, answered)
        for _ in range(count):
            self._sessions += 1
            event = {"iss": iss, "sub": f"user-{self._sessions}", "sid": f"s{self._sessions}", "clients": [client_id]}
            status, document = await running.post(event)
            assert status == 202, document


@pytest_asyncio.fixture(loop_scope="session")
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """Start three clients, whose retries come after the end of a test, and a paused client."""
    async with Clients() as clients:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
        site.config["delivery"]["retry"] = {"base": "600s", "max_delay": "600s"}
        site.write()
        (tmp_path / "tokens.yaml").write_text(json.dumps(TOKENS))
        names = [("shop", ISSUER), ("payroll", ISSUER), ("wiki", OTHER)]
        paused = client("legacy", clients.url("legacy"), paused=True)
        site.write_clients([*(client(name, clients.url(name), iss) for name, iss in names), paused])
        yield Service(site, clients)


@pytest_asyncio.fixture(loop_scope="session")
async def running(service: Service) -> AsyncIterator[WorkerProcess]:
    """A worker."""
    async with service.worker() as process:
        yield process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browsers() -> AsyncIterator[Browsers]:
    """None of them has started yet."""
    expect.set_options(timeout=20_000)
    async with async_playwright() as playwright, AsyncExitStack() as stack:
        yield Browsers(playwright, stack, key="")


NewWindow = Callable[..., Awaitable[Window]]


@pytest_asyncio.fixture(loop_scope="session")
async def new_window(browsers: Browsers) -> AsyncIterator[NewWindow]:
    """Opens a window on a worker's console: `await new_window(running, "firefox", viewport=…)`."""
    async with AsyncExitStack() as stack:

        async def opened(running: WorkerProcess, kind: str = "chromium", **looks: object) -> Window:
            return await stack.enter_async_context(window(browsers, kind, await running.at("api"), **looks))

        yield opened

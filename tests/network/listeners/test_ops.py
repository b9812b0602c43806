"""Test the ops listener and shared parts of listeners: probes, scrape, addresses, and stalled connections."""

import asyncio
import errno
import gc
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest
from aiohttp import web

from notifier.model.errors import ConfigurationError
from notifier.network.listeners.listener import Listener, listen
from notifier.network.listeners.ops import MAX_CONNECTIONS, Readiness, ops_app
from notifier.network.listeners.request_counts import RequestCounts
from tests.publishing.serving import serving
from tests.system.waiting import until

GOOD = Readiness(queue=True, consuming=True)


class Page:
    """A page like that of `telemetry.metrics`."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    openmetrics_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    async def chunks(self, *, openmetrics: bool = False) -> AsyncIterator[bytes]:
        yield b"notifier_in_flight 0.0\n"
        yield b"# EOF\n" if openmetrics else b""


class Worker:
    """A worker whose health changes."""

    def __init__(self) -> None:
        self.health = GOOD

    def __call__(self) -> Readiness:
        return self.health


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def ops(worker: Worker) -> AsyncIterator[Listener]:
    async with serving(ops_app(worker, Page())) as listener:
        yield listener


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


def slow_app(handler: Callable[[web.Request], Awaitable[web.StreamResponse]], counts: RequestCounts) -> web.Application:
    """Return an application with the counted route `/v1/slow`."""
    app = web.Application(middlewares=[counts.middleware])
    app.add_routes(routes := [web.get("/v1/slow", handler)])
    counts.add_routes(routes)
    return app


async def request_slowly(listener: Listener, began: asyncio.Event) -> asyncio.StreamWriter:
    """Request `/v1/slow`, and return the connection once its handler has begun."""
    _, writer = await asyncio.open_connection(listener.host, listener.port)
    writer.write(b"GET /v1/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.wait_for(began.wait(), 30)
    return writer


@pytest.mark.parametrize("part", ["header", "body"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_closed_connection_is_no_error(caplog: pytest.LogCaptureFixture, part: str, *, reset: bool) -> None:
    """Of a caller that leaves while its request is handled, as after a suspension: nothing is logged or counted."""
    counts, began, closed, ended = RequestCounts(lambda: None, time.time), asyncio.Event(), asyncio.Event(), []

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            began.set()
            response = web.StreamResponse()
            if part == "body":
                await response.prepare(request)
            await closed.wait()
            await until(lambda: asyncio.sleep(0, request.transport), lambda transport: transport is None)
            await response.prepare(request)
            await response.write(b"late")
        except OSError as error:
            ended.append(type(error).__name__)
            raise
        return response

    async with serving(slow_app(handler, counts)) as listener:
        writer = await request_slowly(listener, began)
        writer.transport.abort() if reset else writer.close()
        closed.set()
        await until(lambda: asyncio.sleep(0, ended), lambda names: names == ["ClientConnectionResetError"])
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert sum(counts.by_labels().values()) == 0


@pytest.mark.parametrize("last", ["the next request", "more of a refused body"])
async def test_a_connection_ends_with_its_last_bytes(caplog: pytest.LogCaptureFixture, last: str) -> None:
    """Both happen before aiohttp has taken the bytes: nothing is logged."""
    requests = list[web.Request]()

    async def refuse(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        return web.Response(status=413)

    head = b"GET /v1/slow HTTP/1.1\r\nHost: localhost\r\n"
    first, more = (head + b"\r\n",) * 2 if last == "the next request" else (head + b"Content-Length: 9\r\n\r\n", b"x")
    async with serving(slow_app(refuse, RequestCounts(lambda: None, time.time))) as listener:
        acceptor = listener.runner.server.request_handler.__self__  # type: ignore[union-attr]
        reader, writer = await asyncio.open_connection(listener.host, listener.port)
        writer.write(first)
        assert b"413" in await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        connection = acceptor._connections[requests[0].protocol]
        connection.get_buffer(-1)[: len(more)] = more
        connection.buffer_updated(len(more))
        connection.advance()
        connection.connection_lost(None)
        await asyncio.sleep(0.1)
        writer.close()
        gc.collect()  # asyncio reports the error of a forgotten task
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_error_of_a_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Also one of another connection, while that of the caller is open."""
    counts = RequestCounts(lambda: None, time.time)

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise ConnectionResetError("of another server")

    async with serving(slow_app(handler, counts)) as listener, aiohttp.ClientSession() as session:
        assert (await session.get(f"{listener.url}/v1/slow")).status == 500
    assert "Error handling request" in caplog.text
    assert counts.by_labels()["GET /v1/slow", "5xx", "none"] == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "hush"), PermissionError(errno.EACCES, "hush"), TimeoutError()], ids=repr
)
async def test_an_error_of_a_handler_is_logged_although_the_caller_has_left(
    caplog: pytest.LogCaptureFixture, error: OSError
) -> None:
    """A full disk and a backend that does not answer are not the caller's, and are counted."""
    counts, began, ended = RequestCounts(lambda: None, time.time), asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        began.set()
        await until(lambda: asyncio.sleep(0, request.transport), lambda transport: transport is None)
        ended.set()
        raise error

    async with serving(slow_app(handler, counts)) as listener:
        writer = await request_slowly(listener, began)
        writer.close()
        await asyncio.wait_for(ended.wait(), 30)
    assert "Error handling request" in caplog.text
    assert counts.by_labels()["GET /v1/slow", "5xx", "none"] == 1


async def test_openmetrics_is_served_on_request(ops: Listener, http: aiohttp.ClientSession) -> None:
    """As Prometheus does; other clients receive the text format. Neither contains the libraries' versions."""
    asked = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"}
    async with http.get(f"{ops.url}/metrics", headers=asked) as response:
        assert response.headers["Content-Type"] == Page.openmetrics_type
        assert (await response.text()).endswith("# EOF\n")
    async with http.get(f"{ops.url}/metrics") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, Page.content_type)
        assert "Server" not in response.headers
        assert await response.read() == b"notifier_in_flight 0.0\n"


async def test_livez_answers_whatever_the_queue_does(
    ops: Listener, worker: Worker, http: aiohttp.ClientSession
) -> None:
    """An unreachable broker must not cause a restart of the pod."""
    worker.health = Readiness(queue=False, consuming=False, problem="connection refused")
    async with http.get(f"{ops.url}/livez") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("health", "status"),
    [
        (GOOD, 200),
        (Readiness(queue=False, consuming=False, problem="connection refused"), 503),
        (Readiness(queue=True, consuming=False, problem="the consumer was cancelled"), 503),
        (Readiness(queue=True, consuming=True, draining=True), 503),
        (Readiness(queue=False, consuming=False, problem="connection refused", needed=True), 200),
        (Readiness(queue=False, consuming=False, problem="connection refused", needed=True, draining=True), 503),
        (Readiness(queue=True, consuming=True, blocked=True, problem="memory alarm"), 200),
        (Readiness(queue=True, consuming=True, problem="the broker refuses messages for a bucket"), 200),
    ],
)
async def test_readyz_names_the_missing_condition(
    health: Readiness, status: int, ops: Listener, worker: Worker, http: aiohttp.ClientSession
) -> None:
    """Ready means connected, consuming and not draining; else 503 with the missing condition. Blocked is ready.

    So is a worker of which one queue refuses messages, and a worker that serves JWK Sets of relays.
    """
    worker.health = health
    async with http.get(f"{ops.url}/readyz") as answer:
        assert answer.status == status
        assert await answer.json() == {
            "ready": status == 200,
            "queue": health.queue,
            "consuming": health.consuming,
            "blocked": health.blocked,
            "draining": health.draining,
            "needed": health.needed,
            "problem": health.problem,
        }


async def test_address_in_use_is_reported_with_its_setting(ops: Listener) -> None:
    """The error names the setting, the address and the remedy."""
    with pytest.raises(ConfigurationError, match=rf"ops\.listen: 127\.0\.0\.1:{ops.port} is taken .* another port"):
        await listen(web.Application(), "127.0.0.1", ops.port, key="ops.listen")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_address_of_another_machine_is_reported(host: str) -> None:
    """An address that cannot be bound is a configuration error, not a traceback."""
    with pytest.raises(ConfigurationError, match=rf"api\.listen: {host}:0 "):
        await listen(web.Application(), host, 0, key="api.listen")


async def test_ipv6_is_written_in_brackets() -> None:
    """`[::1]:0` works, and the URL of the real port can be used."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = await listen(ops_app(Worker(), Page()), "::1", 0, key="ops.listen")
    except ConfigurationError:
        pytest.skip("no IPv6 loopback here")
    assert listener.url == f"http://[::1]:{listener.port}"
    assert listener.port
    await listener.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """A limit for a thousand sockets with both ends in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_thousand_silent_connections_do_not_block_probes(worker: Worker, http: aiohttp.ClientSession) -> None:
    """They stay open and send nothing, and new ones connect: each probe is answered, and the oldest are closed."""
    async with serving(ops_app(worker, Page()), connections=MAX_CONNECTIONS, header_timeout=600) as listener:
        silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(1000)]
        for path in ("/livez", "/readyz", "/metrics") * 2:
            silent += [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(20)]
            async with http.get(f"{listener.url}{path}", headers={"Connection": "close"}) as answer:
                assert answer.status == 200
                await answer.read()
        assert listener.runner.server is not None
        assert len(listener.runner.server.connections) <= MAX_CONNECTIONS + 20  # that came last, and together
        for each in silent:
            each.close()


class EndlessPage(Page):
    """A page that is never read to its end."""

    def __init__(self) -> None:
        self.started = asyncio.Semaphore(0)

    async def chunks(self, *, openmetrics: bool = False) -> AsyncIterator[bytes]:
        self.started.release()
        while True:
            yield b"#" * 65536


async def slow_reader(listener: Listener, page: EndlessPage) -> asyncio.StreamWriter:
    """A client whose scrape has started, and which reads only the start."""
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    await page.started.acquire()
    return writer


async def test_slow_scrapes_do_not_block_probes(worker: Worker, http: aiohttp.ClientSession) -> None:
    """The number of scrapes is limited; one more is refused with a retry hint, and probes are answered."""
    async with serving(ops_app(worker, page := EndlessPage(), scrapes=2, scrape_within=600)) as listener:
        slow = [await slow_reader(listener, page) for _ in range(2)]
        async with http.get(f"{listener.url}/metrics") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        async with http.get(f"{listener.url}/livez") as answer:
            assert answer.status == 200
        for writer in slow:
            writer.close()


async def test_page_that_is_not_read_in_time_is_closed(worker: Worker, http: aiohttp.ClientSession) -> None:
    """Then others get it."""

    async def scrape() -> int:
        async with http.get(f"{listener.url}/metrics") as again:
            return again.status

    async with serving(ops_app(worker, page := EndlessPage(), scrapes=1, scrape_within=0.3)) as listener:
        writer = await slow_reader(listener, page)
        await until(scrape, lambda status: status == 200)
        writer.close()


@pytest.mark.parametrize("target", ["/livez" + "/" * 32, "/" * 8000, "/a/../" * 1300, "/%2e%2e/" * 1000])
async def test_long_paths_are_not_searched(ops: Listener, target: str) -> None:
    """8 KiB of slashes took 8 ms: aiohttp searches its routes once for each. A query may have any number of them."""
    for path, status in ((target, 414), ("/livez" + "/" * 31, 404), (f"/livez?{'/' * 100}", 200)):
        reader, writer = await asyncio.open_connection("127.0.0.1", ops.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert (b"The path has more than 32 segments" in answer) is (status == 414)


async def test_broken_request_does_not_log_its_header(ops: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp would log the line that it could not parse, including the bearer token."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ops.port)
    with caplog.at_level(logging.DEBUG):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer opaque-t0ken\x00\r\n\r\n")
        async with asyncio.timeout(60):
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
    writer.close()
    assert "opaque-t0ken" not in caplog.text
    assert "opaque-t0ken" not in str([record.exc_info for record in caplog.records])

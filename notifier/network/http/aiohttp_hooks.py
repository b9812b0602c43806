"""Examines the internals of aiohttp that requests use, and creates sessions.

The connector's factory of protocols (`connections`) makes outcomes exact, and is required. Requests bypass aiohttp's
session (`requests`) only for speed: if the examination fails, `ClientSession.request` sends them.
"""

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from notifier.model.client import EgressPolicy
from notifier.model.library_hooks import Hook, HookChanged, expect, expect_use, find_difference, require_behaviour, step
from notifier.network.http.connections import OpenConnections, WatchedConnection
from notifier.network.http.connector import GuardedConnector
from notifier.network.http.requests import MAX_BODY_BYTES, NO_TIMEOUT

TRIED_VERSIONS = "3.13.0 to 3.14.5"
COST_WITHOUT_HOOK = "a request takes up to a quarter more CPU"
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nhello"


@cache
def examine_aiohttp() -> Mapping[str, Hook]:
    """Examine aiohttp, and return its one optional hook by name.

    Raises ConfigurationError if connections cannot be watched.
    """
    require_behaviour("aiohttp", TRIED_VERSIONS, _examine_connections)
    found = find_difference(_examine_requests)
    return {
        "requests": Hook(
            name="requests", library="aiohttp", tried=TRIED_VERSIONS, cost=COST_WITHOUT_HOOK, difference=found
        )
    }


def new_session(
    policy: EgressPolicy | None,
    resolver: AbstractResolver,
    headers: Mapping[str, str],
    open_connections: OpenConnections,
    **limits: Any,
) -> tuple[aiohttp.ClientSession, GuardedConnector]:
    """Return a session under one egress policy, and its connector. `limits` are the connector's."""
    examine_aiohttp()
    connector = GuardedConnector(policy, resolver, open_connections, **limits)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        timeout=NO_TIMEOUT,
        auto_decompress=False,
        trust_env=False,
        read_bufsize=MAX_BODY_BYTES,
    )
    return session, connector


def _examine_connections() -> None:
    expect_use(aiohttp.BaseConnector.__init__, "_factory")
    expect_use(aiohttp.TCPConnector, "_factory")
    watched, wire, counted = _make_watched()
    expect((watched.transport, watched.should_close), (wire, False), "a connection")
    watched.data_received(_ANSWER)
    expect((watched.status, watched.header("retry-after")), (200, "7"), "the head of an answer")
    expect((watched.exception(), watched._payload), (None, None), "an answer that nobody reads")  # noqa: SLF001
    watched.force_close()
    expect([watched.should_close], [True], "a connection that is not kept")
    _examine_end(watched, wire, counted)


def _examine_requests() -> None:
    expect_use(aiohttp.BaseConnector.connect, "_get", "_create_connection", "connection_key")
    expect([issubclass(aiohttp.http_exceptions.HttpProcessingError, Exception)], [True], "an error of the parser")
    code = aiohttp.BaseConnector.connect.__code__
    expect(code.co_varnames[: code.co_argcount], ("self", "req", "traces", "timeout"), "the arguments of connect")
    request = aiohttp.ClientRequest(
        "POST",
        URL("https://client.example:8443/x", encoded=True),
        headers={"A": "b"},
        data=b"",
        loop=asyncio.get_running_loop(),
        session=None,
        ssl=True,
    )
    key = request.connection_key
    expect((key.host, key.port, key.is_ssl, key.ssl), ("client.example", 8443, True, True), "a connection's key")
    expect((request.headers["Host"], request.headers["A"]), ("client.example:8443", "b"), "a request's headers")
    expect(request.request_info.method, "POST", "a request's method")
    _examine_answers()


class _Wire(asyncio.Transport):
    """A transport without a peer."""

    closing = False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def _make_watched() -> tuple[WatchedConnection, _Wire, OpenConnections]:
    """Return a connection whose first request is about to be written."""
    counted, wire = OpenConnections(1), _Wire()
    watched = WatchedConnection(asyncio.get_running_loop(), counted, 10_000)
    if not isinstance(watched, ResponseHandler):
        raise HookChanged("a connection is not a ResponseHandler")
    watched.connection_made(wire)
    watched.begin()
    return watched, wire, counted


def _examine_answers() -> None:
    watched, wire, counted = _make_watched()
    watched.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=1000)
    watched.data_received(_ANSWER)
    message, content = step(watched.read())
    expect((message.code, message.headers["Retry-After"], watched.status), (200, "7", 200), "an answer")
    expect((step(content.read(100)), content.is_eof(), watched.should_close), (b"hello", True, False), "its body")
    watched.begin()
    watched.data_received(_NO_CONTENT + _ANSWER)
    message, content = step(watched.read())
    expect((message.code, content.at_eof(), watched.should_close), (204, True, True), "an answer with more behind it")
    _examine_end(watched, wire, counted)


def _examine_end(watched: WatchedConnection, wire: _Wire, counted: OpenConnections) -> None:
    watched.abort()
    expect((wire.closing, counted.count), (True, 1), "a connection that was given up")
    watched.connection_lost(None)
    expect(counted.count, 0, "connections that are open")

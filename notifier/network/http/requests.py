"""Sends a POST or GET over one of aiohttp's connections, in one write. The head of a request is made once per host.

aiohttp's session builds each request from scratch, with cookies, redirects and a writing task, which a logout does not
need. That costs 100 µs per request. This module therefore uses only aiohttp's connector (name lookup, TLS, pool) and
parser. Requests through a proxy use the session.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext
from typing import Protocol
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from notifier.model.client import Route
from notifier.model.record import record
from notifier.model.request import Headers, Request
from notifier.model.shared_resources import shared_bound

MAX_BODY_BYTES = 16 * 1024  # read of a response
MAX_HEADS = shared_bound(2048)  # 3 KiB each
# TLS contexts that heads keep alive. `TlsContexts` keeps half as many. A context with the system's CAs takes 0.8 MiB.
MAX_CONTEXTS = shared_bound(512)


NO_TIMEOUT = aiohttp.ClientTimeout()  # aiohttp sets no timers, since our callers set the deadlines


class _Content(Protocol):
    async def read(self, n: int) -> bytes: ...
    def at_eof(self) -> bool: ...


@record
class RawResponse:
    """A response, with at most MAX_BODY_BYTES of its body, which is not decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Request(aiohttp.ClientRequest):
    """A request that is created once, with the connector's key for its connections."""

    @cached_property
    def connection_key(self) -> "aiohttp.client_reqrep.ConnectionKey":
        return super().connection_key


@dataclass(frozen=True, slots=True)
class Head:
    """The parts that all requests to one host share. The connector reads address and TLS from `request`."""

    request: aiohttp.ClientRequest
    tls: SSLContext | None
    post_head: bytes  # of a POST: from after the target to before the value of Content-Length
    get_head: bytes  # of a GET: from after the target to its end


class Heads:
    """The heads of one session's requests, each created on first use."""

    def __init__(self, session: aiohttp.ClientSession, always: Mapping[str, str]) -> None:
        self._session = session
        self._always = always
        self._heads: dict[object, Head] = {}
        self._contexts: WeakSet[SSLContext] = WeakSet()

    def of(self, origin: str, route: Route, tls: SSLContext | None, headers: Headers = ()) -> Head:
        """Return the head for this origin, headers and TLS. Raises aiohttp.InvalidURL, ValueError (header).

        The `headers` of a channel replace those of all requests, and the route's headers replace both.
        """
        key = (origin, route.headers, route.tls, headers)
        head = self._heads.get(key)
        if head is None or head.tls is not tls:  # another context after a renewal of the certificate
            head = self._make(origin, (headers, route.headers), tls)
            self._make_room(tls)
            self._heads[key] = head
        return head

    def _make_room(self, tls: SSLContext | None) -> None:
        """Drop the oldest head, or all heads if they keep too many TLS contexts alive, so that memory stays bounded."""
        if tls is not None:
            self._contexts.add(tls)
        if len(self._contexts) > MAX_CONTEXTS:
            self._heads.clear()
        elif len(self._heads) >= MAX_HEADS:
            del self._heads[next(iter(self._heads))]

    def _make(self, origin: str, extra: Sequence[Headers], tls: SSLContext | None) -> Head:
        headers = with_headers(self._always, extra)
        request = _Request(
            "POST",
            URL(origin, encoded=True),
            headers=headers,
            data=b"",
            loop=asyncio.get_running_loop(),
            session=self._session,
            ssl=True if tls is None else tls,
        )
        request.headers.popall("Content-Length", None)
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header has a line break in it")
        get_lines = [line for line in lines if not line.lower().startswith("content-type:")]
        return Head(
            request,
            tls,
            post_head="\r\n".join([" HTTP/1.1", *lines, "Content-Length: "]).encode(),
            get_head="\r\n".join([" HTTP/1.1", *get_lines, "", ""]).encode(),
        )


def with_headers(headers: Mapping[str, str] | Headers, further: Iterable[Headers]) -> CIMultiDict[str]:
    """Return the headers, where each further group replaces headers of the same name."""
    merged = CIMultiDict(headers)
    for group in further:
        for name in {name for name, _ in group}:
            merged.popall(name, None)
        merged.extend(group)
    return merged


def split_uri(uri: str) -> tuple[str, str]:
    """Return the origin of a URI, and its path with query, byte for byte (B4).

    yarl would drop the `?` of an empty query.
    """
    host_start = uri.index("://") + 3
    ends = (uri.find("/", host_start), uri.find("?", host_start), len(uri))
    host_end = min(end for end in ends if end >= 0)
    target = uri[host_end:]
    return uri[:host_end], target if target.startswith("/") else "/" + target


async def exchange(connector: aiohttp.BaseConnector, head: Head, target: str, request: Request) -> RawResponse:
    """Send a POST, or a GET if the request has no body, and return the response. The caller sets the deadline.

    Raises aiohttp.ClientError, OSError.
    """
    connection = await connector.connect(head.request, [], NO_TIMEOUT)
    is_reusable = False
    try:
        protocol = connection.protocol
        assert protocol is not None
        protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=MAX_BODY_BYTES)
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        body = request.body
        if body is None:
            transport.write(b"GET %b%b" % (target.encode(), head.get_head))
        elif request.extras.authorization:
            line = f"Authorization: {request.extras.authorization}".encode()
            transport.write(b"POST %b%b%d\r\n%b\r\n\r\n%b" % (target.encode(), head.post_head, len(body), line, body))
        else:
            transport.write(b"POST %b%b%d\r\n\r\n%b" % (target.encode(), head.post_head, len(body), body))
        message, content = await protocol.read()
        while message.code < 200 and message.code != 101:  # informational (RFC 9110 §15.2)
            refuse_below_100(message.code, head.request.request_info)
            message, content = await protocol.read()
        response_body = b"" if content.at_eof() else await read_body(content)
        is_reusable = content.is_eof() and message.code != 101  # after 101 the connection has another protocol
    except aiohttp.http_exceptions.HttpProcessingError as broken:
        raise aiohttp.ClientResponseError(
            head.request.request_info, (), status=broken.code, message=broken.message
        ) from broken
    finally:
        if is_reusable:
            connection.release()  # keeps the connection, unless it must be closed
        else:
            if connection.protocol is not None:
                connection.protocol.abort()  # an orderly close would wait for an unresponsive client
            connection.close()
    return RawResponse(status=message.code, headers=message.headers, body=response_body)


def refuse_below_100(status: int, request: aiohttp.RequestInfo) -> None:
    """Raise aiohttp.ClientResponseError for a status below 100, which HTTP does not have (RFC 9110 §15)."""
    if status < 100:
        raise aiohttp.ClientResponseError(request, (), status=status, message="a status below 100")


async def read_body(content: _Content) -> bytes:
    """Return at most MAX_BODY_BYTES of the body. An interrupted body counts as complete (R11)."""
    body = b""
    try:
        while len(body) < MAX_BODY_BYTES and not content.at_eof():
            body += await content.read(MAX_BODY_BYTES - len(body))
    except (aiohttp.ClientError, OSError):
        pass
    return body

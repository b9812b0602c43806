"""Sends a POST or GET over one of aiohttp's connections, in one write, with a head that is made once per host.

From the response it keeps the printable beginning for diagnosis (R11), without quoted secrets.

aiohttp's session builds each request from scratch: headers, cookies, redirects, a writing task, a response that
outlives its connection. That costs 100 µs for each request, and a logout needs none of it. This module uses aiohttp's
connector (look-up, TLS, pool) and parser. Requests through a proxy use the session.
"""

import asyncio
import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext
from typing import Protocol
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from notifier.model.client import Route
from notifier.model.frozen import frozen
from notifier.model.redaction import redact_secret

MAX_BODY_BYTES = 16 * 1024  # bytes that are read
MAX_TEXT_CHARACTERS = 1024  # characters that are kept

_RUN = re.compile(r"[A-Za-z0-9_.-]{15,}")
_STEP = 8  # characters: any 15 consecutive ones of the token contain an aligned piece of 8
_SHORT = 5  # characters: a shorter header value is not treated as a secret, since it may be any word
MAX_HEADS = 2048  # kept in all, 3 KiB each
# TLS contexts alive; the TLS files keep half as many. One with the system's authorities takes 0.8 MiB.
MAX_CONTEXTS = 512


def answer_text(body: bytes, token: str, route: Route) -> str:
    """Return the first 1 KiB of `body` as text; control characters become spaces, parts of the token `[token]`.

    The values of the route's headers become `[header]`, also where the client quotes a part of 15 characters.
    """
    text = body[: MAX_TEXT_CHARACTERS * 4 + len(token)].decode("utf-8", "replace")
    text = "".join(character if character.isprintable() else " " for character in text)
    secrets = list(_find_secrets(route))
    for secret in secrets:
        text = redact_secret(text, secret, "[header]")

    def hidden(run: re.Match[str]) -> str:
        if _echoes_secret(run[0], token):
            return "[token]"
        return "[header]" if any(_echoes_secret(run[0], secret) for secret in secrets) else run[0]

    return _RUN.sub(hidden, text)[:MAX_TEXT_CHARACTERS].strip()


def _echoes_secret(run: str, secret: str) -> bool:
    return any(run[start : start + _STEP] in secret for start in range(0, len(run) - _STEP + 1, _STEP))


def _find_secrets(route: Route) -> Iterator[str]:
    """Yield the secrets in extra headers and the proxy's password as a client might quote them: `Bearer x`, or `x`."""
    values = [value for _, value in route.headers]
    if route.proxy is not None and (password := URL(route.proxy).password):
        values += [password, base64.b64encode(f"{URL(route.proxy).user or ''}:{password}".encode()).decode()]
    for value in values:
        scheme, _, last = value.rpartition(" ")
        for secret in (value, last, *(_split_basic(last) if scheme.lower() == "basic" else ())):
            if len(secret) > _SHORT:
                yield secret


def _split_basic(credentials: str) -> tuple[str, ...]:
    """Return `user:password`, and the password (RFC 7617)."""
    try:
        pair = base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        return ()
    return pair, pair.partition(":")[2]


NO_TIMEOUT = aiohttp.ClientTimeout()  # no timers of aiohttp: the deadlines are ours alone


class _Content(Protocol):
    async def read(self, n: int) -> bytes: ...
    def at_eof(self) -> bool: ...


@frozen
class Response:
    """The response, with at most 16 KiB of its body, not decompressed."""

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
    until_length: bytes  # from after the target
    of_get: bytes  # the same for a request without a body, to its end


class Heads:
    """The heads of one session's requests, each created on first use."""

    def __init__(self, session: aiohttp.ClientSession, always: Mapping[str, str]) -> None:
        self._session = session
        self._always = always
        self._heads: dict[object, Head] = {}
        self._contexts: WeakSet[SSLContext] = WeakSet()

    def of(self, origin: str, route: Route, tls: SSLContext | None) -> Head:
        """Return the head for this origin, extra headers and TLS. Raises aiohttp.InvalidURL, ValueError (header)."""
        key = (origin, route.headers, route.tls)
        if (head := self._heads.get(key)) is None or head.tls is not tls:  # a renewed certificate
            head = self._make(origin, route.headers, tls)
            self._make_room(tls)
            self._heads[key] = head
        return head

    def _make_room(self, tls: SSLContext | None) -> None:
        """Drop the oldest heads, so that few TLS contexts stay alive: only heads still refer to replaced ones."""
        if tls is not None:
            self._contexts.add(tls)
        if len(self._contexts) > MAX_CONTEXTS:
            self._heads.clear()
        elif len(self._heads) >= MAX_HEADS:
            del self._heads[next(iter(self._heads))]

    def _make(self, origin: str, extra: tuple[tuple[str, str], ...], tls: SSLContext | None) -> Head:
        headers = CIMultiDict(self._always)
        for name in {name for name, _ in extra}:
            headers.popall(name, None)
        headers.extend(extra)
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
        of_get = [line for line in lines if not line.lower().startswith("content-type:")]
        return Head(
            request,
            tls,
            "\r\n".join([" HTTP/1.1", *lines, "Content-Length: "]).encode(),
            "\r\n".join([" HTTP/1.1", *of_get, "", ""]).encode(),
        )


def split_uri(uri: str) -> tuple[str, str]:
    """Split a URI into origin, and path and query, byte for byte (B4): yarl would drop the `?` of an empty query."""
    begins = uri.index("://") + 3
    ends = min(at for at in (uri.find("/", begins), uri.find("?", begins), len(uri)) if at >= 0)
    target = uri[ends:]
    return uri[:ends], target if target.startswith("/") else "/" + target


async def exchange(connector: aiohttp.BaseConnector, head: Head, target: str, body: bytes | None) -> Response:
    """Send the request, a GET without a body, and read the response. The caller sets the deadline.

    Raises aiohttp.ClientError, OSError.
    """
    connection = await connector.connect(head.request, [], NO_TIMEOUT)
    whole = False
    try:
        protocol = connection.protocol
        assert protocol is not None
        protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=MAX_BODY_BYTES)
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        if body is None:
            transport.write(b"GET %b%b" % (target.encode(), head.of_get))
        else:
            transport.write(b"POST %b%b%d\r\n\r\n%b" % (target.encode(), head.until_length, len(body), body))
        message, content = await protocol.read()
        while message.code < 200 and message.code != 101:  # informational (RFC 9110 §15.2)
            refuse_below_100(message.code, head.request.request_info)
            message, content = await protocol.read()
        body_of_answer = b"" if content.at_eof() else await read_body(content)
        whole = content.is_eof() and message.code != 101  # after 101 the connection belongs to another protocol
    except aiohttp.http_exceptions.HttpProcessingError as broken:
        raise aiohttp.ClientResponseError(
            head.request.request_info, (), status=broken.code, message=broken.message
        ) from broken
    finally:
        if whole:
            connection.release()  # keeps it, unless it is to be closed
        else:
            if connection.protocol is not None:
                connection.protocol.abort()  # no orderly close if the client hangs
            connection.close()
    return Response(status=message.code, headers=message.headers, body=body_of_answer)


def refuse_below_100(status: int, of: aiohttp.RequestInfo) -> None:
    """Raise aiohttp.ClientResponseError for a status below 100: the answer is not HTTP (RFC 9110 §15)."""
    if status < 100:
        raise aiohttp.ClientResponseError(of, (), status=status, message="a status below 100")


async def read_body(content: _Content) -> bytes:
    """Read at most 16 KiB of the body. A body that breaks off counts as complete (R11)."""
    body = b""
    try:
        while len(body) < MAX_BODY_BYTES and not content.at_eof():
            body += await content.read(MAX_BODY_BYTES - len(body))
    except (aiohttp.ClientError, OSError):
        pass
    return body

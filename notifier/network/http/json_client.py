"""Fetches JSON over HTTP from untrusted servers, within limits:

| received | accepted |
|---|---|
| status line and headers | 16 KiB |
| a body | up to the caller's `Bounds`; 64 KiB unless the status is a success. More is not read |
| a compressed body | gzip and deflate, in parts of 64 KiB, which are counted. It is never requested |
| JSON | read in parts, within separate bounds (json_parts) |
| a redirect | never followed: it would send secrets along |
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDictProxy
from yarl import URL

from notifier import RELEASE
from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.defaults import MAX_LIST_BYTES
from notifier.model.egress import check_uri
from notifier.model.errors import AnswerFault, InternalFault, NotifierError, SourceFault
from notifier.model.outcome import StaleConnection, TransportFailure
from notifier.model.shared_resources import shared_bound
from notifier.network.http.aiohttp_hooks import new_session
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.connections import MAX_HEAD_BYTES, Exchange, OpenConnections, current_exchange
from notifier.network.http.faults import translate_fault, translate_timeout
from notifier.network.http.json_parts import Bounds, format_size, read_json
from notifier.network.http.name_resolver import NameResolver
from notifier.settings.policies import TlsSettings

MAX_ERROR_BYTES = 64 * 1024  # bytes
LIST_BOUNDS = Bounds(answer=MAX_LIST_BYTES)  # of one response of a registry source
_MAX_KEPT_CONNECTIONS = shared_bound(8)  # more than any source requests at a time
_PART_BYTES = 64 * 1024  # bytes decompressed at a time
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # gzip or zlib, by the header of the data
_CODINGS = ("gzip", "x-gzip", "deflate")
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"notifier/{RELEASE}"}

ReadBody: TypeAlias = Callable[[bytearray, str, Bounds], Awaitable[Any]]
"""Parses a body, given its content type and the bounds. Raises ValueError, whose text is shown and has no secret."""


class NoAnswer(NotifierError):  # noqa: N818  what it is
    """A request had no usable response. The text is the reason, in one line and without secrets.

    `lasting`: a retry fails too, until a setting or certificate is changed.
    """

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        super().__init__(text)
        self.lasting = lasting


class BeyondBounds(NoAnswer):
    """A response arrived whose body is unusable: it is too large, or not JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonAnswer:
    """A response: its status, headers, and its JSON, None if it has none.

    Unless the status is a success, the JSON is an untrusted text and must not be shown.
    """

    status: int
    headers: CIMultiDictProxy[str]
    content: Any = field(default=None, repr=False)

    def joined_header(self, name: str) -> str:
        """Return a header that may occur several times; empty if it is missing."""
        return ", ".join(self.headers.getall(name, ()))


async def only_json(body: bytearray, _: str, bounds: Bounds) -> Any:
    """Read JSON regardless of the content type."""
    return await read_json(body, bounds)


class JsonClient:
    """Sends requests, in one event loop. It keeps up to `keep` connections open. `bounds`: the limits of a response.

    Without an `egress` policy any address is allowed, because the operator has configured the address. A `proxy`
    resolves names, so that the policy checks only the URL itself. Without a `resolver`, `NameResolver` resolves names.
    `share`: the TLS contexts of several clients. The caller closes `resolver` and `share`.
    """

    def __init__(
        self,
        bounds: Bounds,
        files: TlsFiles,
        *,
        egress: EgressPolicy | None = None,
        proxy: str | None = None,
        resolver: AbstractResolver | None = None,
        keep: int = 0,
        read: ReadBody = only_json,
        share: TlsContexts | None = None,
    ) -> None:
        self._bounds = bounds
        self._tls = share or TlsContexts()
        self._own_tls = share is None
        self._files = files
        self._egress = egress
        self._proxy = None if proxy is None else URL(proxy)
        self._resolver = resolver or NameResolver()
        self._own_resolver = resolver is None
        self._open = OpenConnections(keep)
        self._read = read
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        within: float | None = None,
        whole: bool = True,
        **sent: Any,
    ) -> JsonAnswer:
        """Send a request, with `json` or a form as `data`, and return the response. Raises NoAnswer.

        `within`: the time limit in seconds. If `whole` is False, only the head of the response is read.
        """
        denied = None if self._egress is None else check_uri(url, self._egress)
        if denied is not None:
            raise NoAnswer(denied, lasting=True)
        target = url if self._egress is None else URL(url, encoded=True)  # exactly as checked
        exchange = Exchange(repeated=True)
        context = current_exchange.set(exchange)
        try:
            async with asyncio.timeout(within):
                secure = url[:5].lower() == "https" or (self._proxy is not None and self._proxy.scheme == "https")
                tls: Any = await self._tls.context(self._files) if secure else True
                request = self._open_session().request(
                    method, target, headers=headers, allow_redirects=False, ssl=tls, proxy=self._proxy, **sent
                )
                async with request as response:
                    return await self._to_answer(response) if whole else _to_head(response)
        except TimeoutError:
            raise NoAnswer(translate_timeout(within or 0.0, exchange, self._proxy).text) from None
        except InternalFault as fault:
            raise NoAnswer(str(fault), lasting=True) from None
        except (aiohttp.ClientError, OSError) as error:
            text = _explain(error, exchange, self._proxy)
            raise NoAnswer(text, lasting=isinstance(error, aiohttp.ClientConnectorCertificateError)) from None
        finally:
            current_exchange.reset(context)

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._own_resolver:
            await self._resolver.close()
        if self._own_tls:
            await self._tls.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            policy = self._egress if self._proxy is None else None
            wire_limit = 2 * self._bounds.answer + MAX_HEAD_BYTES  # includes chunk framing
            self._session, _ = new_session(policy, self._resolver, _HEADERS, self._open, wire_limit=wire_limit)
        return self._session

    async def _to_answer(self, response: aiohttp.ClientResponse) -> JsonAnswer:
        """Read the body, and return the response.

        Raises NoAnswer for a redirect, and BeyondBounds if the body of a success cannot be used.
        """
        status = response.status
        if 300 <= status < 400 and status != 304:
            text = f"answered {status}, a redirect, which is not followed: name the address it leads to"
            raise NoAnswer(text, lasting=True)
        is_success, content, problem = 200 <= status < 300, None, ""
        try:
            content = await self._read_content(response, is_success=is_success)
        except ValueError as error:
            problem = str(error)  # without the exception, whose frames hold the response
        if problem and is_success:
            raise BeyondBounds(f"the answer {problem}")
        return JsonAnswer(status=status, headers=response.headers, content=content)

    async def _read_content(self, response: aiohttp.ClientResponse, *, is_success: bool) -> Any:
        """Return the parsed body. The body of an error must be JSON of at most MAX_ERROR_BYTES. Raises ValueError."""
        bounds = self._bounds if is_success else Bounds(answer=MAX_ERROR_BYTES)
        body = await _read_body(response, bounds)
        read = self._read if is_success else only_json
        return await read(body, response.headers.get("Content-Type", ""), self._bounds)


def _to_head(response: aiohttp.ClientResponse) -> JsonAnswer:
    return JsonAnswer(status=response.status, headers=response.headers)


async def _read_body(response: aiohttp.ClientResponse, bounds: Bounds) -> bytearray:
    """Return the decompressed body. Raises ValueError if it is too large, or compressed in an unsupported way."""
    coding = ", ".join(response.headers.getall("Content-Encoding", ())).lower()
    decompressor = None if coding in ("", "identity") else zlib.decompressobj(_GZIP_OR_ZLIB)
    if decompressor is not None and coding not in _CODINGS:
        raise ValueError("is compressed, which nobody asked for, and in another way than gzip")
    body, received_bytes = bytearray(), 0  # one buffer, whose memory returns to the system at once
    async for raw in response.content.iter_any():
        received_bytes += len(raw)
        for part in _decompress(raw, decompressor):
            body += part
            if len(body) > bounds.answer:
                break
        if max(received_bytes, len(body)) > bounds.answer:
            raise ValueError(f"is larger than {format_size(bounds.answer)}")
    if decompressor is not None and received_bytes and not decompressor.eof:
        raise ValueError("is compressed, which nobody asked for, and cut off")
    return body


def _decompress(raw: bytes, decompressor: Any) -> Iterator[bytes]:
    """Yield the content of received bytes, in parts of _PART_BYTES. Without a decompressor, yield them unchanged."""
    if decompressor is None:
        yield raw
        return
    has_more = True
    try:
        while (raw or has_more) and not decompressor.eof:
            part = decompressor.decompress(raw, _PART_BYTES)
            yield part
            raw, has_more = decompressor.unconsumed_tail, len(part) == _PART_BYTES
    except zlib.error:
        raise ValueError("is compressed, which nobody asked for, and damaged") from None


def _explain(error: aiohttp.ClientError | OSError, exchange: Exchange, proxy: URL | None) -> str:
    """Return the reason of a failed request for operators."""
    fault = translate_fault(error, exchange, proxy)
    if isinstance(fault, TransportFailure):
        return fault.text
    if isinstance(fault, StaleConnection):
        return "connection closed before the answer was complete"
    if exchange.connection is not None and exchange.connection.head_too_large:
        return f"the head of the answer is larger than {format_size(MAX_HEAD_BYTES)}"
    return "the answer is not HTTP/1.1"


class JsonWeb:
    """Sends requests to one server within the time of one reading: of clients of registry sources, or of sessions.

    Used in a thread with a separate event loop, for one reading at a time. No egress policy applies: the operator chose
    the address. Raises SourceFault for any failure before there is a response.
    """

    def __init__(self, client: JsonClient, until: float) -> None:
        self._client = client
        self._until = until

    def left(self) -> float:
        """Return the seconds until the time limit of the reading."""
        return self._until - asyncio.get_running_loop().time()

    async def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, **sent: Any) -> JsonAnswer:
        """Send a request, with `json` or a form as `data`."""
        try:
            return await self._client.ask(method, url, headers, **sent)
        except BeyondBounds as fault:
            raise AnswerFault(f"{redact_url(url)}: {fault}") from None
        except NoAnswer as fault:
            raise SourceFault(f"{redact_url(url)}: {fault}") from None


@asynccontextmanager
async def open_web(tls: TlsSettings | None, within: float, bounds: Bounds = LIST_BOUNDS) -> AsyncIterator[JsonWeb]:
    """Open connections for one reading, which ends after `within` seconds. Raises SourceFault."""
    client = JsonClient(bounds, (tls or TlsSettings()).files(), keep=_MAX_KEPT_CONNECTIONS)
    try:
        async with asyncio.timeout(within):
            yield JsonWeb(client, asyncio.get_running_loop().time() + within)
    except TimeoutError:
        raise SourceFault(f"not read within {within:g} s (the source's `timeout`)") from None
    finally:
        await client.close()


def redact_url(url: str) -> str:
    """Return the URL with scheme, host, port and path only: user and query may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

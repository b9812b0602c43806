"""JSON over HTTP, for the registry sources that are read that way. A redirect is refused: it would take secrets along.

It is used in a thread with an event loop of its own, for one reading at a time. No egress policy applies: the operator
names the address.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp

from notifier import __version__
from notifier.adapters.registries.json_parts import read_json
from notifier.adapters.tls.pem_files import connecting_context
from notifier.domain.client_rows import SourceFault
from notifier.domain.errors import OurFault
from notifier.settings.policies import TlsSettings

BODY_LIMIT = 256 * 1024 * 1024  # bytes of one answer: 100,000 clients with everything about them
PART = 256 * 1024

Read: TypeAlias = Callable[[bytes, str], Awaitable[Any]]
"""Turns a body and its content type into a value. Raises ValueError, whose text is shown: it must hold no secret."""

_HEADERS = {"Accept": "application/json", "User-Agent": f"notifier/{__version__}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """An answer: its status, headers, and its JSON (None if it has none or is not 2xx).

    `problem` is the JSON of an answer that is not 2xx, None if it has none: somebody else's text, not to be shown.
    `links` is the whole `Link`, which may be several headers.
    """

    status: int
    headers: Mapping[str, str]
    content: Any = field(repr=False)
    problem: Any = field(default=None, repr=False)
    links: str = ""


class Web:
    """Sends requests to one server. Raises SourceFault for whatever goes wrong before there is an answer."""

    def __init__(self, session: aiohttp.ClientSession, until: float, read: Read) -> None:
        self._session = session
        self._until = until
        self._read = read

    def left(self) -> float:
        """Seconds that the reading has left."""
        return self._until - asyncio.get_running_loop().time()

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> WebAnswer:
        """GET the URL."""
        return await self._ask("GET", url, headers)

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> WebAnswer:
        """POST a form."""
        return await self._ask("POST", url, headers, data=form)

    async def post_json(self, url: str, content: object, headers: Mapping[str, str] | None = None) -> WebAnswer:
        """POST a JSON document."""
        return await self._ask("POST", url, headers, json=content)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str] | None, **sent: Any) -> WebAnswer:
        place = place_of(url)
        try:
            async with self._session.request(method, url, headers=headers, allow_redirects=False, **sent) as response:
                if 300 <= response.status < 400 and response.status != 304:
                    raise SourceFault(f"{place} answered {response.status}, a redirect, which is not followed")
                body = await _body(response, place)
                if not 200 <= response.status < 300:
                    problem = _problem(body)
                    return WebAnswer(status=response.status, headers=response.headers, content=None, problem=problem)
                links = ", ".join(response.headers.getall("Link", ()))
                content = await self._parsed(body, response.headers.get("Content-Type", ""), place)
                return WebAnswer(status=response.status, headers=response.headers, content=content, links=links)
        except aiohttp.ClientError as error:
            raise SourceFault(f"{place}: {connection_words(error)}") from None

    async def _parsed(self, body: bytes, content_type: str, place: str) -> Any:
        try:
            return await self._read(body, content_type)
        except (ValueError, RecursionError) as error:
            raise SourceFault(f"{place}: the answer {error}") from None


async def _only_json(body: bytes, _: str) -> Any:
    try:
        return await read_json(body)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


@asynccontextmanager
async def web(tls: TlsSettings | None, within: float, read: Read = _only_json) -> AsyncIterator[Web]:
    """Open connections for one reading, which ends after `within` seconds. Raises SourceFault."""
    try:
        context = connecting_context((tls or TlsSettings()).files())
    except OurFault as fault:
        raise SourceFault(str(fault)) from None
    limits = aiohttp.ClientTimeout(total=None, sock_connect=within)
    connector = aiohttp.TCPConnector(ssl=context, resolver=aiohttp.ThreadedResolver())
    try:
        async with (
            asyncio.timeout(within),
            aiohttp.ClientSession(connector=connector, timeout=limits, headers=_HEADERS) as session,
        ):
            yield Web(session, asyncio.get_running_loop().time() + within, read)
    except TimeoutError:
        raise SourceFault(f"not read within {within:g} s (the source's `timeout`)") from None


async def _body(response: aiohttp.ClientResponse, place: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(PART):
        size += len(part)
        if size > BODY_LIMIT:
            raise SourceFault(f"{place}: the answer is larger than {BODY_LIMIT // 1024 // 1024} MiB")
        parts.append(part)
    return b"".join(parts)


def _problem(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None


def place_of(url: str) -> str:
    """Scheme, host, port and path: a query may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def connection_words(error: aiohttp.ClientError) -> str:
    """Why there was no answer, in words that do not change from one time to the next."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = error.certificate_error
        return f"certificate: {getattr(found, 'verify_message', None) or type(found).__name__}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    return f"the connection broke ({type(error).__name__})"

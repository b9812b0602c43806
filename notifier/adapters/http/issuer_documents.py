"""Reads the JSON documents that issuers, and clients, publish: one GET, one deadline, a bounded body, no redirects.

They are read every few minutes, so no connection is kept.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from notifier import __version__
from notifier.adapters.http.aiohttp_hooks import new_session
from notifier.adapters.http.connections import Exchange, OpenConnections, current_exchange
from notifier.adapters.http.faults import read_fault, read_timeout
from notifier.adapters.tls.client_contexts import TlsContexts
from notifier.domain.client import EgressPolicy, TlsFiles
from notifier.domain.egress import check_uri
from notifier.domain.errors import OurFault
from notifier.domain.issuer_document import AnswerHead, IssuerDocument, UnreadDocument, read_max_age
from notifier.domain.moment import read_http_date
from notifier.domain.outcome import Break

BODY_LIMIT = 512 * 1024  # bytes; a JWK Set of a hundred RSA keys with their certificates is 300 KiB
_T = TypeVar("_T")
_JSON = {"Accept": "application/json, application/jwk-set+json"}
_HEADERS = {
    "Accept-Encoding": "identity",
    "User-Agent": f"notifier/{__version__}",
}


class DocumentReader:
    """Reads documents. Without a `resolver`, aiodns resolves names."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver
        self._tls = TlsContexts()

    async def close(self) -> None:
        """Stop reading TLS files."""
        await self._tls.close()

    async def read(
        self, uri: str, *, egress: EgressPolicy, tls: TlsFiles, within: float, proxy: str | None = None
    ) -> IssuerDocument | UnreadDocument:
        """Read a document within `within` seconds, or say why it could not be read. Never raises.

        A `proxy` looks names up itself, so `egress` judges only what the URI says.
        """
        return await self._got(_document, uri, _JSON, egress=egress, tls=tls, within=within, proxy=proxy)

    async def look(
        self, uri: str, headers: Mapping[str, str], *, egress: EgressPolicy, tls: TlsFiles, within: float
    ) -> AnswerHead | UnreadDocument:
        """Send a GET with these headers, and return how it is answered. Never raises."""
        return await self._got(_head, uri, headers, egress=egress, tls=tls, within=within)

    async def _got(
        self,
        take: Callable[[aiohttp.ClientResponse], Awaitable[_T]],
        uri: str,
        headers: Mapping[str, str],
        *,
        egress: EgressPolicy,
        tls: TlsFiles,
        within: float,
        proxy: str | None = None,
    ) -> _T | UnreadDocument:
        denied = check_uri(uri, egress)
        if denied is not None:
            return UnreadDocument(text=denied)
        exchange = Exchange()
        by = None if proxy is None else URL(proxy)
        context = current_exchange.set(exchange)
        resolver = self._resolver or aiohttp.AsyncResolver()
        try:
            async with asyncio.timeout(within):
                ssl_context = await self._tls.context(tls) if uri[:5].lower() == "https" else True
                alone = OpenConnections(keep=0)
                policy, to = egress if by is None else None, URL(uri, encoded=True)
                session, _ = new_session(policy, resolver, {**_HEADERS, **headers}, alone, wire_limit=2 * BODY_LIMIT)
                async with session, session.get(to, allow_redirects=False, ssl=ssl_context, proxy=by) as response:
                    return await take(response)
        except TimeoutError:
            return UnreadDocument(text=read_timeout(within, exchange, by).text)
        except OurFault as fault:
            return UnreadDocument(text=str(fault))
        except (aiohttp.ClientError, OSError) as error:
            wire = read_fault(error, exchange, by)
            return UnreadDocument(text=wire.text if isinstance(wire, Break) else "the answer is not HTTP/1.1")
        finally:
            current_exchange.reset(context)
            if self._resolver is None:
                await resolver.close()


async def _head(response: aiohttp.ClientResponse) -> AnswerHead:
    names = {name.lower() for name in response.headers}
    headers = {name: tuple(response.headers.getall(name)) for name in names}
    return AnswerHead(status=response.status, headers=headers)


async def _document(response: aiohttp.ClientResponse) -> IssuerDocument | UnreadDocument:
    status = response.status
    if 300 <= status < 400:
        return UnreadDocument(
            text=f"answered {status}, a redirect, which is not followed: name the address it leads to"
        )
    if status != 200:
        return UnreadDocument(text=f"answered {status}")
    body = await response.content.read(BODY_LIMIT + 1)
    while len(body) <= BODY_LIMIT and (more := await response.content.read(BODY_LIMIT + 1 - len(body))):
        body += more
    if len(body) > BODY_LIMIT:
        return UnreadDocument(text=f"is larger than {BODY_LIMIT // 1024} KiB")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return UnreadDocument(text="is not JSON")
    headers = response.headers
    cached = read_max_age(",".join(headers.getall("Cache-Control", [])), headers.get("Age"))
    return IssuerDocument(content=content, date=read_http_date(headers.get("Date", "")), max_age=cached)

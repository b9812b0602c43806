"""POSTs logout tokens (B19, R9): one request, one absolute deadline, no redirects, no cookies, no decompression.

Requests under different egress policies never share a connection: each policy has its own session, which is closed
when it is idle. aiohttp's key of a connection includes TLS files, proxy and its password.
"""

import asyncio
import re
import resource
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from notifier import __version__
from notifier.model.client import Client, EgressPolicy, Route, TlsFiles
from notifier.model.egress import check_uri
from notifier.model.errors import InternalFault
from notifier.model.outcome import Answer, Break, Cause, Reason, Wire
from notifier.model.request import Request
from notifier.network.http import requests
from notifier.network.http.aiohttp_hooks import examine_aiohttp, new_session
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.connections import Exchange, OpenConnections, current_exchange
from notifier.network.http.connector import KEEP_ALIVE_SECONDS, GuardedConnector
from notifier.network.http.faults import translate_fault, translate_proxy_refusal, translate_timeout
from notifier.network.http.name_resolver import NameResolver
from notifier.network.http.requests import MAX_TEXT_CHARACTERS, answer_text

MAX_WAYS = 4096  # URIs whose routes are cached
MAX_KEPT_CONNECTIONS = 4096  # connections kept alive, or half of the process's limit of open files, if that is less

_FORM = ("Content-Type", "application/x-www-form-urlencoded")
_REDIRECTS = range(300, 400)
_USER = re.compile(r"//[^/?#]*@")
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"notifier/{__version__}"}


@dataclass(frozen=True, slots=True)
class _Way:
    """The common part of all requests to one URI by one route. `denied`: why none is allowed.

    Without an `origin`, aiohttp's session sends them.
    """

    route: Route
    denied: str | None
    secure: bool
    proxy: URL | None
    policy: EgressPolicy | None
    origin: str
    target: str


def _find_way(uri: str, route: Route, *, past_session: bool) -> _Way:
    denied = check_uri(uri, route.egress)
    proxy = None if route.proxy is None else URL(route.proxy)
    direct = past_session and denied is None and proxy is None
    origin, target = requests.split_uri(uri) if direct else ("", "")
    policy = None if proxy is not None else route.egress
    return _Way(route, denied, uri[:5].lower() == "https", proxy, policy, origin, target)


@dataclass(slots=True)
class _Pool:
    """A session and its users. `last_used` is by the loop's clock."""

    session: aiohttp.ClientSession
    connector: GuardedConnector
    heads: requests.Heads
    last_used: float
    in_use: int = 0


class RequestDeadline:
    """Raises TimeoutError in what a task awaits inside, after the given seconds.

    `asyncio.timeout` takes three times as long: 7 µs for each request.
    """

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._cancelling, self._passed = task, task.cancelling(), False
        self._timer = loop.call_later(seconds, self._pass)

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()

    def __enter__(self) -> None:
        """Do nothing: the time limit runs from the constructor on."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error  # no other cancellation is pending


class HttpTransport:
    """Satisfies the pipeline's `Transport`.

    Without a `resolver`, `NameResolver` resolves names. Beyond `keep` open connections, none is kept alive. An idle
    connection is kept for `kept_for` seconds. A session may be closed when it is idle for `session_idle` seconds.
    `on_surplus` are called for each client that sends more than its response.
    """

    def __init__(
        self,
        resolver: AbstractResolver | None = None,
        *,
        keep: int | None = None,
        kept_for: float = KEEP_ALIVE_SECONDS,
        session_idle: float = 60.0,
        on_surplus: Sequence[Callable[[Client], None]] = (),
    ) -> None:
        self._given_resolver = resolver
        self._kept_for = kept_for
        self._session_idle = session_idle
        self._past_session = False  # see `requests`
        self._resolver: AbstractResolver | None = None
        self._tls = TlsContexts()
        self._open_connections = OpenConnections(_half_of_open_file_limit() if keep is None else keep, on_surplus)
        self._pools: dict[EgressPolicy | None, _Pool] = {}
        self._ways: dict[str, _Way] = {}  # by URI, only of POSTs: each GET has a different URI

    @property
    def open_connections(self) -> int:
        """Return the number of open connections, in use or kept alive."""
        return self._open_connections.count

    async def open(self) -> None:
        """Prepare the transport. Call it before the first `post`."""
        self._past_session = examine_aiohttp()["requests"].difference is None
        self._resolver = self._given_resolver or NameResolver()

    async def close(self) -> None:
        """Close every connection. Requests in flight end as disconnected."""
        for pool in self._pools.values():
            await pool.session.close()
        self._pools.clear()
        await self._tls.close()
        if self._resolver is not None and self._given_resolver is None:
            await self._resolver.close()
        self._resolver = None

    async def post(self, request: Request) -> Wire:
        """POST the token and return the outcome. Raises InternalFault, never for a fault of the client.

        The client's timeout begins when its TLS files are read.
        """
        route = request.route
        if route.withheld is not None:
            raise InternalFault(Cause.ORIGIN, route.withheld)
        way = self._ways.get(request.uri)
        if way is None or way.route is not route:
            way = self._find_way(request)
        if way.denied is not None:
            return Break(reason=Reason.EGRESS_DENIED, ambiguous=False, text=way.denied)
        tls = await self._context(request) if way.secure else None
        proxy = way.proxy
        exchange = Exchange(request.new_connection, request.client)
        pool = self._pools.get(way.policy) or await self._new_pool(way.policy)
        pool.in_use += 1
        context = current_exchange.set(exchange)
        try:
            with RequestDeadline(request.timeout):
                if way.origin:
                    head = pool.heads.of(way.origin, route, tls)
                    response = await requests.exchange(pool.connector, head, way.target, request.body)
                else:
                    if tls is None and proxy is not None and proxy.scheme == "https":
                        tls = await self._tls.context(TlsFiles())  # TLS of the proxy
                    response = await _by_session(request, pool.session, proxy, tls)
        except TimeoutError:
            return translate_timeout(request.timeout, exchange, proxy)
        except (aiohttp.ClientError, OSError) as error:
            return translate_fault(error, exchange, proxy)
        finally:
            current_exchange.reset(context)
            pool.in_use -= 1
            pool.last_used = asyncio.get_running_loop().time()
        if proxy is not None and response.status == 407:
            return translate_proxy_refusal(proxy, response.status)
        retry_after = response.headers.get("Retry-After")
        return Answer(
            status=response.status,
            text=_text(response, request) if response.body or response.status in _REDIRECTS else "",
            retry_after=None if retry_after is None else retry_after[:100],
            date=None if retry_after is None else response.headers.get("Date"),
        )

    def _find_way(self, request: Request) -> _Way:
        way = _find_way(request.uri, request.route, past_session=self._past_session)
        if request.body is not None:
            if len(self._ways) >= MAX_WAYS:
                del self._ways[next(iter(self._ways))]
            self._ways[request.uri] = way
        return way

    async def _context(self, request: Request) -> ssl.SSLContext:
        try:
            async with asyncio.timeout(request.timeout):
                return await self._tls.context(request.route.tls)
        except TimeoutError:  # after a start with very many clients with certificates
            text = f"the TLS files were not read within {request.timeout:g} s: others were read before them"
            raise InternalFault(Cause.TLS_FILES, text) from None

    async def _new_pool(self, policy: EgressPolicy | None) -> _Pool:
        """Return a pool for an egress policy, or for all requests through a proxy (None)."""
        await self._close_idle()
        if (existing := self._pools.get(policy)) is not None:  # another task created it meanwhile
            return existing
        assert self._resolver is not None, "open() comes before post()"
        session, connector = new_session(
            policy, self._resolver, _HEADERS, self._open_connections, kept_for=self._kept_for
        )
        now = asyncio.get_running_loop().time()
        heads = requests.Heads(session, dict([_FORM, *_HEADERS.items()]))
        pool = self._pools[policy] = _Pool(session=session, connector=connector, heads=heads, last_used=now)
        return pool

    async def _close_idle(self) -> None:
        """Close idle sessions, whenever a session is created: new policies come only with a new configuration."""
        long_ago = asyncio.get_running_loop().time() - self._session_idle
        for policy, pool in list(self._pools.items()):
            if pool.in_use == 0 and pool.last_used < long_ago:
                del self._pools[policy]
                await pool.session.close()


def _half_of_open_file_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_KEPT_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_KEPT_CONNECTIONS, soft // 2)


async def _by_session(
    request: Request, session: aiohttp.ClientSession, proxy: URL | None, tls: ssl.SSLContext | None
) -> requests.Response:
    url = URL(request.uri, encoded=True)  # the query goes out byte for byte (B4)
    if request.uri.endswith("?") and not url.raw_query_string:
        url = url.with_path(f"{url.raw_path}?", encoded=True)  # yarl would drop it
    response = await session.request(
        "GET" if request.body is None else "POST",
        url,
        data=request.body,
        headers=_headers(request),
        allow_redirects=False,
        ssl=True if tls is None else tls,
        proxy=proxy,
        server_hostname=None if tls is None else (url.raw_host or "").rstrip("."),  # certificates have no final dot
    )
    try:
        requests.refuse_below_100(response.status, response.request_info)
        refused = proxy is not None and response.status == 407
        answered = b"" if refused else await requests.read_body(response.content)
        return requests.Response(status=response.status, headers=response.headers, body=answered)
    finally:
        response.close()  # has no effect if the response was read to its end: such a connection is kept
        if response.status < 200 and (connection := current_exchange.get().connection) is not None:
            connection.abort()  # the rest belongs to another protocol


def _headers(request: Request) -> CIMultiDict[str]:
    """Return the headers of the route, and of a form if there is one. A GET has no type."""
    headers = CIMultiDict(request.route.headers)
    if request.body is None:
        headers.popall(_FORM[0], None)
    else:
        headers.setdefault(*_FORM)
    return headers


def _text(response: requests.Response, request: Request) -> str:
    encoding = response.headers.get("Content-Encoding", "identity")
    plain = encoding.lower() == "identity"
    text = answer_text(response.body, request.secret, request.route) if plain else "[body not decompressed]"
    location = response.headers.get("Location") if response.status in _REDIRECTS else None
    if location is None:
        return text
    path, query, _ = _USER.sub("//", location).partition("?")  # the query of a login page may be confidential
    to = answer_text(f"to {path}{query and '?…'}".encode("utf-8", "surrogateescape"), request.secret, request.route)
    return f"{to}: {text}"[:MAX_TEXT_CHARACTERS] if text else to

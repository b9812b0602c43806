"""Sends logout tokens to clients (B19, R9), each with one deadline, without redirects, cookies and decompression.

Requests under different egress policies never share a connection: each policy has a separate session, which is closed
when it is idle. Within a session, aiohttp shares connections only between requests with the same TLS files and proxy.
"""

import asyncio
import math
import resource
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from notifier import RELEASE
from notifier.model.client import Client, EgressPolicy, Route, TlsFiles
from notifier.model.egress import check_uri
from notifier.model.errors import CancelledRequest, InternalFault
from notifier.model.outcome import Cause, Reason, TransportFailure, TransportResult
from notifier.model.request import Request
from notifier.model.shared_resources import shared_bound
from notifier.network.http import requests
from notifier.network.http.aiohttp_hooks import examine_aiohttp, new_session
from notifier.network.http.client_contexts import CHECK_INTERVAL_SECONDS, TlsContexts, list_files
from notifier.network.http.connections import Exchange, OpenConnections, current_exchange
from notifier.network.http.connector import KEEP_ALIVE_SECONDS, GuardedConnector
from notifier.network.http.faults import translate_fault, translate_proxy_refusal, translate_timeout
from notifier.network.http.name_resolver import NameResolver
from notifier.network.http.response_text import to_http_response

MAX_PLANS = shared_bound(4096)  # URIs whose plans are cached
MAX_KEPT_CONNECTIONS = shared_bound(4096)  # kept alive; half of the process's limit of open files, if that is less

_FORM = ("Content-Type", "application/x-www-form-urlencoded")
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"notifier/{RELEASE}"}


@dataclass(frozen=True, slots=True)
class _RequestPlan:
    """The common part of all requests to one URI by one route. `denied`: why the egress policy denies the requests.

    `tls`: the files of the client or its proxy, None without TLS. `policy`: the egress policy of the session, None with
    a proxy. `origin` and `target`: the parts of the URI. If `origin` is empty, aiohttp's session sends the requests.
    """

    route: Route
    denied: str | None
    tls: TlsFiles | None
    proxy: URL | None
    policy: EgressPolicy | None
    origin: str
    target: str


def _plan_request(uri: str, route: Route, *, bypass_session: bool) -> _RequestPlan:
    denied = check_uri(uri, route.egress)
    proxy = None if route.proxy is None else URL(route.proxy)
    bypasses = bypass_session and denied is None and proxy is None
    origin, target = requests.split_uri(uri) if bypasses else ("", "")
    policy = None if proxy is not None else route.egress
    tls = TlsFiles() if proxy is not None and proxy.scheme == "https" else None
    if uri[:5].lower() == "https":
        tls = route.tls
    return _RequestPlan(route, denied, tls, proxy, policy, origin, target)


@dataclass(slots=True)
class _Pool:
    """A session and its users. `last_used` is by the loop's clock."""

    session: aiohttp.ClientSession
    connector: GuardedConnector
    heads: requests.Heads
    last_used: float
    in_use: int = 0


class RequestDeadline:
    """A context manager that raises TimeoutError in the code inside, a number of seconds after its construction.

    It replaces `asyncio.timeout`, which takes three times as long: 7 µs per request.
    """

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._cancelling, self._has_passed = task, task.cancelling(), False
        self._timer = loop.call_later(seconds, self._on_timeout)

    def _on_timeout(self) -> None:
        self._has_passed = True
        self._task.cancel()

    def __enter__(self) -> None:
        """Do nothing: the time limit runs from the constructor on."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()
        if self._has_passed:
            is_only_cancellation = self._task.uncancel() <= self._cancelling
            if is_only_cancellation and kind is asyncio.CancelledError:
                raise TimeoutError from error


class HttpTransport:
    """Sends the requests of deliveries. It implements the port `Transport` of the delivery.

    Without a `resolver`, `NameResolver` resolves names. An idle connection is kept for `kept_for` seconds, unless more
    than `keep` connections are open. A session may be closed when it is idle for `session_idle` seconds. The functions
    `on_surplus` are called with a client that has sent bytes after its response.
    """

    def __init__(
        self,
        resolver: AbstractResolver | None = None,
        *,
        keep: int | None = None,
        kept_for: float = KEEP_ALIVE_SECONDS,
        session_idle: float = 60.0,
        on_surplus: Sequence[Callable[[Client], None]] = (),
        tls_check_interval: float = CHECK_INTERVAL_SECONDS,
    ) -> None:
        self._given_resolver = resolver
        self._kept_for = kept_for
        self._session_idle = session_idle
        self._bypass_session = False  # see `requests`
        self._resolver: AbstractResolver | None = None
        self._tls = TlsContexts(tls_check_interval)
        keep = int(min(MAX_KEPT_CONNECTIONS, max_open_files() / 2)) if keep is None else keep
        self._open_connections = OpenConnections(keep, on_surplus)
        self._pools: dict[EgressPolicy | None, _Pool] = {}
        self._plans: dict[str, _RequestPlan] = {}  # by URI, only of POSTs, since each GET has a different URI

    @property
    def open_connections(self) -> int:
        """Return the number of open connections, in use or kept alive."""
        return self._open_connections.count

    async def open(self) -> None:
        """Prepare the transport. Call it before the first `post`."""
        self._bypass_session = examine_aiohttp()["requests"].difference is None
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

    async def post(self, request: Request) -> TransportResult:
        """Send the request, and return the response or the reason of a failure.

        Raises InternalFault if the failure is ours: a withheld route, unusable TLS files, or too few open files. The
        client's timeout begins after the TLS files were read.
        """
        route = request.route
        if route.withheld is not None:
            raise InternalFault(Cause.ORIGIN, route.withheld)
        plan = self._plans.get(request.uri)
        if plan is None or plan.route is not route:
            plan = self._make_plan(request)
        if plan.denied is not None:
            return TransportFailure(reason=Reason.EGRESS_DENIED, ambiguous=False, text=plan.denied)
        tls = None if plan.tls is None else await self._tls_context(request, plan.tls)
        proxy = plan.proxy
        exchange = Exchange(request.new_connection, request.client)
        pool = self._pools.get(plan.policy) or await self._new_pool(plan.policy)
        pool.in_use += 1
        context = current_exchange.set(exchange)
        try:
            with RequestDeadline(request.timeout):
                if plan.origin:
                    head = pool.heads.of(plan.origin, route, tls, request.extras.headers)
                    response = await requests.exchange(pool.connector, head, plan.target, request)
                else:
                    response = await _send_by_session(request, pool.session, proxy, tls)
        except TimeoutError:
            return translate_timeout(request.timeout, exchange, proxy)
        except asyncio.CancelledError as error:
            raise CancelledRequest(translate_timeout(None, exchange, proxy)) from error
        except (aiohttp.ClientError, OSError) as error:
            return self._tls.explain(plan.tls, translate_fault(error, exchange, proxy))
        finally:
            current_exchange.reset(context)
            pool.in_use -= 1
            pool.last_used = asyncio.get_running_loop().time()
        if proxy is not None and response.status == 407:
            return translate_proxy_refusal(proxy, response.status)
        return to_http_response(response, request)

    def _make_plan(self, request: Request) -> _RequestPlan:
        plan = _plan_request(request.uri, request.route, bypass_session=self._bypass_session)
        if request.body is not None:
            if len(self._plans) >= MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[request.uri] = plan
        return plan

    async def _tls_context(self, request: Request, files: TlsFiles) -> ssl.SSLContext:
        try:
            async with asyncio.timeout(request.timeout):
                context = await self._tls.context(files)
        except TimeoutError:  # after a start with very many clients with certificates
            names = ", ".join(map(str, list_files(request.route.tls))) or "the system's authorities"
            text = f"the TLS files ({names}) were not read within {request.timeout:g} s"
            raise InternalFault(Cause.TLS_FILES, text) from None
        except asyncio.CancelledError as error:
            raise CancelledRequest(InternalFault(Cause.TLS_FILES, "the TLS files were not read in time")) from error
        request.on_begin()
        return context

    async def _new_pool(self, policy: EgressPolicy | None) -> _Pool:
        """Return a new pool for an egress policy. The policy None is for all requests through a proxy."""
        await self._close_idle()
        existing = self._pools.get(policy)
        if existing is not None:  # another task has created it meanwhile
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
        """Close idle sessions. It is called when a session is created, since then the configuration has changed."""
        idle_since = asyncio.get_running_loop().time() - self._session_idle
        for policy, pool in list(self._pools.items()):
            if pool.in_use == 0 and pool.last_used < idle_since:
                del self._pools[policy]
                await pool.session.close()


def max_open_files() -> float:
    """Return how many files and connections the process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


async def _send_by_session(
    request: Request, session: aiohttp.ClientSession, proxy: URL | None, tls: ssl.SSLContext | None
) -> requests.RawResponse:
    """Send the request by aiohttp's session, as required for a proxy, and return the response."""
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
        is_from_proxy = proxy is not None and response.status == 407
        body = b"" if is_from_proxy else await requests.read_body(response.content)
        return requests.RawResponse(status=response.status, headers=response.headers, body=body)
    finally:
        response.close()  # keeps the connection if the response was read to its end
        connection = current_exchange.get().connection
        if response.status < 200 and connection is not None:
            connection.abort()  # after 101 the connection has another protocol


def _headers(request: Request) -> CIMultiDict[str]:
    """Return the headers of the request and its route. A POST also has a content type; a GET has none."""
    headers = requests.with_headers((_FORM,), (request.extras.headers, request.route.headers))
    if request.body is None:
        headers.popall(_FORM[0])
    if request.extras.authorization:
        headers["Authorization"] = request.extras.authorization
    return headers

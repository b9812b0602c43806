"""Authorizes requests to the API: bearer tokens of `tokens_file`, each with scopes and issuers.

A feature may accept bearer tokens of other systems too. These are checked once, before the limits of requests count
them, and the request keeps the result.

Without a tokens file (only on loopback) every program on the machine has all permissions, but web pages have none. A
page whose host name resolves to loopback (DNS rebinding) can reach the listener with requests without Origin. The
browser sends the page's host name as Host, so only a Host that means this machine everywhere is accepted. Requests for
images and links have no Origin either, but browsers mark them in Sec-Fetch-Site as cross-site or same-site.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from notifier.model.moment import Clock, format_moment_for_people
from notifier.network.listeners.openapi import description_of
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.settings.api_tokens import ApiToken, Scope

LOOPBACK_ONLY_TEXT = "Only this machine is answered: ask for localhost or 127.0.0.1, or configure api.tokens_file"


_NAME = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_ABSOLUTE = re.compile(r"https?://(?P<authority>[^/?#]*)", re.IGNORECASE)
_HOST = re.compile(rf"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>{_NAME})\.?)(?::[0-9]{{1,5}})?")  # RFC 9110 §7.2
# aiohttp 3.13 uses names as keys.
_BEARER_RESULT: Any = getattr(web, "RequestKey", lambda name, _: name)("bearer_result", object)

_FOR_PAGES = "for_pages"
_FOREIGN_SITES = ("cross-site", "same-site")  # a page of another origin (Fetch Metadata)

Tokens = Callable[[], Iterable[ApiToken] | None]
"""Called at each request, since the tokens may have been reloaded; None: no tokens file."""

AuthenticateBearer = Callable[[str], Awaitable[ApiToken | None]]
"""Returns the permissions of another system's bearer token; None if it is unknown. Raises Refusal (401, 403, 503)."""


class Authorization:
    """Finds the token of a request. It keeps no state."""

    def __init__(self, tokens: Tokens, clock: Clock = time.time) -> None:
        self._tokens = tokens
        self._clock = clock

    @web.middleware
    async def local(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Without tokens, refuse other machines and web pages. Raises Refusal (403, 421)."""
        if self._tokens() is None:
            sent_by_page = "Origin" in request.headers or request.headers.get("Sec-Fetch-Site") in _FOREIGN_SITES
            if sent_by_page and not getattr(request.match_info.handler, _FOR_PAGES, False):
                raise Refusal(problem_response(403, "A web page may not use this API"))
            hosts = _hosts_of(request)
            if not hosts or not all(map(is_loopback, hosts)):
                raise Refusal(problem_response(421, LOOPBACK_ONLY_TEXT))
        return await handler(request)

    def require(self, request: web.Request) -> ApiToken | None:
        """Return the token of the request, which must have the scope of the route. None if no token is required.

        Raises Refusal (401, 403, or 503 if another system's token cannot be checked), and LookupError for a route
        without a scope.
        """
        operation = description_of(request.match_info.handler)
        if operation is None or operation.scope is None:
            raise LookupError(f"{request.path} declares no scope")
        token = self._token_with(request, operation.scope)
        if operation.unbound and not permits_all_issuers(token):
            raise Refusal(problem_response(403, "This concerns all issuers: only a token without issuers may do it"))
        return token

    def _token_with(self, request: web.Request, scope: Scope) -> ApiToken | None:
        """Return the valid token of the request, which has the scope; None if no token is required. Raises Refusal."""
        tokens = self._tokens()
        if tokens is None:
            return None
        if isinstance(refusal := request.get(_BEARER_RESULT), Refusal):
            raise refusal
        token = bearer_of(request, tokens)
        if token is None:
            given = "Authorization" in request.headers
            title = (
                "The API does not know this token" if given else "The API requires a token in the header Authorization"
            )
            raise unauthorized(title, given=given)
        if token.expires is not None and token.expires <= self._clock():
            raise unauthorized(f"The token has expired at {format_moment_for_people(token.expires)}")
        if scope not in token.scopes:
            headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
            raise Refusal(problem_response(403, f"The token lacks the scope {scope}", headers=headers))
        return token


def allow_for_pages(handler: Handler) -> Handler:
    """Permit web pages to call this handler: it holds no secret. Scripts of a page's own origin send Origin too."""
    setattr(handler, _FOR_PAGES, True)
    return handler


def _hosts_of(request: web.Request) -> Sequence[str]:
    """Return the host that the request is for. A whole URL in its first line overrides `Host` (RFC 9112 §3.2.2)."""
    if request.raw_path.startswith("/"):
        return request.headers.getall("Host", ())
    target = _ABSOLUTE.match(request.raw_path)
    return () if target is None else (target["authority"],)


def is_loopback(host: str) -> bool:
    """True if a `Host` means this machine everywhere: localhost (RFC 6761 §6.3), 127.0.0.0/8, [::1]; with any port."""
    match = _HOST.fullmatch(host.lower())
    if match is None:
        return False
    try:
        if match["ipv6"] is not None:
            return IPv6Address(match["ipv6"]) == IPv6Address("::1")
        name = match["name"]
        return name == "localhost" or name.endswith(".localhost") or IPv4Address(name).is_loopback
    except AddressValueError:
        return False


def name_of_caller(token: ApiToken | None) -> str:
    """Return the name of the caller, for the audit."""
    return "anyone (no tokens_file)" if token is None else token.name


def permits_issuer(token: ApiToken | None, iss: str) -> bool:
    """True if the token covers this issuer."""
    return token is None or token.issuers is None or iss in token.issuers


def permits_all_issuers(token: ApiToken | None) -> bool:
    """True if the token covers all issuers."""
    return token is None or token.issuers is None


def unauthorized(title: str, *, given: bool = True) -> Refusal:
    """Return the refusal (401) of a request without a valid token. `given`: it has an invalid one."""
    challenge = 'Bearer error="invalid_token"' if given else "Bearer"
    return Refusal(problem_response(401, title, headers={"WWW-Authenticate": challenge}))


def authenticate_other_bearers(tokens: Tokens, authenticate_bearer: AuthenticateBearer) -> Middleware:
    """Return a middleware that checks bearer tokens other than `tokens`, and stores the result in the request.

    A refusal is raised later, and only by routes that require a token.
    """

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, credentials = _credentials(request)
        if scheme == "bearer" and bearer_of(request, tokens() or ()) is None:
            try:
                request[_BEARER_RESULT] = await authenticate_bearer(credentials)
            except Refusal as refusal:
                request[_BEARER_RESULT] = refusal
        return await handler(request)

    return authenticate


def bearer_of(request: web.Request, tokens: Iterable[ApiToken]) -> ApiToken | None:
    """Return the known token of the request, which may be from another system; None without a known token."""
    if isinstance(token := request.get(_BEARER_RESULT), ApiToken):
        return token
    scheme, credentials = _credentials(request)
    return find_token(credentials.encode("utf-8", "surrogateescape"), tokens) if scheme == "bearer" else None


def find_token(credentials: bytes, tokens: Iterable[ApiToken]) -> ApiToken | None:
    """Return the token, None if it is unknown. It compares the digests of all tokens, so the time reveals nothing."""
    digest = hashlib.sha256(credentials).digest()
    match = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, digest):
            match = token
    return match


def _credentials(request: web.Request) -> tuple[str, str]:
    """Return the scheme in lower case and the credentials of the header Authorization.

    Both are empty if there are several such headers, because a proxy may have checked another one.
    """
    headers = request.headers.getall("Authorization", ())
    header = headers[0] if len(headers) == 1 else ""
    scheme, _, credentials = header.partition(" ")
    return scheme.lower(), credentials.strip()

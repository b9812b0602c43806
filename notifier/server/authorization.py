"""Who may do what at the API: bearer tokens of `tokens_file`, each with scopes and the issuers it may speak for.

Without a tokens file (on loopback alone) anyone may do everything, except a web page: one whose name was rebound to
loopback reaches the listener too, but its browser still says Origin.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from aiohttp import web

from notifier.server.problem import Refusal, problem

Scope = Literal["publish", "read", "repair"]


class ApiToken(Protocol):
    """A bearer token as configured. `issuers` None: it may speak for any; `sha256` is the digest of the token."""

    @property
    def name(self) -> str:
        """Who bears it: the `publisher` of its events, and who did it in the audit."""

    @property
    def sha256(self) -> bytes:
        """The SHA-256 digest of the token."""

    @property
    def scopes(self) -> frozenset[str]:
        """What it may do."""

    @property
    def issuers(self) -> frozenset[str] | None:
        """Whom it may speak for, and of whom it may see and repair what there is."""


Tokens = Callable[[], Iterable[ApiToken] | None]
"""Asked at each request, since they may have been reloaded; None: no tokens file."""


class Authorization:
    """Says of each request whose it is. Files of routes share one, or have one each: it keeps nothing."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def require(self, request: web.Request, scope: Scope) -> ApiToken | None:
        """The token of the request, None where none is needed. Raises Refusal: 401, 403."""
        tokens = self._tokens()
        if tokens is None:
            if "Origin" in request.headers:
                raise Refusal(problem(403, "A web page may not use this API"))
            return None
        token = bearer_of(request, tokens)
        if token is None:
            challenge = "Bearer" if "Authorization" not in request.headers else 'Bearer error="invalid_token"'
            title = "A bearer token of tokens_file is required"
            raise Refusal(problem(401, title, headers={"WWW-Authenticate": challenge}))
        if scope not in token.scopes:
            headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
            raise Refusal(problem(403, f"The token lacks the scope {scope}", headers=headers))
        return token


def concerns(token: ApiToken | None, iss: str) -> bool:
    """Whether what belongs to this issuer is the bearer's business."""
    return token is None or token.issuers is None or iss in token.issuers


def bearer_of(request: web.Request, tokens: Iterable[ApiToken]) -> ApiToken | None:
    """Whose the request is. Every token is compared, and digests at that: the time taken tells nothing."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    digest = hashlib.sha256(credentials.strip().encode("utf-8", "surrogateescape")).digest()
    found = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, digest):
            found = token
    return found if scheme.lower() == "bearer" else None

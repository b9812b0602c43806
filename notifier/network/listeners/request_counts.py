"""Counts requests to the API, and reports publishers whose requests it refuses.

A publisher may drop a refused event or set it aside, and few publishers log the response. So each refusal on a route
for publishers, and of a POST to a missing path, is logged and becomes a problem for half an hour, as in the alert. On
other routes an operator reads the response.

Strangers can reach the listener, so a few refusals without a token are no problem. Labels are from closed sets: a route
under `/v1/` or `other`, a class of status, and a token of the tokens file, `none`, or `oidc` for all who are signed in
at a provider. All series without a token exist from the start, so a stranger adds none. All requests without a token
share one log line a minute.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.model.moment import Clock, MinuteLimit
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.listeners.authorization import Tokens, bearer_of
from notifier.network.listeners.openapi import description_of
from notifier.network.listeners.problem import Refusal, is_of_closed_connection

NO_TOKEN = "none"  # noqa: S105  a label
SIGNED_IN = "oidc"  # tokens of a provider, which name users
OTHER_ROUTE = "other"
BUSY = "429"  # a class of its own, since publishers repeat the request
STATUS_CLASSES = ("2xx", "3xx", "4xx", BUSY, "5xx")
REFUSAL_MINUTES = 30  # after which a refusal is forgotten, as in the alert NotifierPublisherRefused
MIN_STRANGE_REFUSALS = 6  # without a token, at all workers; fewer are no problem and no alert
_REPEATED_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_MISSING_STATUSES = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_MISSING_ROUTES = (OTHER_ROUTE, "POST /v1/events/{source}")


@dataclass(slots=True)
class _Refusals:
    """The counts of the last REFUSAL_MINUTES minutes, and the last reason."""

    counts: dict[int, int] = field(default_factory=dict)
    reason: str = ""

    def add(self, now: float, reason: str) -> None:
        minute = int(now // 60)
        self.counts[minute] = self.counts.get(minute, 0) + 1
        self.reason = reason

    def forget_old(self, now: float) -> None:
        self.counts = {minute: count for minute, count in self.counts.items() if minute > now // 60 - REFUSAL_MINUTES}


class RequestCounts:
    """Counts the requests to the API by route, class of status and token. `clock` is the wall clock."""

    def __init__(self, tokens: Tokens, clock: Clock, monotonic: Clock = time.monotonic) -> None:
        self._tokens = tokens
        self._clock = clock
        self._counts: dict[tuple[str, str, str], int] = {}
        self._publisher_routes = {OTHER_ROUTE}
        self._refusals: dict[tuple[str, str], _Refusals] = {}  # by token and route
        self._log_limit = MinuteLimit(monotonic)

    def add_routes(self, routes: Iterable[web.RouteDef]) -> None:
        """Start the series of requests without a token to these routes at zero."""
        for route in routes:
            if _is_for_publishers(route.handler):
                self._publisher_routes.add(_name_route(route.method, route.path))
        names = {OTHER_ROUTE, *(_name_route(route.method, route.path) for route in routes)}
        self._counts |= {(name, status, NO_TOKEN): 0 for name in names for status in STATUS_CLASSES}

    def by_labels(self) -> Mapping[tuple[str, str, str], int]:
        """Return the counts by route, class of status and token. The refusals of each token start at zero."""
        if not self._counts:
            return {}
        tokens = [token.name for token in self._tokens() or ()]
        return {(route, "4xx", name): 0 for route in self._publisher_routes for name in tokens} | self._counts

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve the request and count it."""
        try:
            response = await handler(request)
        except Refusal as refusal:
            self._count(request, refusal.response.status, refusal)
            raise
        except web.HTTPException as error:
            self._count(request, error.status)
            raise
        except Exception as error:
            if not is_of_closed_connection(error, request):
                self._count(request, HTTPStatus.INTERNAL_SERVER_ERROR)
            raise
        self._count(request, response.status)
        return response

    def _count(self, request: web.Request, status: int, refusal: Refusal | None = None) -> None:
        match = request.match_info
        resource = match.route.resource
        route = OTHER_ROUTE if resource is None else _name_route(match.route.method, resource.canonical)
        tokens = tuple(self._tokens() or ())
        token = bearer_of(request, tokens)
        name = NO_TOKEN if token is None else token.name if token in tokens else SIGNED_IN
        key = (route, BUSY if status == HTTPStatus.TOO_MANY_REQUESTS else f"{status // 100}xx", name)
        self._counts[key] = self._counts.get(key, 0) + 1
        if 400 <= status < 500 and status not in _REPEATED_STATUSES:
            is_missing = request.method == "POST" and status in _MISSING_STATUSES
            if _is_for_publishers(match.handler) or (is_missing and route in _MISSING_ROUTES):
                self._report(request, (name, route), status, refusal)

    def _report(self, request: web.Request, key: tuple[str, str], status: int, refusal: Refusal | None) -> None:
        """Record a refusal. Log it once a minute for each token and reason, or for all requests without a token."""
        now, (token, route) = self._clock(), key
        # The title contains nothing of the event, which may name a user.
        text = HTTPStatus(status).phrase if refusal is None else json.loads(refusal.response.text or "")["title"]
        refusals = self._refusals.setdefault(key, _Refusals())
        refusals.forget_old(now)
        refusals.add(now, f"{status}, {text}")
        kind = (token,) if token == NO_TOKEN else (token, route, text)
        if self._log_limit.allows(*kind):
            self._log_limit.on_logged(*kind)
            members = {} if refusal is None else refusal.log_members
            structlog.get_logger().warning(
                "publisher_refused", publisher=token, route=route, status=status, reason=text, peer=request.remote,
                **members,
            )  # fmt: skip

    def troubles(self) -> Iterator[Trouble]:
        """Yield a trouble for each token and route with a refusal in the last half hour."""
        for refusals in self._refusals.values():
            refusals.forget_old(self._clock())
        self._refusals = {key: refusals for key, refusals in self._refusals.items() if refusals.counts}
        for (token, route), refusals in self._refusals.items():
            who = "without a token of api.tokens_file" if token == NO_TOKEN else f"of the token {token}"
            yield Trouble(
                kind=TroubleKind.PUBLISHER_REFUSED,
                text=f"requests {who} to {route} get {refusals.reason}; the publisher keeps or drops these events",
                since=60.0 * min(refusals.counts), subject=f"{token}, {route}", count=sum(refusals.counts.values()),
                min_count=MIN_STRANGE_REFUSALS if token == NO_TOKEN else 0,
            )  # fmt: skip


def _name_route(method: str, path: str) -> str:
    """Return the label of a route. HEAD counts as GET."""
    return f"{'GET' if method == 'HEAD' else method} {path}" if path.startswith("/v1/") else OTHER_ROUTE


def _is_for_publishers(handler: Callable[..., Any]) -> bool:
    operation = description_of(handler)
    return operation is not None and operation.scope == "publish"

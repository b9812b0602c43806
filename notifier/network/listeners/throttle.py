"""Limits concurrent requests, in total and for each token, so that no publisher excludes others.

Each request may hold an event in memory. A request beyond the limits gets 429 and `Retry-After`, before its body is
read. Requests to `/v1/events/{source}` have no token: these routes have separate slots for each source.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.network.listeners.authorization import Tokens, bearer_of
from notifier.network.listeners.problem import Refusal, problem_response

RETRY_AFTER_SECONDS = "1"  # seconds
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


def with_own_slots(handler: HandlerT) -> HandlerT:
    """Mark a handler that limits its concurrent requests by itself, so that requests of other routes never delay it."""
    handler.__dict__["has_own_slots"] = True
    return handler


class RequestSlots:
    """Slots for `max_total` concurrent requests, of which each name can hold `max_of_name`.

    `remark` follows "too many requests at a time" in the refusal of a request that exceeds the limit of its name.
    """

    def __init__(self, max_total: int, max_of_name: int, remark: str) -> None:
        self._max_total, self._max_of_name, self._remark = max_total, max_of_name, remark
        self._total = 0
        self._of_name: Counter[str] = Counter()

    @contextmanager
    def hold_slot(self, name: str | None) -> Iterator[None]:
        """Hold a slot while the block runs. With a name, it also counts against the limit of that name.

        Raises Refusal (429).
        """
        if self._total >= self._max_total:
            raise _refuse_too_many("")
        if name is not None and self._of_name[name] >= self._max_of_name:
            raise _refuse_too_many(f" {self._remark}")
        self._total += 1
        if name is not None:
            self._of_name[name] += 1
        try:
            yield
        finally:
            self._total -= 1
            if name is not None:
                self._of_name[name] -= 1
                if not self._of_name[name]:
                    del self._of_name[name]


class Throttle:
    """Limits the concurrent requests of an application, and the time of a body to `body_within` seconds.

    Handlers marked by `with_own_slots` take none of its slots.
    """

    def __init__(self, tokens: Tokens, max_total: int, max_of_token: int, body_within: float) -> None:
        self._tokens = tokens
        self._body_within = body_within
        self._slots = RequestSlots(max_total, max_of_token, "with this token")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve the request. Return 408 if its body was cut off. Raises Refusal (429)."""
        with self._hold_slot(request):
            timer = asyncio.get_running_loop().call_later(self._body_within, _abort_slow_body, request)
            try:
                return await handler(request)
            except ConnectionResetError:  # the body was cut off: the client does not read the response
                return problem_response(408, "The body did not come")
            finally:
                timer.cancel()

    def _hold_slot(self, request: web.Request) -> AbstractContextManager[None]:
        if getattr(request.match_info.handler, "has_own_slots", False):
            return nullcontext()
        token = bearer_of(request, self._tokens() or ())
        return self._slots.hold_slot(None if token is None else token.name)


def _abort_slow_body(request: web.Request) -> None:
    """Close the connection if the body of the request is not complete."""
    if not request.content.is_eof() and request.transport is not None:
        request.transport.abort()


def _refuse_too_many(remark: str) -> Refusal:
    title = f"Too many requests at a time{remark}; try again soon"
    return Refusal(problem_response(429, title, headers={"Retry-After": RETRY_AFTER_SECONDS}))

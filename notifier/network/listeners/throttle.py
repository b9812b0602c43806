"""Limits concurrent requests, in total and for each token, so that no publisher excludes others.

Each request may hold an event in memory. A request beyond the limits gets 429 and `Retry-After`, before its body is
read. Requests to `/v1/events/{source}` have no token: these routes have separate slots for each source.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.network.listeners.authorization import Tokens, bearer_of
from notifier.network.listeners.problem import Refusal, problem_response

RETRY_AFTER_SECONDS = "1"  # seconds


class RequestSlots:
    """Slots for `most` concurrent requests, of which each name can hold `most_of_each`.

    `whose` describes, in the refusal, the requests of one name.
    """

    def __init__(self, most: int, most_of_each: int, whose: str) -> None:
        self._most, self._most_of_each, self._whose = most, most_of_each, whose
        self._taken = 0
        self._of_each: Counter[str] = Counter()

    @contextmanager
    def hold_slot(self, name: str | None) -> Iterator[None]:
        """Hold a slot while the block runs. With a name, it also counts against the limit of that name.

        Raises Refusal (429).
        """
        if self._taken >= self._most:
            raise _refuse_too_many("")
        if name is not None and self._of_each[name] >= self._most_of_each:
            raise _refuse_too_many(f" {self._whose}")
        self._taken += 1
        if name is not None:
            self._of_each[name] += 1
        try:
            yield
        finally:
            self._taken -= 1
            if name is not None:
                self._of_each[name] -= 1
                if not self._of_each[name]:
                    del self._of_each[name]


class Throttle:
    """Counts running requests. A route may give a body less time than `body_within` seconds, not more."""

    def __init__(self, tokens: Tokens, most: int, most_of_token: int, body_within: float) -> None:
        self._tokens = tokens
        self._body_within = body_within
        self._slots = RequestSlots(most, most_of_token, "with this token")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve the request. Raises Refusal (429)."""
        token = bearer_of(request, self._tokens() or ())
        with self._slots.hold_slot(None if token is None else token.name):
            impatience = asyncio.get_running_loop().call_later(self._body_within, _give_up, request)
            try:
                return await handler(request)
            except ConnectionResetError:  # the body was cut off: the client does not read the response
                return problem_response(408, "The body did not come")
            finally:
                impatience.cancel()


def _give_up(request: web.Request) -> None:
    """Close the connection of a slow body after the time, on any route."""
    if not request.content.is_eof() and request.transport is not None:
        request.transport.abort()


def _refuse_too_many(whose: str) -> Refusal:
    return Refusal(
        problem_response(
            429, f"Too many requests at a time{whose}; try again soon", headers={"Retry-After": RETRY_AFTER_SECONDS}
        )
    )

"""Limits concurrent requests, in all and for each token, so that no publisher keeps others out.

Each request may hold an event in memory. A request beyond the limits gets 429 and `Retry-After`, before its body is
read. All sources (`/v1/events/{source}`) together have the limits of one token, since some bodies must be read before
the sender is known.
"""

import asyncio
from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.network.listeners.authorization import Tokens, bearer_of
from notifier.network.listeners.problem import problem

AGAIN = "1"  # seconds
_SOURCES = ""  # no token has this name


class Throttle:
    """Counts running requests. A route may give a body less time than `body_within` seconds, not more."""

    def __init__(self, tokens: Tokens, most: int, most_of_token: int, body_within: float) -> None:
        self._tokens = tokens
        self._body_within = body_within
        self._most, self._most_of_token = most, most_of_token
        self._running = 0
        self._of_token: Counter[str] = Counter()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve the request, or refuse it."""
        if self._running >= self._most:
            return _too_many("Too many requests at a time; try again soon")
        name = self._name_of(request)
        if name is not None and self._of_token[name] >= self._most_of_token:
            whose = "of sources" if name == _SOURCES else "with this token"
            return _too_many(f"Too many requests at a time {whose}; try again soon")
        self._running += 1
        if name is not None:
            self._of_token[name] += 1
        impatience = asyncio.get_running_loop().call_later(self._body_within, _give_up, request)
        try:
            return await handler(request)
        except ConnectionResetError:  # the body was cut off: nobody reads the answer
            return problem(408, "The body did not come")
        finally:
            impatience.cancel()
            self._running -= 1
            if name is not None:
                self._of_token[name] -= 1
                if not self._of_token[name]:
                    del self._of_token[name]

    def _name_of(self, request: web.Request) -> str | None:
        if "source" in request.match_info:
            return _SOURCES
        token = bearer_of(request, self._tokens() or ())
        return None if token is None else token.name


def _give_up(request: web.Request) -> None:
    """Close the connection of a slow body after this time, on any route."""
    if not request.content.is_eof() and request.transport is not None:
        request.transport.abort()


def _too_many(title: str) -> web.Response:
    return problem(429, title, headers={"Retry-After": AGAIN})

"""`POST /v1/events`: events over HTTP, for identity servers that speak no AMQP. 202 means that the event is durable.

What stands between a stranger and the queue, in this order: the number of requests at a time, the token, the kind of
the body (a browser's form or `no-cors` request can send none of those taken), its size and pace, the event itself,
and who may speak for its issuer. The first 20 mistakes are told at once, since the publisher is there to read them.

Of large events few are at hand, and one is read at every third turn of the loop: see `pipeline.selection`. The others
wait with their body alone, no longer than the queue is waited for.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from aiohttp import web

from notifier.domain.errors import MalformedEvent, Mistake, QueueError
from notifier.domain.event_document import read_event
from notifier.domain.message import Lane, Message
from notifier.domain.outcome import DeadReason
from notifier.domain.plan import may_speak
from notifier.domain.printable import json_text
from notifier.domain.registry import Registry
from notifier.domain.session_ended import SessionEnded
from notifier.operations.waiting import Waits
from notifier.pipeline.selection import OPENED_EVERY
from notifier.server.authorization import Authorization, Bearer, Tokens, concerns
from notifier.server.openapi import CLOUDEVENT, EVENT, AnswerDescription, OperationDescription, described, openapi_route
from notifier.server.problem import Refusal, problem, problems
from notifier.server.publishers.waiting import ACCOUNT, WAIT, asked_to_wait, told
from notifier.server.throttle import Throttle

_KINDS = ("application/json", "application/cloudevents+json")
BODY_LATER = 2.0  # seconds after a route's own deadline for its body, the connection is closed
LARGE = 4 * 1024  # bytes of a body: the worst take 0.4 ms to read, and 256 of them may come at once
AT_HAND = 8
_LANES = {"events": Lane.EVENTS, "bulk": Lane.BULK}


class Accept(Protocol):
    """The way into the queue."""

    async def __call__(self, event: SessionEnded, lane: Lane) -> None:
        """Return once the event is durable in that lane. Raises QueueError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the listener bears. Seconds, bytes, requests at a time."""

    max_event: int = 131_072
    body_timeout: float = 10.0
    accept_timeout: float = 5.0
    requests: int = 256
    requests_of_token: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is asked at each request, since it may have been reloaded; `tokens` None: anyone may publish (loopback).

    `waits` None: whoever asks to wait is answered at once.
    """

    registry: Callable[[], Registry]
    tokens: Tokens
    clock: Callable[[], float]
    new_id: Callable[[], str]
    waits: Waits | None = None


def api_app(
    accept: Accept, sources: Sources, limits: Limits | None = None, more: Iterable[web.RouteDef] = ()
) -> web.Application:
    """The application. `more` are the routes of other files, under the same limits; each authorises for itself."""
    api = _Api(accept, sources, limits or Limits())
    limits = api.limits
    throttle = Throttle(sources.tokens, limits.requests, limits.requests_of_token, limits.body_timeout + BODY_LATER)
    guards = [problems, Authorization(sources.tokens).local, throttle.middleware]
    app = web.Application(client_max_size=api.limits.max_event, middlewares=guards)
    routes = [web.post("/v1/events", api.post_event), *more]
    app.add_routes([*routes, openapi_route(routes)])
    return app


_ID: Mapping[str, object] = {"type": "string", "description": "Given, or made up: a copy bears the same."}
_POST_EVENT = OperationDescription(
    summary="Publish one event: a session ended. It is durable once it is answered.",
    scope="publish",
    query={"lane": {"type": "string", "enum": list(_LANES), "default": "events"}, "wait": WAIT},
    body={"application/json": EVENT, "application/cloudevents+json": CLOUDEVENT},
    answers={
        200: AnswerDescription(text="With wait: the last word on every client was said.", schema=ACCOUNT),
        202: AnswerDescription(
            text="It is durable. With wait: what became of it so far.",
            schema={"type": "object", "required": ["id"], "properties": {"id": _ID}},
        ),
    },
    problems={
        400: "The event or the request is malformed; the first 20 mistakes are told, and how many more.",
        408: "The body did not come in time.",
        413: "The event is too large.",
        415: "The body is of another kind, or compressed.",
        503: "The queue is away.",
    },
)


class _Api:
    def __init__(self, accept: Accept, sources: Sources, limits: Limits) -> None:
        self.limits = limits
        self._accept = accept
        self._sources = sources
        self._authorization = Authorization(sources.tokens)
        self._desk = asyncio.Semaphore(AT_HAND)
        self._reading = asyncio.Lock()

    @described(_POST_EVENT)
    async def post_event(self, request: web.Request) -> web.Response:
        """Take one event."""
        token = self._authorization.require(request, "publish")
        lane, seconds = _lane(request), asked_to_wait(request)
        _check_kind(request)
        body = await self._read(request)
        waits = None if seconds is None else self._sources.waits
        wait = None if waits is None else waits.begin()
        try:
            async with self._at_hand(body):
                event = self._understand(request, body, token)
                self._check_issuer(event, token)
                event_id = event.id
                await self._take(event if wait is None else replace(event, reply_to=wait.address), lane)
                del event  # what waits for fates holds nothing of it
            if seconds is None:
                return web.json_response({"id": event_id}, status=202, dumps=json_text)
            if wait is None:
                return told(event_id, None)
            await wait.over(seconds)
            return told(event_id, wait.account)
        finally:
            if waits is not None and wait is not None:
                waits.end(wait)

    @asynccontextmanager
    async def _at_hand(self, body: bytes) -> AsyncIterator[None]:
        """Hold one of the few places for large events. Raises Refusal where none is free in time."""
        if len(body) <= LARGE:
            yield
            return
        try:
            async with asyncio.timeout(self.limits.accept_timeout):
                await self._desk.acquire()
        except TimeoutError:
            title = "The queue is slow, and other large events wait for it; send the event again"
            raise Refusal(problem(503, title, headers={"Retry-After": "5"})) from None
        try:
            async with self._reading:
                for _ in range(OPENED_EVERY):
                    await asyncio.sleep(0)
            yield
        finally:
            self._desk.release()

    async def _take(self, event: SessionEnded, lane: Lane) -> None:
        try:
            async with asyncio.timeout(self.limits.accept_timeout):
                await self._accept(event, lane)
        except (QueueError, TimeoutError):
            # It may be in the queue all the same, if only the confirm was lost: hence the id.
            title = f"The queue is away; send the event again, with the id {event.id} so that a copy is known"
            raise Refusal(problem(503, title, headers={"Retry-After": "5"})) from None

    async def _read(self, request: web.Request) -> bytes:
        size = request.content_length
        if size is not None and size > self.limits.max_event:
            raise web.HTTPRequestEntityTooLarge(self.limits.max_event, size)
        try:
            async with asyncio.timeout(self.limits.body_timeout):
                return await request.read()
        except TimeoutError:
            raise Refusal(_closing(problem(408, "The body did not come in time"))) from None
        except web.RequestPayloadError:
            raise Refusal(_closing(problem(400, "The body is broken HTTP"))) from None

    def _understand(self, request: web.Request, body: bytes, token: Bearer | None) -> SessionEnded:
        """The event, with every entry right. Its id is ours once, where it came without, and is kept from then on."""
        message = Message(
            lane=Lane.EVENTS,
            body=body,
            tag=None,
            content_type=request.headers["Content-Type"],
            headers={
                name.lower(): value
                for name, value in request.headers.items()
                if name.lower().startswith("ce-") or name.lower() == "traceparent"
            },
            user_id=token.name if token is not None else None,
        )
        sources = self._sources
        try:
            event = read_event(message, max_bytes=self.limits.max_event, new_id=sources.new_id, now=sources.clock())
        except MalformedEvent as error:
            raise Refusal(problem(400, "The event is malformed", mistakes=error.mistakes)) from None
        return replace(event, id_given=True)

    def _check_issuer(self, event: SessionEnded, token: Bearer | None) -> None:
        if not concerns(token, event.iss):
            raise Refusal(problem(403, "The token may not speak for this issuer"))
        issuer = self._sources.registry().issuers.get(event.iss)
        if issuer is None:
            mistake = Mistake("iss", "not one of the configured issuers")
            raise Refusal(problem(400, "The event is malformed", mistakes=[mistake]))
        objection = may_speak(event, issuer)
        if objection is None:
            return
        if objection.reason is DeadReason.PUBLISHER_NOT_ALLOWED:
            raise Refusal(problem(403, "This publisher may not speak for this issuer"))
        raise Refusal(problem(400, "The event is malformed", mistakes=[Mistake("type", objection.text)]))


def _lane(request: web.Request) -> Lane:
    lane = _LANES.get(request.query.get("lane", "events"))
    if lane is None:
        mistake = Mistake("lane", f"must be one of {', '.join(_LANES)}")
        raise Refusal(problem(400, "The request is malformed", mistakes=[mistake]))
    return lane


def _check_kind(request: web.Request) -> None:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise Refusal(problem(415, f"The body must be {' or '.join(_KINDS)}", headers={"Accept": ", ".join(_KINDS)}))
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(problem(415, "The body must not be compressed", headers={"Accept-Encoding": "identity"}))


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response

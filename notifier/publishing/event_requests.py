"""`POST /v1/events`: receives one event per request, checks it, and makes it durable before the response.

The checks are, in this order: the number of running requests, the token, the content type (a browser's form or
`no-cors` request cannot send an accepted type), the size and pace of the body, the event itself, and whether the
publisher is allowed for the issuer. A refusal lists the first 20 mistakes.

Reading a large event blocks the event loop. So only a few are read at a time, half of them of one token at most, after
several rounds of the event loop (see `messages/selection.py`). Other requests hold their body, and wait for the queue.

With `wait` the response has the results at the clients so far. 200 means that the result at every client is final; 202
means that more may follow. The event is durable in both cases. If too many requests already wait, 202 comes at once.

A `note` in the response points out what the publisher probably did not intend.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, NotRequired

from aiohttp import web
from pydantic import Field

from notifier.delivery.facts import Observer
from notifier.messages.event_clients import find_publisher_objection
from notifier.messages.replacements import to_members_misspelt
from notifier.messages.selection import LARGE_ROUNDS
from notifier.model.documents.event_document import read_event
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.message import Lane, Message
from notifier.model.nearest import suggest_issuer
from notifier.model.outcome import DeadReason
from notifier.model.printable import excerpt, json_text
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded
from notifier.model.shared_resources import shared_lock, shared_slots
from notifier.network.listeners.authorization import (
    AuthenticateBearer,
    Authorization,
    Tokens,
    authenticate_other_bearers,
    permits_issuer,
)
from notifier.network.listeners.openapi import (
    CLOUDEVENT,
    EVENT,
    JsonSchema,
    OperationDescription,
    check_query,
    openapi_route,
)
from notifier.network.listeners.operation import Items, to_answer
from notifier.network.listeners.problem import (
    Refusal,
    answer_refusals,
    forbid_caching,
    malformed_refusal,
    problem_response,
)
from notifier.network.listeners.request_counts import RequestCounts
from notifier.network.listeners.throttle import Throttle
from notifier.publishing.event_remarks import remark_members, remark_unknown_clients
from notifier.publishing.notice_wait import MAX_WAIT_SECONDS, EventNotices, WaitingRequests, parse_wait
from notifier.publishing.route_steps import (
    BODY_RETRY_SECONDS,
    LANES,
    RETRY_AFTER_SECONDS,
    ApiLimits,
    media_type,
    publish_in_time,
    read_body,
    read_lane,
    refuse_compressed,
)
from notifier.settings.api_tokens import ApiToken

LARGE_BODY_BYTES = 4 * 1024  # bytes of a body: the worst take 0.4 ms to read, and 256 may arrive at once
MAX_LARGE_EVENTS = 8
MAX_LARGE_OF_ONE = 4  # further ones wait for these, so that they are not before those of others

_WAIT: Mapping[str, object] = {
    "type": "string",
    "pattern": r"^(0|[0-9]{1,3}(\.[0-9]{1,3})?(ms|s))$",
    "description": f"How long to wait for the results: at most {MAX_WAIT_SECONDS:.0f}s.",
    "examples": ["500ms", "5s"],
}
QUERY: Mapping[str, JsonSchema] = {"lane": {"type": "string", "enum": list(LANES), "default": "events"}, "wait": _WAIT}
BODY: Mapping[str, JsonSchema] = {"application/json": EVENT, "application/cloudevents+json": CLOUDEVENT}
NoteText = Annotated[str, Field(description="Remarks on probable mistakes. The event is durable nevertheless.")]
EventIdText = Annotated[str, Field(description="The id of the event. A copy has the same id.")]
PROBLEMS: Mapping[int, str] = {
    400: "The event or the request is malformed. The answer lists the first 20 mistakes and counts the rest.",
    408: "The body did not arrive in time.",
    413: "The event is too large.",
    415: "The content type is not supported, or the body is compressed.",
    503: "The queue is unavailable. Send the event again.",
}

AcceptEvent = Callable[[SessionEnded, Lane], Awaitable[None]]
"""Publishes an event to a lane. Returns once the event is durable. Raises QueueError."""

Prepare = Callable[[SessionEnded], Mapping[str, object]]
"""Returns the members of the response beside the event's id. Called before publishing; raises Refusal to prevent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSources:
    """The dependencies of requests, as functions where a reload may change the value.

    Without tokens, any program on the machine may publish. Without `waiting`, a request with `wait` does not wait.
    `counts` counts the requests.
    """

    registry: Callable[[], Registry]
    tokens: Tokens
    clock: Callable[[], float]
    new_id: Callable[[], str]
    counts: RequestCounts
    waiting: WaitingRequests | None = None
    observe: Observer = lambda _: None


class EventRequests:
    """Accepts events from requests. All routes that accept events share its limit of concurrent large events."""

    def __init__(self, accept: AcceptEvent, sources: ApiSources, limits: ApiLimits | None = None) -> None:
        self.limits = ApiLimits() if limits is None else limits
        self.sources = sources
        self._accept = accept
        self._authorization = Authorization(sources.tokens)
        self._large = shared_slots(MAX_LARGE_EVENTS)
        self._large_of_token: dict[str | None, asyncio.Semaphore] = defaultdict(lambda: shared_slots(MAX_LARGE_OF_ONE))
        self._spacing = shared_lock()  # held while the event loop runs other work before a large event

    async def take(self, request: web.Request, prepare: Prepare = lambda _: {}) -> web.Response:
        """Publish the request's event, and return the response with the members of `prepare`. Raises Refusal."""
        token = self._authorization.require(request)
        lane, seconds = read_lane(request), _read_wait_seconds(request)
        _check_media_type(request)
        body = await read_body(request, self.limits)
        waiting = self.sources.waiting
        with nullcontext() if seconds is None or waiting is None else waiting.admit() as admitted:
            reply_to, wait = (None, None) if admitted is None else admitted
            async with self._slot_for(body, token):
                event = self._parse(request, body, token)
                self._check_issuer(event, token)
                document = {"id": event.id, **prepare(event)}
                notes = [str(document["note"])] if "note" in document else []
                registry = self.sources.registry()
                accepts = registry.accepts_overrides(event.iss, event.publisher, vouched=event.vouched)
                notes += remark_members(event)
                if event.misspelt:
                    self.sources.observe(to_members_misspelt(event))
                notes += remark_unknown_clients(event, registry, accepts_addresses=accepts)
                document |= {"note": "; ".join(notes)} if notes else {}
                await self._publish(event if reply_to is None else replace(event, reply_to=reply_to), lane)
                del event  # so that a request that waits keeps no part of it in memory
            if seconds is None:
                return web.json_response(document, status=202, dumps=json_text)
            notices = EventNotices()
            if wait is not None:
                await wait.wait(seconds)
                (notices,) = wait.events.values()
            status = 200 if notices.settled else 202
            return web.json_response({**document, **notices.document()}, status=status, dumps=json_text)

    @asynccontextmanager
    async def _slot_for(self, body: bytes, token: ApiToken | None) -> AsyncIterator[None]:
        """Hold a slot for large events for the block, if the body is large. Raises Refusal if none is free in time."""
        async with AsyncExitStack() as slots:
            if len(body) > LARGE_BODY_BYTES:
                try:
                    async with asyncio.timeout(self.limits.accept_timeout):
                        await slots.enter_async_context(self._large_of_token[token.name if token else None])
                        await slots.enter_async_context(self._large)
                except TimeoutError:
                    title = "The queue is slow, and other large events wait for it; send the event again"
                    raise Refusal(problem_response(503, title, headers={"Retry-After": RETRY_AFTER_SECONDS})) from None
                async with self._spacing:
                    for _ in range(LARGE_ROUNDS):
                        await asyncio.sleep(0)
            yield

    async def _publish(self, event: SessionEnded, lane: Lane) -> None:
        """Return once the event is durable. Raises Refusal with the event's id, since only the confirm may be lost."""
        remedy = f"send the event again with the id {event.id}, so that a copy is recognised"
        await publish_in_time(self._accept(event, lane), self.limits, remedy)

    def _parse(self, request: web.Request, body: bytes, token: ApiToken | None) -> SessionEnded:
        """Return the event of a request, with a generated id if it has none. Raises Refusal for any mistake."""
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
            vouched=token is not None and token.issuers is not None,  # an issuer outside the token's is refused below
        )
        sources = self.sources
        try:
            event = read_event(message, max_bytes=self.limits.max_event, new_id=sources.new_id, now=sources.clock())
        except MalformedEvent as error:
            raise Refusal(problem_response(400, "The event is malformed", mistakes=error.mistakes)) from None
        return replace(event, id_given=True)

    def _check_issuer(self, event: SessionEnded, token: ApiToken | None) -> None:
        """Raise a Refusal: 403 if token or publisher lack permission, 400 for an unknown issuer or refused type."""
        if not permits_issuer(token, event.iss):
            hint = "if it may, add the issuer to issuers of the token in api.tokens_file"
            raise _refusal(event, problem_response(403, "The token may not speak for this issuer"), hint)
        issuer = self.sources.registry().issuers.get(event.iss)
        if issuer is None:
            nearest, text = suggest_issuer(event.iss, self.sources.registry()), "not one of the configured issuers"
            publisher = None if token is None else token.name
            if nearest is not None and nearest.concerns(publisher) and permits_issuer(token, nearest.issuer.iss):
                text += f"; {nearest.text}"
            response = problem_response(400, "The event is malformed", mistakes=[InputIssue("iss", text)])
            raise _refusal(event, response, f"iss is {text}")
        if (objection := find_publisher_objection(event, issuer)) is None:
            return
        if objection[0] is DeadReason.PUBLISHER_NOT_ALLOWED:
            hint = "if it may, name it in issuers.<iss>.publishers"
            raise _refusal(event, problem_response(403, "This publisher may not speak for this issuer"), hint)
        raise Refusal(problem_response(400, "The event is malformed", mistakes=[InputIssue("type", objection[1])]))


def _refusal(event: SessionEnded, response: web.Response, hint: str) -> Refusal:
    """Return a Refusal whose log line has the event's issuer and a hint, since few publishers log the response."""
    return Refusal(response, iss=excerpt(event.iss), hint=hint)


def _read_wait_seconds(request: web.Request) -> float | None:
    """Return the seconds to wait, or None without the parameter. Raises Refusal (400)."""
    if (text := request.query.get("wait")) is None:
        return None
    try:
        return parse_wait(text)
    except ValueError as error:
        raise malformed_refusal(InputIssue("wait", str(error))) from None


def _check_media_type(request: web.Request) -> None:
    if media_type(request) not in BODY:
        title = f"The body must be {' or '.join(BODY)}"
        raise Refusal(problem_response(415, title, headers={"Accept": ", ".join(BODY)}))
    refuse_compressed(request)


_POST_EVENT = OperationDescription(
    summary="Publish one event: a session ended. The response confirms that it is durable.",
    scope="publish",
    query=QUERY,
    body=BODY,
    answers={
        200: to_answer(
            "With wait: the result at every client is final.",
            id=str,
            complete=bool,
            clients=Items,
            note=NotRequired[NoteText],
        ),
        202: to_answer(
            "The event is durable. With wait: the results so far.", id=EventIdText, note=NotRequired[NoteText]
        ),
    },
    problems=PROBLEMS,
)


def build_api_app(
    requests: EventRequests, more: Iterable[web.RouteDef] = (), authenticate_bearer: AuthenticateBearer | None = None
) -> web.Application:
    """Return the application. The routes of `more` share its limits; each authorises its own requests.

    `authenticate_bearer` accepts bearer tokens that are not in the tokens file.
    """
    tokens, limits = requests.sources.tokens, requests.limits
    throttle = Throttle(tokens, limits.requests, limits.requests_of_token, limits.body_timeout + BODY_RETRY_SECONDS)
    others = () if authenticate_bearer is None else (authenticate_other_bearers(tokens, authenticate_bearer),)
    count = requests.sources.counts.middleware
    guards = [answer_refusals, count, Authorization(tokens).local, *others, throttle.middleware, check_query]

    @_POST_EVENT
    async def post_event(request: web.Request) -> web.Response:
        return await requests.take(request)

    app = web.Application(client_max_size=limits.max_event, middlewares=guards)
    routes = [web.post("/v1/events", post_event), *more]
    served = [*routes, openapi_route(routes)]
    app.add_routes(served)
    requests.sources.counts.add_routes(served)
    app.on_response_prepare.append(forbid_caching)
    return app

"""`/v1/waiting`: list, show (scope `read`) and cancel (`repair`) what waits; `/v1/clients/{id}/retry`: try it now.

A token with `issuers` sees and changes only what is of those issuers. One request at a time goes through what waits. A
retry answers after half a minute at the latest; the workers go on.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from aiohttp import web
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.api_token import ApiToken
from notifier.model.errors import Mistake
from notifier.model.printable import json_text
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import only_issuer
from notifier.network.listeners.authorization import Authorization, caller, concerns
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription
from notifier.network.listeners.problem import Refusal, problem
from notifier.operators.letters import dead_letter_requests as requests
from notifier.operators.letters.dead_letter_audit import WriteAudit
from notifier.operators.letters.name_hints import NameHints
from notifier.operators.letters.retry_now import RetryWish, prospect, retry_now
from notifier.operators.letters.turns import Turns
from notifier.operators.letters.waiting_audit import WaitingAudit
from notifier.operators.letters.waiting_filter import WaitingFilter, WaitingSummary
from notifier.operators.letters.waiting_listing import WaitingCounts, waiting_deliveries
from notifier.operators.letters.waiting_repair import cancel
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

WATCHED = 30.0  # seconds that a retry is watched
LIMIT = 10_000  # deliveries that a request cancels at most

_OBJECT = {"type": "object"}
_KNOWN = "it is registered now, and tried when it is due"
_AWAY = "The queue is away, or another request or command goes through what waits."
_PROBLEMS = {400: "The request is malformed; the answer lists every mistake.", 503: _AWAY}
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class WaitingQuery(TypedDict, total=False):
    """The members that choose what waits. It must match all of them."""

    client_id: Annotated[str, Field(description="Only what waits for this client.")]
    iss: Annotated[str, Field(description="Only what is of this issuer.")]
    event_id: Annotated[str, Field(description="Only what is of this event.")]


class WaitingListQuery(WaitingQuery, total=False):
    """The query of a list."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Show this many deliveries beside the counts.")]
    skip: Annotated[int, Field(ge=0, description="Leave out this many of the rows: for the next page.")]


class CancelQuery(WaitingQuery, total=False):
    """The query of a cancellation."""

    all: Annotated[bool, Field(description="Take all that waits.")]
    dry_run: Annotated[bool, Field(description="Count them; change nothing.")]
    limit: Annotated[int, Field(ge=1, le=LIMIT, description="At most this many.")]


@with_config(_STRICT)
class RetryBody(TypedDict, total=False):
    """The body of a retry."""

    iss: Annotated[str, Field(description="The client's issuer. Needed if there are several.")]
    force: Annotated[bool, Field(description="Also try what the client asked to wait for, by Retry-After.")]
    dry_run: Annotated[bool, Field(description="Count what waits; try nothing.")]


_LIST, _CANCEL, _RETRY = TypeAdapter(WaitingListQuery), TypeAdapter(CancelQuery), TypeAdapter(RetryBody)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingAccess:
    """What the routes need. `registry`: the issuers and clients as they are now."""

    queue: Queue
    registry: Callable[[], Registry]
    write_audit: WriteAudit
    clock: Callable[[], float]
    steady: Callable[[], float]


class WaitingRoutes:
    """The routes on what waits."""

    def __init__(self, authorization: Authorization, access: WaitingAccess) -> None:
        self._authorization = authorization
        self._access = access
        self._turns = Turns(_AWAY)
        self._audit = WaitingAudit(access.write_audit)

    def routes(self) -> list[web.RouteDef]:
        """The routes that the API serves."""
        return [
            web.get("/v1/waiting", self._list, allow_head=False),
            web.get("/v1/waiting/{id}", self._show, allow_head=False),
            web.delete("/v1/waiting", self._cancel),
            web.delete("/v1/waiting/{id}", self._cancel_one),
            web.post("/v1/clients/{client_id}/retry", self._retry),
        ]

    @OperationDescription(
        summary="Count the deliveries that wait by client and reason; with rows, show some too. Uses nothing up.",
        scope="read",
        query=requests.query_of(_LIST),
        answers={200: AnswerDescription(text="Groups, the largest first.", schema=_OBJECT)},
        problems=_PROBLEMS,
    )
    async def _list(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "read")
        asked = requests.asked_in_query(request, _LIST)
        rows, skip = asked.get("rows", 0), asked.get("skip", 0)
        counts, shown = WaitingCounts(), list[dict[str, object]]()
        async with (
            self._turns.turn(looking=True),
            aclosing(waiting_deliveries(self._access.queue.waiting(), _meant(asked, token))) as found,
        ):
            async for one, _ in found:
                counts.add(one)
                if skip < counts.total <= skip + rows:
                    shown.append(one.document())
        hints = NameHints(self._access.registry(), token, known=_KNOWN)
        groups = [each.document() | hints.of(each.reason, each.iss, each.client_id) for each in counts.groups()]
        document: dict[str, object] = {"total": counts.total, "groups": groups}
        return web.json_response(document | ({"deliveries": shown} if "rows" in asked else {}), dumps=json_text)

    @OperationDescription(
        summary="Show one delivery that waits. The answer holds no sub and no sid.",
        scope="read",
        answers={200: AnswerDescription(text="The delivery.", schema=_OBJECT)},
        problems={404: "No such delivery waits.", 503: _AWAY},
    )
    async def _show(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "read")
        meant = _meant({}, token, request.match_info["id"])
        async with (
            self._turns.turn(looking=True),
            aclosing(waiting_deliveries(self._access.queue.waiting(), meant)) as found,
        ):
            async for one, _ in found:
                hints = NameHints(self._access.registry(), token, known=_KNOWN)
                hint = hints.of(one.reason, one.iss, one.client_id)
                return web.json_response(one.document() | hint, dumps=json_text)
        raise Refusal(problem(404, "No such delivery waits: it may be delivered, or a worker has it in hand"))

    @OperationDescription(
        summary="Delete deliveries that wait, for good. If the answer says more, repeat the request.",
        scope="repair",
        query=requests.query_of(_CANCEL),
        answers={200: AnswerDescription(text="How many were cancelled, and whether there is more.", schema=_OBJECT)},
        problems=_PROBLEMS,
    )
    async def _cancel(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = requests.asked_in_query(request, _CANCEL)
        meant = _meant(asked, token)
        if not meant.narrows and not asked.get("all"):
            mistake = Mistake("", "say which are meant, or all: true")
            raise Refusal(problem(400, "The request is malformed", mistakes=[mistake]))
        return await self._cancelled(token, meant, asked)

    @OperationDescription(
        summary="Delete one delivery that waits, for good.",
        scope="repair",
        answers={200: AnswerDescription(text="How many deliveries with that id were cancelled.", schema=_OBJECT)},
        problems={503: _AWAY},
    )
    async def _cancel_one(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        return await self._cancelled(token, _meant({}, token, request.match_info["id"]), {})

    async def _cancelled(self, token: ApiToken | None, meant: WaitingFilter, asked: dict[str, Any]) -> web.Response:
        dry_run, who = bool(asked.get("dry_run")), caller(token)
        options = self._options(limit=asked.get("limit", LIMIT), dry_run=dry_run)

        def told(one: WaitingSummary) -> None:
            if not dry_run:
                self._audit.cancelled_one(who, one)

        async with self._turns.turn():
            result = await cancel(self._access.queue.waiting(), meant, options, told)
            if not dry_run:
                self._audit.cancelled(who, meant, result)
        if result.failed and not result.done:
            raise self._turns.refusal()
        document = result.document()
        if result.failed:  # its own text names hosts and files
            document["unfinished"] = "the queue went away; the rest is unchanged"
        return web.json_response({"cancelled": result.done, "dry_run": dry_run, **document}, dumps=json_text)

    @OperationDescription(
        summary="Try now what waits for a client. The answer comes after half a minute at the latest.",
        scope="repair",
        body={"application/json": requests.schema_of(_RETRY)},
        answers={200: AnswerDescription(text="What became of what waited.", schema=_OBJECT)},
        problems={
            **_PROBLEMS,
            403: "The token lacks the scope repair, or this issuer.",
            408: "The body did not come.",
            413: "The body is too large.",
            415: "The body is not application/json.",
        },
    )
    async def _retry(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = await requests.asked_in_body(request, _RETRY) if request.can_read_body else {}
        client_id, iss = request.match_info["client_id"], self._issuer(asked, token)
        if not concerns(token, iss):
            raise Refusal(problem(403, "The token does not cover this issuer"))
        wish = RetryWish(key=(iss, client_id), who=caller(token), force=bool(asked.get("force")))
        dry_run, access = bool(asked.get("dry_run")), self._access
        async with self._turns.turn():
            until = access.steady() + WATCHED
            options = self._options(stop=lambda: access.steady() >= until)
            result = await (prospect if dry_run else retry_now)(access.queue, wish, options)
        document = result.document()
        if not dry_run:
            names = {"who": wish.who, "iss": iss, "client_id": client_id, "force": wish.force}
            access.write_audit("retried_now", **names, **document)
        return web.json_response({"client_id": client_id, "iss": iss, "dry_run": dry_run, **document}, dumps=json_text)

    def _issuer(self, asked: dict[str, Any], token: ApiToken | None) -> str:
        """The issuer that is meant: of those that the token covers, which are all that an answer names."""
        issuers = [iss for iss in self._access.registry().issuers if concerns(token, iss)]
        if (iss := asked.get("iss")) is not None:
            return str(iss)
        if (only := only_issuer(issuers)) is not None:
            return only
        mistake = Mistake("iss", f"say which issuer: there are {', '.join(sorted(issuers)) or 'none for this token'}")
        raise Refusal(problem(400, "The request is malformed", mistakes=[mistake]))

    def _options(
        self, *, limit: int | None = None, dry_run: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> RepairOptions:
        access = self._access
        return RepairOptions(
            clock=access.clock, steady=access.steady, pause=asyncio.sleep, stop=stop, limit=limit, dry_run=dry_run
        )


def _meant(asked: dict[str, Any], token: ApiToken | None, id_: str | None = None) -> WaitingFilter:
    return WaitingFilter(
        ids=frozenset() if id_ is None else frozenset({id_}),
        client_id=asked.get("client_id"),
        iss=asked.get("iss"),
        event_id=asked.get("event_id"),
        issuers=None if token is None else token.issuers,
    )

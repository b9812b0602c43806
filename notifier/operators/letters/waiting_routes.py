"""`/v1/waiting`: list, show (scope `read`) and cancel (`repair`) what waits; `/v1/retry`: try what waits for a client.

A token with `issuers` sees and changes only what is of those issuers. One request at a time goes through what waits. A
retry and a cancellation are jobs (`retry_jobs`, `repair_jobs`), but for the cancellation of one delivery.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Required

from aiohttp import web
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.delivery.life import Life, life_of
from notifier.model.api_token import ApiToken
from notifier.model.delivery import Delivery
from notifier.model.errors import Mistake
from notifier.model.printable import json_text
from notifier.network.http.issuer_document import only_issuer
from notifier.network.listeners.authorization import Authorization, caller, concerns
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription
from notifier.network.listeners.problem import Refusal, malformed, problem
from notifier.operators.letters import request_members
from notifier.operators.letters.job_routes import BEGUN, TOO_MANY, accepted, begun
from notifier.operators.letters.request_members import OBJECT
from notifier.operators.letters.retry_jobs import RetryWork
from notifier.operators.letters.retry_now import RetryWish, prospect
from notifier.operators.letters.visit_requests import LettersAccess, VisitRequests
from notifier.operators.letters.waiting_filter import CancelMembers, WaitingFilter, WaitingMembers, read_waiting_filter
from notifier.queues.passes import RepairOptions

GROUPS = 100  # of a page
AT_MOST = 60.0  # seconds that a look at what a cancellation or retry would do lasts

_KNOWN = "it is registered now, and tried when it is due"
_AWAY = "The queue is away, or another request or command goes through what waits."
_MISSING = "No such delivery waits: it may be delivered, or a worker has it in hand"
_PROBLEMS = {400: "The request is malformed; the answer lists every mistake.", 503: _AWAY}
_STRICT = ConfigDict(extra="forbid")


class WaitingListQuery(WaitingMembers, total=False):
    """The query of a list."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Show this many deliveries beside the counts.")]
    skip: Annotated[int, Field(ge=0, description="Leave out this many of the rows: for the next page.")]


class WaitingPageQuery(request_members.PageQuery, WaitingMembers, total=False):
    """The query of a page."""


@with_config(_STRICT)
class RetryBody(TypedDict, total=False):
    """The body of a retry."""

    client_id: Annotated[Required[str], Field(min_length=1, description="The client.")]
    iss: Annotated[str, Field(min_length=1, description="The client's issuer. Needed if there are several.")]
    force: Annotated[bool, Field(description="Also try what the client asked to wait for, by Retry-After.")]
    dry_run: Annotated[bool, Field(description="Count what waits; try nothing.")]


_LIST, _PAGE = TypeAdapter(WaitingListQuery), TypeAdapter(WaitingPageQuery)
_CANCEL, _RETRY = TypeAdapter(CancelMembers), TypeAdapter(RetryBody)


class WaitingRoutes:
    """The routes on what waits."""

    def __init__(self, authorization: Authorization, access: LettersAccess) -> None:
        self._authorization = authorization
        self._access = access
        self._waiting = access.queue.waiting()
        self._requests = VisitRequests(access, away=_AWAY, known=_KNOWN)

    def routes(self) -> list[web.RouteDef]:
        """The routes that the API serves."""
        return [
            web.get("/v1/waiting", self._list),
            web.get("/v1/waiting/page", self._page),
            web.post("/v1/waiting/find", self._find),
            web.get("/v1/waiting/{id}", self._show),
            web.delete("/v1/waiting", self._cancel),
            web.delete("/v1/waiting/{id}", self._cancel_one),
            web.post("/v1/retry", self._retry),
        ]

    @OperationDescription(
        summary="Count the deliveries that wait by client and reason; with rows, show some too. Uses nothing up.",
        scope="read",
        query=request_members.query_of(_LIST),
        answers={200: AnswerDescription(text="Groups, the largest first.", schema=OBJECT)},
        problems=_PROBLEMS,
    )
    async def _list(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = request_members.asked_in_query(request, _LIST)
        wanted = replace(self._filter(asked, token), life=self._life)
        return await self._requests.counts(self._waiting, wanted, token, asked, rows="deliveries")

    @OperationDescription(
        summary="Show a page of what waits, and count it by reason and client, from an index that one pass makes.",
        scope="read",
        query=request_members.query_of(_PAGE),
        answers={200: AnswerDescription(text="The page. `reasons` and `groups` also count others.", schema=OBJECT)},
        problems=_PROBLEMS,
    )
    async def _page(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = request_members.asked_in_query(request, _PAGE)
        everything, chosen = WaitingFilter(life=self._life), replace(self._filter(asked, token), reasons=frozenset())
        self._requests.audit.looked(caller(token), chosen)
        return await self._requests.page(
            self._waiting, everything, chosen, token, asked, rows="deliveries", groups=GROUPS
        )

    @OperationDescription(
        summary="Find what waits of a user, a session or an event. The answer holds no sub and no sid.",
        scope="read",
        body={"application/json": request_members.schema_of(request_members.LOOK_FOR)},
        answers={200: AnswerDescription(text="Summaries, 200 at most.", schema=OBJECT)},
        problems={**_PROBLEMS, **request_members.BODY_PROBLEMS},
    )
    async def _find(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        wanted = replace(self._filter(await request_members.looked_for(request), token), life=self._life)
        return await self._requests.found(self._waiting, wanted, token, rows="deliveries")

    def _life(self, delivery: Delivery) -> Life | None:
        return life_of(delivery, self._access.registry())

    @OperationDescription(
        summary="Show one delivery that waits. The answer holds no sub and no sid.",
        scope="read",
        answers={200: AnswerDescription(text="The delivery.", schema=OBJECT)},
        problems={404: "No such delivery waits.", 503: _AWAY},
    )
    async def _show(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        return await self._requests.message(
            self._waiting,
            replace(_one_of(token, request.match_info["id"]), life=self._life),
            token,
            lambda summary, _: summary.document(),
            missing=_MISSING,
        )

    @OperationDescription(
        summary="Delete deliveries that wait, for good: a job. Location says where to ask for it.",
        scope="repair",
        query=request_members.query_of(_CANCEL),
        answers={202: BEGUN, 200: AnswerDescription(text="With dry_run: how many would be cancelled.", schema=OBJECT)},
        problems=_PROBLEMS | TOO_MANY,
    )
    async def _cancel(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = request_members.asked_in_query(request, _CANCEL)
        waiting = self._filter(asked, token)
        request_members.require_narrowed(waiting, asked, "are")
        if asked.get("dry_run"):
            return await self._cancelled(waiting, token, asked)
        return self._requests.begin_removal("cancel", self._waiting, waiting, token, asked)

    @OperationDescription(
        summary="Delete one delivery that waits, for good.",
        scope="repair",
        answers={200: AnswerDescription(text="How many deliveries with that id were cancelled.", schema=OBJECT)},
        problems={404: f"{_MISSING}.", 503: _AWAY},
    )
    async def _cancel_one(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        return await self._cancelled(_one_of(token, request.match_info["id"]), token, {}, missing=_MISSING)

    async def _cancelled(
        self, waiting: WaitingFilter, token: ApiToken | None, asked: Mapping[str, Any], *, missing: str | None = None
    ) -> web.Response:
        return await self._requests.removed(
            "cancelled", self._waiting, waiting, token, asked, within=AT_MOST, missing=missing
        )

    @OperationDescription(
        summary="Try now what waits for a client: a job. Location says where to ask what comes of it.",
        scope="repair",
        body={"application/json": request_members.schema_of(_RETRY)},
        answers={
            202: BEGUN,
            200: AnswerDescription(text="With dry_run: what waits, and why.", schema=OBJECT),
        },
        problems={
            **_PROBLEMS,
            **TOO_MANY,
            **request_members.BODY_PROBLEMS,
        },
    )
    async def _retry(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = await request_members.asked_in_body(request, _RETRY)
        client_id, iss = asked["client_id"], self._issuer(asked, token)
        if not concerns(token, iss):
            raise Refusal(problem(403, "The token does not cover this issuer"))
        wish = RetryWish(key=(iss, client_id), who=caller(token), force=bool(asked.get("force")))
        access = self._access
        if not asked.get("dry_run"):
            self._requests.require_queue()
            work = RetryWork(access.queue, wish, self._requests, access.write_audit)
            known = await access.jobs.like(work, token)
            return begun(access.jobs, work, token) if known is None else accepted(known)
        async with self._requests.turn(looking=True):
            until = access.steady() + AT_MOST
            options = RepairOptions(
                clock=access.clock, steady=access.steady, pause=asyncio.sleep, stop=lambda: access.steady() >= until
            )
            result = await prospect(access.queue, wish, options)
        document = {"client_id": client_id, "iss": iss, "dry_run": True, **result.document()}
        return web.json_response(document, dumps=json_text)

    def _issuer(self, asked: Mapping[str, Any], token: ApiToken | None) -> str:
        """The issuer that is meant: of those that the token covers, which are all that an answer names."""
        issuers = self._covered(token)
        if (iss := asked.get("iss", only_issuer(issuers))) is not None:
            return str(iss)
        there = ", ".join(sorted(issuers)) or "none for this token"
        raise malformed(Mistake("iss", f"say which issuer: there are {there}"))

    def _covered(self, token: ApiToken | None) -> list[str]:
        return [iss for iss in self._access.registry().issuers if concerns(token, iss)]

    def _filter(self, asked: Mapping[str, Any], token: ApiToken | None) -> WaitingFilter:
        """What is meant. A client without an issuer is the only issuer's, so that one bucket is looked at, not all."""
        client_id = asked.get("client_id")
        only = None if client_id is None else only_issuer(self._covered(token))
        wanted = read_waiting_filter(
            {"iss": only, **asked}, self._access.clock(), None if token is None else token.issuers
        )
        if isinstance(wanted, Mistake):
            raise malformed(wanted)
        return wanted


def _one_of(token: ApiToken | None, id_: str) -> WaitingFilter:
    return WaitingFilter(ids=frozenset({id_}), issuers=None if token is None else token.issuers)

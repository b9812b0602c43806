"""`/v1/dead-letters`: list, show and export (scope `read`), replay and discard (scope `repair`).

A token with `issuers` sees and repairs only letters of those issuers. A replay and a discard are jobs (`repair_jobs`),
but for the discard of one letter. One request at a time has the letters. An export waits for its reader for READ_WITHIN
seconds in all, so that a slow reader does not hold the letters. Only one request that looks may wait for them, so that
a repair waits for one look at most.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.api_token import ApiToken
from notifier.model.errors import Mistake
from notifier.model.ids import new_id
from notifier.model.printable import excerpt, json_text
from notifier.network.listeners.authorization import Authorization, caller
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription
from notifier.network.listeners.problem import Refusal, malformed
from notifier.operators.letters import request_members
from notifier.operators.letters.exported_letter import exported, without_subject
from notifier.operators.letters.job_routes import BEGUN, TOO_MANY, begun
from notifier.operators.letters.letter_filter import (
    LetterFilter,
    LetterMembers,
    RepairMembers,
    ReplayMembers,
    read_filter,
)
from notifier.operators.letters.repair import replay
from notifier.operators.letters.repair_jobs import AskedRepair, RepairWork, issuers_of
from notifier.operators.letters.replay_now import Replay, ReplayWish
from notifier.operators.letters.request_members import OBJECT
from notifier.operators.letters.visit_requests import LettersAccess, VisitRequests
from notifier.operators.letters.visits import FASTEST, SLOWEST, RepairResult, found_in
from notifier.queues.passes import RepairOptions

AT_MOST = 60.0  # seconds that a look at what a repair would do lasts
GROUPS = 50  # of a page
READ_WITHIN = 10.0  # seconds that an export waits for its reader, all its waits together

_KNOWN = "it is registered now: replay it"
_AWAY = "The queue is away, or another request or command has the dead letters."
_RATE = "At most this many a second, over the whole job."
_MISSING = "There is no such dead letter"
_PROBLEMS = {400: "The request is malformed; the answer lists every mistake.", 503: _AWAY}


class ListQuery(LetterMembers, total=False):
    """The query of a list."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Show this many letters beside the counts, oldest first.")]


class ReplayRequest(ReplayMembers, total=False):
    """The body of a replay."""

    rate: Annotated[float, Field(ge=SLOWEST, le=FASTEST, allow_inf_nan=False, description=_RATE)]


class LettersPageQuery(request_members.PageQuery, LetterMembers, total=False):
    """The query of a page."""

    oldest_first: Annotated[bool, Field(description="Else the newest come first.")]


@with_config(ConfigDict(extra="forbid"))
class ShowQuery(TypedDict, total=False):
    """The query of one letter."""

    subject: Annotated[bool, Field(description="Show it with its user: true unless given.")]


_WHICH, _LOOK = TypeAdapter(LetterMembers), TypeAdapter(ListQuery)
_PAGE, _SHOW = TypeAdapter(LettersPageQuery), TypeAdapter(ShowQuery)
_DISCARD, _REPLAY = TypeAdapter(RepairMembers), TypeAdapter(ReplayRequest)


class DeadLetterRoutes:
    """The routes of `/v1/dead-letters`: list, show, export, replay, discard."""

    def __init__(self, authorization: Authorization, access: LettersAccess) -> None:
        self._authorization = authorization
        self._access = access
        self._letters = access.queue.dead_letters()
        self._requests = VisitRequests(access, away=_AWAY, known=_KNOWN)

    def routes(self) -> list[web.RouteDef]:
        """The routes that the API serves."""
        return [
            web.get("/v1/dead-letters", self._list),
            web.get("/v1/dead-letters/page", self._page),
            web.post("/v1/dead-letters/find", self._find),
            web.get("/v1/dead-letters/export", self._export),
            web.get("/v1/dead-letters/{id}", self._show),
            web.post("/v1/dead-letters/replay", self._replay),
            web.delete("/v1/dead-letters", self._discard),
            web.delete("/v1/dead-letters/{id}", self._discard_one),
        ]

    @OperationDescription(
        summary="Count dead letters by client and reason; with rows, show the oldest too.",
        scope="read",
        query=request_members.query_of(_LOOK),
        answers={200: AnswerDescription(text="Groups, the largest first.", schema=OBJECT)},
        problems=_PROBLEMS,
    )
    async def _list(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = request_members.asked_in_query(request, _LOOK)
        chosen = self._filter(asked, token)
        return await self._requests.counts(self._letters, chosen, token, asked, rows="letters")

    @OperationDescription(
        summary="Show a page of letters, and count them by reason and client, from an index that one pass makes.",
        scope="read",
        query=request_members.query_of(_PAGE),
        answers={200: AnswerDescription(text="The page. `reasons` and `groups` also count others.", schema=OBJECT)},
        problems=_PROBLEMS,
    )
    async def _page(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = request_members.asked_in_query(request, _PAGE)
        chosen = replace(self._filter(asked, token), reasons=frozenset())
        self._requests.audit.looked(caller(token), chosen)
        return await self._requests.page(
            self._letters, LetterFilter(), chosen, token, asked, rows="letters", groups=GROUPS,
            newest_first=not asked.get("oldest_first"),
        )  # fmt: skip

    @OperationDescription(
        summary="Find the letters of a user, a session or an event. The answer holds no sub and no sid.",
        scope="read",
        body={"application/json": request_members.schema_of(request_members.LOOK_FOR)},
        answers={200: AnswerDescription(text="Summaries, oldest first, 200 at most.", schema=OBJECT)},
        problems={**_PROBLEMS, **request_members.BODY_PROBLEMS},
    )
    async def _find(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        chosen = self._filter(await request_members.looked_for(request), token)
        return await self._requests.found(self._letters, chosen, token, rows="letters")

    @OperationDescription(
        summary="Export whole letters, one JSON object per line. The answer holds sub and sid.",
        scope="read",
        query=request_members.query_of(_WHICH),
        answers={200: AnswerDescription(text="Oldest first.", schema={}, kind="application/x-ndjson")},
        problems=_PROBLEMS,
    )
    async def _export(self, request: web.Request) -> web.StreamResponse:
        token = self._authorization.require(request)
        chosen = self._filter(request_members.asked_in_query(request, _WHICH), token)
        self._requests.audit.read("exported", caller(token), chosen)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        patience, steady = READ_WITHIN, self._access.steady
        try:
            async with (
                self._requests.turn(looking=True),
                aclosing(found_in(self._letters, chosen, whole=True)) as letters,
            ):
                async for _, message in letters:
                    if not response.prepared:
                        await response.prepare(request)
                    if request.method == "HEAD":  # aiohttp would write what is streamed
                        break
                    line, begun = json_text(exported(message)).encode() + b"\n", steady()
                    async with asyncio.timeout(patience):  # a slow reader holds the letters
                        await response.write(line)
                    patience -= steady() - begun
        except (Refusal, TimeoutError):
            if not response.prepared:
                raise
            if request.transport is not None:
                request.transport.abort()  # half an export must not look complete
            return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    @OperationDescription(
        summary="Show one whole letter. The answer holds sub and sid, unless subject=false.",
        scope="read",
        query=request_members.query_of(_SHOW),
        answers={200: AnswerDescription(text="The letter.", schema=OBJECT)},
        problems={404: "There is no letter with that id.", 503: _AWAY},
    )
    async def _show(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        with_subject = request_members.asked_in_query(request, _SHOW).get("subject", True)
        chosen = self._filter({"id": [request.match_info["id"]]}, token)
        if with_subject:
            self._requests.audit.read("shown", caller(token), chosen)
        shown = exported if with_subject else without_subject
        return await self._requests.message(
            self._letters, chosen, token, lambda _, message: shown(message), missing=_MISSING,
            whole=True,
        )  # fmt: skip

    @OperationDescription(
        summary="Deliver letters again: a job that goes on by itself. Location says where to ask for it.",
        scope="repair",
        body={"application/json": request_members.schema_of(_REPLAY)},
        answers={
            202: BEGUN,
            200: AnswerDescription(
                text="With dry_run: how many would be replayed, and how many stay and why.", schema=OBJECT
            ),
        },
        problems={
            **_PROBLEMS,
            **TOO_MANY,
            **request_members.BODY_PROBLEMS,
        },
    )
    async def _replay(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = await request_members.asked_in_body(request, _REPLAY)
        chosen = self._filter(asked, token)
        request_members.require_narrowed(chosen, asked, "letters are")
        force = bool(asked.get("end_newer_sessions"))
        rules = self._access.rules(force)
        if asked.get("dry_run"):

            async def act(options: RepairOptions) -> RepairResult:
                return await replay(self._letters, chosen, rules, options)

            return await self._requests.repaired("replayed", act, chosen, token, asked, within=AT_MOST)

        self._requests.require_queue()

        def conclude(result: RepairResult) -> None:
            self._requests.audit.repaired("replayed", caller(token), chosen, result, end_newer_sessions=force)

        passes = Replay(self._access.queue, ReplayWish(id=new_id(), who=caller(token), chosen=chosen, rules=rules))
        replay_ = AskedRepair(
            kind="replay", chosen=chosen, issuers=issuers_of(chosen), passes=passes, conclude=conclude,
            watch=passes.watch, most=asked.get("limit"), rate=asked.get("rate"),
        )  # fmt: skip
        return begun(self._access.jobs, RepairWork(replay_, self._requests), token)

    @OperationDescription(
        summary="Delete letters for good: a job that goes on by itself. Location says where to ask for it.",
        scope="repair",
        query=request_members.query_of(_DISCARD),
        answers={202: BEGUN, 200: AnswerDescription(text="With dry_run: how many would be deleted.", schema=OBJECT)},
        problems=_PROBLEMS | TOO_MANY,
    )
    async def _discard(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = request_members.asked_in_query(request, _DISCARD)
        chosen = self._filter(asked, token)
        request_members.require_narrowed(chosen, asked, "letters are")
        if asked.get("dry_run"):
            return await self._discarded(token, chosen, asked)
        return self._requests.begin_removal("discard", self._letters, chosen, token, asked)

    @OperationDescription(
        summary="Delete one letter for good.",
        scope="repair",
        answers={200: AnswerDescription(text="How many letters with that id were deleted.", schema=OBJECT)},
        problems={404: f"{_MISSING}.", 503: _AWAY},
    )
    async def _discard_one(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request)
        asked = {"id": [request.match_info["id"]]}
        return await self._discarded(token, self._filter(asked, token), asked, missing=_MISSING)

    async def _discarded(
        self, token: ApiToken | None, chosen: LetterFilter, asked: Mapping[str, Any], *, missing: str | None = None
    ) -> web.Response:
        return await self._requests.removed(
            "discarded", self._letters, chosen, token, asked, within=AT_MOST, missing=missing
        )

    def _filter(self, asked: Mapping[str, Any], token: ApiToken | None) -> LetterFilter:
        """The letters that the request means, of those that the token may see. Raises Refusal (400)."""
        letter_filter = read_filter(asked, self._access.clock(), issuers=None if token is None else token.issuers)
        if isinstance(letter_filter, Mistake):
            raise malformed(Mistake(letter_filter.path, excerpt(letter_filter.text, 200)))
        return letter_filter

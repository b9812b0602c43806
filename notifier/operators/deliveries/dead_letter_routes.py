"""`/v1/dead-letters`: list, show and export (scope `read`), replay and discard (scope `repair`).

A token with `issuers` sees and repairs only letters of those issuers. A replay and a discard are jobs (`repair_jobs`),
except the discard of one letter. One request at a time holds the letters. An export waits for its reader at most
READ_WITHIN seconds in all, so that a slow reader does not hold the letters. Read requests queue among themselves, so a
repair waits for one read at most.
"""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, NotRequired

from aiohttp import web
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.errors import InputIssue
from notifier.model.ids import new_id
from notifier.model.printable import excerpt, json_text
from notifier.network.listeners.authorization import Authorization
from notifier.network.listeners.openapi import AnswerDescription
from notifier.network.listeners.operation import ApiOperation, ApiRequest, Items, answer_of, routes_of
from notifier.network.listeners.problem import Refusal, malformed
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary, exported, without_subject
from notifier.operators.deliveries.delivery_filter import (
    DeliveryFilter,
    DeliveryFilterMembers,
    RepairMembers,
    ReplayMembers,
    read_filter,
)
from notifier.operators.deliveries.job_routes import BEGUN, TOO_MANY, begun
from notifier.operators.deliveries.message_index import PAGE, PageQuery
from notifier.operators.deliveries.repair import replay
from notifier.operators.deliveries.repair_jobs import AskedRepair, RepairWork, issuers_of
from notifier.operators.deliveries.replay_now import Replay, ReplayWish
from notifier.operators.deliveries.visit_requests import (
    REPAIRED,
    DeadLettersAccess,
    LookFor,
    VisitRequests,
    conditions_of,
)
from notifier.operators.deliveries.visits import FASTEST, SLOWEST, RepairResult, found_in
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters

GROUPS = 50  # of a page
READ_WITHIN = 10.0  # seconds that an export waits for its reader, in all

_KNOWN = "it is registered now: replay it"
_AWAY = "The queue is unavailable, or another request or command holds the dead letters."
_RATE = "At most this many a second, over the whole job."
_MISSING = "There is no such dead letter"
_PROBLEMS = {400: "The request is malformed; the answer lists every mistake.", 503: _AWAY}


class ListQuery(DeliveryFilterMembers, total=False):
    """The query of a list."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Show this many letters beside the counts, oldest first.")]


class ReplayRequest(ReplayMembers, total=False):
    """The body of a replay."""

    rate: Annotated[float, Field(ge=SLOWEST, le=FASTEST, allow_inf_nan=False, description=_RATE)]


class DeadLettersPageQuery(PageQuery, DeliveryFilterMembers, total=False):
    """The query of a page."""

    oldest_first: Annotated[bool, Field(description="Else the newest come first.")]


@with_config(ConfigDict(extra="forbid"))
class ShowQuery(TypedDict, total=False):
    """The query of one letter."""

    subject: Annotated[bool, Field(description="Show it with its user: true unless given.")]


class DeadLetterRoutes:
    """The routes of `/v1/dead-letters`: list, show, export, replay, discard."""

    def __init__(self, authorization: Authorization, access: DeadLettersAccess) -> None:
        self._authorization = authorization
        self._access = access
        self._letters = access.queue.dead_letters()
        self._requests = VisitRequests[DeadLetters, DeadLetterSummary](
            access, self._letters, rows="letters", away=_AWAY, known=_KNOWN, missing=_MISSING
        )

    def routes(self) -> list[web.RouteDef]:
        """Return the routes that the API serves."""
        return routes_of(self, self._authorization)

    @ApiOperation(
        route="GET /v1/dead-letters",
        summary="Count dead letters by client and reason; with rows, show the oldest too.",
        scope="read",
        query=ListQuery,
        answers={200: answer_of("Groups, the largest first.", total=int, groups=Items, letters=NotRequired[Items])},
        problems=_PROBLEMS,
    )
    async def _list(self, request: ApiRequest) -> web.Response:
        return await self._requests.counts(self._filter(request), request)

    @ApiOperation(
        route="GET /v1/dead-letters/page",
        summary="Show a page of letters, and count them by reason and client, from an index that one pass makes.",
        scope="read",
        query=DeadLettersPageQuery,
        answers={200: answer_of("The page. `reasons` and `groups` also count others.", **PAGE, letters=Items)},
        problems=_PROBLEMS,
    )
    async def _page(self, request: ApiRequest) -> web.Response:
        chosen = replace(self._filter(request), reasons=frozenset())
        self._requests.audit.looked(request.who, chosen)
        newest_first = not request.members.get("oldest_first")
        return await self._requests.page(DeliveryFilter(), chosen, request, groups=GROUPS, newest_first=newest_first)

    @ApiOperation(
        route="POST /v1/dead-letters/find",
        summary="Find the letters of a user, a session or an event. The answer holds no sub and no sid.",
        scope="read",
        body=LookFor,
        answers={200: answer_of("Summaries, oldest first, 200 at most.", total=int, letters=Items)},
        problems=_PROBLEMS,
    )
    async def _find(self, request: ApiRequest) -> web.Response:
        return await self._requests.found(self._filter(request), request)

    @ApiOperation(
        route="GET /v1/dead-letters/export",
        summary="Export whole letters, one JSON object per line. The answer holds sub and sid.",
        scope="read",
        query=DeliveryFilterMembers,
        answers={200: AnswerDescription(text="Oldest first.", schema={}, kind="application/x-ndjson")},
        problems=_PROBLEMS,
    )
    async def _export(self, request: ApiRequest) -> web.StreamResponse:
        chosen = self._filter(request)
        self._requests.audit.read("exported", request.who, chosen)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        patience, steady = READ_WITHIN, self._access.steady
        try:
            async with (
                self._requests.turn(looking=True),
                aclosing(found_in(self._letters, chosen, whole=True)) as letters,
            ):
                async for _, message in letters:
                    if not response.prepared:
                        await response.prepare(request.http)
                    if request.http.method == "HEAD":  # aiohttp would write what is streamed
                        break
                    line, begun = json_text(exported(message)).encode() + b"\n", steady()
                    async with asyncio.timeout(patience):  # a slow reader holds the letters
                        await response.write(line)
                    patience -= steady() - begun
        except (Refusal, TimeoutError):
            if not response.prepared:
                raise
            if request.http.transport is not None:
                request.http.transport.abort()  # half an export must not look complete
            return response
        if not response.prepared:
            await response.prepare(request.http)
        await response.write_eof()
        return response

    @ApiOperation(
        route="GET /v1/dead-letters/{id}",
        summary="Show one whole letter. The answer holds sub and sid, unless subject=false.",
        scope="read",
        query=ShowQuery,
        answers={200: answer_of("The letter.", id=str, reason=str, outcomes=NotRequired[Items], hint=NotRequired[str])},
        problems={404: "There is no letter with that id.", 503: _AWAY},
    )
    async def _show(self, request: ApiRequest) -> web.Response:
        with_subject = request.members.get("subject", True)
        chosen = self._filter(request)
        if with_subject:
            self._requests.audit.read("shown", request.who, chosen)
        shown = exported if with_subject else without_subject
        return await self._requests.message(chosen, request, lambda _, message: shown(message), whole=True)

    @ApiOperation(
        route="POST /v1/dead-letters/replay",
        summary="Deliver letters again: a job in the background. Location is its address.",
        scope="repair",
        body=ReplayRequest,
        answers={202: BEGUN, 200: answer_of("With dry_run: how many would be replayed, and how many stay and why.",
            replayed=int, **REPAIRED)},
        problems=_PROBLEMS | TOO_MANY,
    )  # fmt: skip
    async def _replay(self, request: ApiRequest) -> web.Response:
        chosen, asked = self._filter(request), request.members
        self._requests.require_narrowed(chosen, request)
        who = request.who  # a job outlives its request
        force = bool(asked.get("end_newer_sessions"))
        rules = self._access.rules(force)
        if asked.get("dry_run"):

            async def act(options: RepairOptions) -> RepairResult:
                return await replay(self._letters, chosen, rules, options)

            return await self._requests.repaired("replayed", act, chosen, request)

        self._requests.require_queue()

        def conclude(result: RepairResult) -> None:
            self._requests.audit.repaired("replayed", who, chosen, result, end_newer_sessions=force)

        passes = Replay(self._access.queue, ReplayWish(id=new_id(), who=who, chosen=chosen, rules=rules))
        replay_ = AskedRepair(
            kind="replay", chosen=chosen, issuers=issuers_of(chosen), passes=passes, conclude=conclude,
            watch=passes.watch, most=asked.get("limit"), rate=asked.get("rate"),
        )  # fmt: skip
        return begun(self._access.jobs, RepairWork(replay_, self._requests), request.token)

    @ApiOperation(
        route="DELETE /v1/dead-letters",
        summary="Delete letters permanently: a job in the background. Location is its address.",
        scope="repair",
        query=RepairMembers,
        answers={202: BEGUN, 200: answer_of("With dry_run: how many would be deleted.", discarded=int, **REPAIRED)},
        problems=_PROBLEMS | TOO_MANY,
    )
    async def _discard(self, request: ApiRequest) -> web.Response:
        return await self._requests.remove("discard", self._filter(request), request)

    @ApiOperation(
        route="DELETE /v1/dead-letters/{id}",
        summary="Delete one letter permanently.",
        scope="repair",
        answers={200: answer_of("How many letters with that id were deleted.", discarded=int, **REPAIRED)},
        problems={404: f"{_MISSING}.", 503: _AWAY},
    )
    async def _discard_one(self, request: ApiRequest) -> web.Response:
        return await self._requests.remove("discard", self._filter(request), request)

    def _filter(self, request: ApiRequest) -> DeliveryFilter:
        """Return the filter of the request, for letters that the token may see. Raises Refusal (400)."""
        letter_filter = read_filter(conditions_of(request), self._access.clock(), issuers=request.issuers)
        if isinstance(letter_filter, InputIssue):
            raise malformed(InputIssue(letter_filter.path, excerpt(letter_filter.text, 200)))
        return letter_filter

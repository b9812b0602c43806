"""`/v1/dead-letters`: list, show and export (scope `read`), replay and discard (scope `repair`).

A token with `issuers` sees and repairs only dead letters of those issuers. A replay and a discard are jobs
(`repair_jobs`), except a dry run and the discard of one dead letter. On RabbitMQ one pass at a time reads the dead
letters. An export spends at most EXPORT_READ_SECONDS on writing to its client, so that a slow client does not block
other requests.
"""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, NotRequired

from aiohttp import web
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.errors import InputIssue
from notifier.model.ids import new_id
from notifier.model.printable import excerpt, json_text
from notifier.network.listeners.openapi import AnswerDescription
from notifier.network.listeners.operation import ApiAnswer, ApiOperation, ApiRequest, Document, Items, to_answer
from notifier.network.listeners.problem import Refusal, malformed_refusal
from notifier.operators.deliveries.dead_letter_filter import (
    DeadLetterFilter,
    DeadLetterFilterMembers,
    RepairMembers,
    ReplayMembers,
    read_filter,
)
from notifier.operators.deliveries.dead_letter_summary import (
    DeadLetterSummary,
    to_document_without_subject,
    to_export_document,
)
from notifier.operators.deliveries.job_documents import DEAD_LETTER_JOBS, name_holder
from notifier.operators.deliveries.job_routes import JOB_STARTED_ANSWER, TOO_MANY_JOBS, answer_accepted
from notifier.operators.deliveries.message_index import PAGE_MEMBERS, PageQuery
from notifier.operators.deliveries.message_requests import (
    REPAIR_MEMBERS,
    MessageRequests,
    RouteDependencies,
    SearchBody,
    conditions_of,
)
from notifier.operators.deliveries.repair import replay
from notifier.operators.deliveries.repair_jobs import RepairRequest, RepairWork, issuers_of
from notifier.operators.deliveries.repair_pass import MAX_RATE, MIN_RATE, find_messages
from notifier.operators.deliveries.repair_result import RepairResult
from notifier.operators.deliveries.replay_now import Replay, ReplayRequest
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters

GROUPS_PER_PAGE = 50
EXPORT_READ_SECONDS = 10.0  # seconds that all writes of one export may wait for its client

_UNAVAILABLE_TEXT = "The queue is unavailable, or another request or command holds the dead letters."
_RATE_DESCRIPTION = "At most this many a second, over the whole job."
_MISSING_TEXT = "There is no such dead letter"
_PROBLEMS = {400: "The request is malformed; the answer lists every mistake.", 503: _UNAVAILABLE_TEXT}


class ListQuery(DeadLetterFilterMembers, total=False):
    """The query of a list."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Also show this many dead letters, oldest first.")]


class ReplayBody(ReplayMembers, total=False):
    """The body of a replay."""

    rate: Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE, allow_inf_nan=False, description=_RATE_DESCRIPTION)]


class DeadLettersPageQuery(PageQuery, DeadLetterFilterMembers, total=False):
    """The query of a page."""

    oldest_first: Annotated[bool, Field(description="Oldest first instead of newest first.")]


@with_config(ConfigDict(extra="forbid"))
class ShowQuery(TypedDict, total=False):
    """The query of one dead letter."""

    subject: Annotated[bool, Field(description="Show it with its user: true unless given.")]


class DeadLetterRoutes:
    """The routes of `/v1/dead-letters`: list, show, export, replay, discard."""

    def __init__(self, access: RouteDependencies) -> None:
        self._access = access
        self._dead_letters = access.queue.dead_letters(partial(name_holder, access.queue, "api", DEAD_LETTER_JOBS))
        self._requests = MessageRequests[DeadLetters, DeadLetterSummary](
            access,
            self._dead_letters,
            rows_member="letters",
            unavailable_text=_UNAVAILABLE_TEXT,
            missing_text=_MISSING_TEXT,
        )

    @ApiOperation(
        route="GET /v1/dead-letters",
        summary="Count dead letters by client and reason; with rows, show the oldest too.",
        scope="read",
        query=ListQuery,
        answers={200: to_answer("Groups, the largest first.", total=int, groups=Items, letters=NotRequired[Items])},
        problems=_PROBLEMS,
    )
    async def _list(self, request: ApiRequest) -> Document:
        return await self._requests.answer_counts(self._filter(request), request)

    @ApiOperation(
        route="GET /v1/dead-letters/page",
        summary="Show a page of dead letters, and count them by reason and client, from an index that one pass makes.",
        scope="read",
        query=DeadLettersPageQuery,
        answers={200: to_answer("The page. `reasons` and `groups` also count others.", **PAGE_MEMBERS, letters=Items)},
        problems=_PROBLEMS,
    )
    async def _page(self, request: ApiRequest) -> Document:
        filter_ = replace(self._filter(request), reasons=frozenset())  # the counts include all reasons
        self._requests.audit.log_search(request.who, filter_)
        newest_first = not request.members.get("oldest_first")
        return await self._requests.answer_page(
            DeadLetterFilter(), filter_, request, groups=GROUPS_PER_PAGE, newest_first=newest_first
        )

    @ApiOperation(
        route="POST /v1/dead-letters/find",
        summary="Find the dead letters of a user, a session or an event. The answer holds no sub and no sid.",
        scope="read",
        body=SearchBody,
        answers={200: to_answer("Summaries, oldest first, 200 at most.", total=int, letters=Items)},
        problems=_PROBLEMS,
    )
    async def _find(self, request: ApiRequest) -> Document:
        return await self._requests.answer_search(self._filter(request), request)

    @ApiOperation(
        route="GET /v1/dead-letters/export",
        summary="Export whole dead letters, one JSON object per line. The answer holds sub and sid.",
        scope="read",
        query=DeadLetterFilterMembers,
        answers={200: AnswerDescription(text="Oldest first.", schema={}, kind="application/x-ndjson")},
        problems=_PROBLEMS,
    )
    async def _export(self, request: ApiRequest) -> web.StreamResponse:
        """Stream the dead letters. Once streaming, abort the connection if the queue fails or the client is slow."""
        filter_ = self._filter(request)
        self._requests.audit.log_read("exported", request.who, filter_)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        seconds_left, monotonic = EXPORT_READ_SECONDS, self._access.monotonic
        try:
            async with (
                self._requests.turn(request),
                aclosing(find_messages(self._dead_letters, filter_, whole=True)) as dead_letters,
            ):
                async for _, message in dead_letters:
                    if not response.prepared:
                        await response.prepare(request.http)
                    if request.http.method == "HEAD":  # aiohttp would send a body
                        break
                    line, began_at = json_text(to_export_document(message)).encode() + b"\n", monotonic()
                    async with asyncio.timeout(seconds_left):  # other requests wait for this export
                        await response.write(line)
                    seconds_left -= monotonic() - began_at
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
        summary="Show one whole dead letter. The answer holds sub and sid, unless subject=false.",
        scope="read",
        query=ShowQuery,
        answers={200: to_answer("The dead letter.", id=str, reason=str, outcomes=NotRequired[Items])},
        problems={404: "There is no dead letter with that id.", 503: _UNAVAILABLE_TEXT},
    )
    async def _show(self, request: ApiRequest) -> Document:
        """Return one dead letter. The audit log records a read that shows the user."""
        with_subject = request.members.get("subject", True)
        filter_ = self._filter(request)
        if with_subject:
            self._requests.audit.log_read("shown", request.who, filter_)
        to_document = to_export_document if with_subject else to_document_without_subject
        return await self._requests.answer_first_message(
            filter_, request, lambda _, message: to_document(message), whole=True
        )

    @ApiOperation(
        route="POST /v1/dead-letters/replay",
        summary="Deliver dead letters again: a job in the background. Location is its address.",
        scope="repair",
        body=ReplayBody,
        answers={202: JOB_STARTED_ANSWER,
            200: to_answer("With dry_run: how many would be replayed, and how many stay and why.", replayed=int,
            **REPAIR_MEMBERS)},
        problems=_PROBLEMS | TOO_MANY_JOBS,
    )  # fmt: skip
    async def _replay(self, request: ApiRequest) -> ApiAnswer:
        """Start a replay as a job, or count what it would replay (`dry_run`)."""
        filter_, members = self._filter(request), request.members
        self._requests.require_narrowed(filter_, request)
        who = request.who  # a job outlives its request
        end_newer_sessions = bool(members.get("end_newer_sessions"))
        rules = self._access.rules(end_newer_sessions)
        if members.get("dry_run"):

            async def act(options: RepairOptions) -> RepairResult:
                return await replay(self._dead_letters, filter_, rules, options)

            return await self._requests.answer_repair("replayed", act, filter_, request)

        self._requests.require_queue()

        repair_id = new_id()

        def conclude(result: RepairResult) -> None:
            self._requests.forget_index()
            self._requests.audit.log_repair(
                "replayed", who, filter_, result, end_newer_sessions=end_newer_sessions, repair_id=repair_id
            )

        replay_request = ReplayRequest(id=repair_id, who=who, filter_=filter_, rules=rules)
        replay_ = Replay(self._access.queue, self._dead_letters, replay_request)
        repair_request = RepairRequest(
            kind="replay", filter_=filter_, issuers=issuers_of(filter_), run=replay_.run, reasons=replay_.reasons,
            conclude=conclude, watch=replay_.watch, limit=members.get("limit"), rate=members.get("rate"),
        )  # fmt: skip
        return answer_accepted(self._access.jobs.begin(RepairWork(repair_request), request.token))

    @ApiOperation(
        route="DELETE /v1/dead-letters",
        summary="Delete dead letters permanently: a job in the background. Location is its address.",
        scope="repair",
        query=RepairMembers,
        answers={
            202: JOB_STARTED_ANSWER,
            200: to_answer("With dry_run: how many would be deleted.", discarded=int, **REPAIR_MEMBERS),
        },
        problems=_PROBLEMS | TOO_MANY_JOBS,
    )
    async def _discard(self, request: ApiRequest) -> ApiAnswer:
        return await self._requests.answer_removal("discard", self._filter(request), request)

    @ApiOperation(
        route="DELETE /v1/dead-letters/{id}",
        summary="Delete one dead letter permanently.",
        scope="repair",
        answers={200: to_answer("How many dead letters with that id were deleted.", discarded=int, **REPAIR_MEMBERS)},
        problems={404: f"{_MISSING_TEXT}.", 503: _UNAVAILABLE_TEXT},
    )
    async def _discard_one(self, request: ApiRequest) -> ApiAnswer:
        return await self._requests.answer_removal("discard", self._filter(request), request)

    def _filter(self, request: ApiRequest) -> DeadLetterFilter:
        """Return the filter of the request, for dead letters that the token may see. Raises Refusal (400)."""
        filter_ = read_filter(conditions_of(request), self._access.clock(), issuers=request.issuers)
        if isinstance(filter_, InputIssue):
            raise malformed_refusal(InputIssue(filter_.path, excerpt(filter_.text, 200)))
        return filter_

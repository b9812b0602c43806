"""`/v1/dead-letters`: looking (scope `read`), replaying and discarding (`repair`), as the command line does.

A token that may speak for some issuers alone sees and repairs their letters alone. A repair ends after a minute, or at
its limit, and says that there is more: asked again, it goes on. One request at a time has the letters, and not at its
reader's pace: an export waits for its reader so many seconds in all. Of those that only look one at a time stands in
line, so that a repair waits for one of them at most.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from notifier.domain.errors import QueueError
from notifier.domain.letter_filter import LetterFilter, LetterSummary
from notifier.domain.moment import render_moment
from notifier.domain.printable import json_text
from notifier.domain.readmission import ReplayRules
from notifier.operations import dead_letter_repair
from notifier.operations.dead_letter_audit import DeadLetterAudit
from notifier.operations.dead_letter_export import exported
from notifier.operations.dead_letter_listing import DeadLetters, LetterCounts, LetterGroup, rows
from notifier.operations.dead_letter_repair import RepairOptions, RepairResult
from notifier.server.authorization import Authorization, Bearer
from notifier.server.openapi import AnswerDescription, OperationDescription, described
from notifier.server.operators import dead_letter_requests as requests
from notifier.server.problem import Refusal, problem

LIMIT = 1000  # letters that a repair takes, where nothing is said
AT_MOST = 60.0  # seconds that a repair lasts
BUSY_FOR = 20.0  # seconds that a request waits for another's end
READ_WITHIN = 10.0  # seconds that an export waits for its reader, all its waits together
ANYONE = "anyone (no tokens_file)"

_OBJECT = {"type": "object"}
_AWAY = "The queue is away, or another has the dead letters at hand."
_PROBLEMS = {400: "The request is malformed; every mistake is told.", 503: _AWAY}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterAccess:
    """What the routes work with. `rules` are asked at each replay, since the registry may have been reloaded."""

    letters: DeadLetters
    rules: Callable[[bool], ReplayRules]
    audit: DeadLetterAudit
    clock: Callable[[], float]
    steady: Callable[[], float]


class DeadLetterRoutes:
    """The routes of `/v1/dead-letters`: list, show, export, replay, discard."""

    def __init__(self, authorization: Authorization, desk: DeadLetterAccess) -> None:
        self._authorization = authorization
        self._desk = desk
        self._alone = asyncio.Lock()
        self._looking = asyncio.Lock()  # taken before it, by those that only look

    def routes(self) -> list[web.RouteDef]:
        """To be served by the API."""
        return [
            web.get("/v1/dead-letters", self._list, allow_head=False),
            web.get("/v1/dead-letters/export", self._export, allow_head=False),
            web.get("/v1/dead-letters/{id}", self._show, allow_head=False),
            web.post("/v1/dead-letters/replay", self._replay),
            web.delete("/v1/dead-letters", self._discard),
            web.delete("/v1/dead-letters/{id}", self._discard_one),
        ]

    @described(
        OperationDescription(
            summary="Count dead letters by client and reason; with rows, show the oldest too.",
            scope="read",
            query=requests.query_of(requests.LOOK),
            answers={200: AnswerDescription(text="Groups, the largest first.", schema=_OBJECT)},
            problems=_PROBLEMS,
        )
    )
    async def _list(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "read")
        asked = requests.asked_in_query(request, requests.LOOK)
        wanted, counts, shown = self._wanted(asked, token), LetterCounts(), list[dict[str, object]]()
        async with self._at_hand(looking=True), aclosing(rows(self._desk.letters, wanted)) as found:
            async for row, _ in found:
                counts.add(row)
                if len(shown) < asked.get("rows", 0):
                    shown.append(row.document())
        document: dict[str, object] = {"total": counts.total, "groups": list(map(_group, counts.groups()))}
        return web.json_response(document | ({"letters": shown} if "rows" in asked else {}), dumps=json_text)

    @described(
        OperationDescription(
            summary="Every letter that is meant, whole, one JSON object a line. It holds sub and sid.",
            scope="read",
            query=requests.query_of(requests.WHICH),
            answers={200: AnswerDescription(text="Oldest first.", schema={}, kind="application/x-ndjson")},
            problems=_PROBLEMS,
        )
    )
    async def _export(self, request: web.Request) -> web.StreamResponse:
        token = self._authorization.require(request, "read")
        wanted = self._wanted(requests.asked_in_query(request, requests.WHICH), token)
        self._desk.audit.read("exported", _who(token), wanted)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        patience, steady = READ_WITHIN, self._desk.steady
        try:
            async with self._at_hand(looking=True), aclosing(rows(self._desk.letters, wanted, whole=True)) as found:
                async for _, message in found:
                    if not response.prepared:
                        await response.prepare(request)
                    line, begun = json_text(exported(message)).encode() + b"\n", steady()
                    async with asyncio.timeout(patience):  # a reader that stalls or drips holds the letters
                        await response.write(line)
                    patience -= steady() - begun
        except (Refusal, TimeoutError):
            if not response.prepared:
                raise
            if request.transport is not None:
                request.transport.abort()  # half an export must not look like a whole one
            return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    @described(
        OperationDescription(
            summary="One letter, whole. It holds sub and sid.",
            scope="read",
            answers={200: AnswerDescription(text="The letter.", schema=_OBJECT)},
            problems={404: "There is none of that id.", 503: _AWAY},
        )
    )
    async def _show(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "read")
        wanted = self._wanted({"id": [request.match_info["id"]]}, token)
        self._desk.audit.read("shown", _who(token), wanted)
        async with self._at_hand(looking=True), aclosing(rows(self._desk.letters, wanted, whole=True)) as found:
            async for _, message in found:
                return web.json_response(exported(message), dumps=json_text)
        raise Refusal(problem(404, "There is no such dead letter"))

    @described(
        OperationDescription(
            summary="Have letters delivered anew. Asked again while there is more, it goes on.",
            scope="repair",
            body={"application/json": requests.schema_of(requests.REPLAY)},
            answers={
                200: AnswerDescription(
                    text="What was done, what stays and why, and whether there is more.", schema=_OBJECT
                )
            },
            problems={**_PROBLEMS, 413: "The body is too large.", 415: "The body is of another kind."},
        )
    )
    async def _replay(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = await requests.asked_in_body(request, requests.REPLAY)
        wanted = self._wanted(asked, token)
        requests.check_narrowed(wanted, asked)
        force = bool(asked.get("end_newer_sessions"))
        rules = self._desk.rules(force)

        async def act(course: RepairOptions) -> RepairResult:
            return await dead_letter_repair.replay(self._desk.letters, wanted, rules, course)

        return await self._repair("replayed", token, wanted, asked, act, end_newer_sessions=force)

    @described(
        OperationDescription(
            summary="Forget letters for good. Asked again while there is more, it goes on.",
            scope="repair",
            query=requests.query_of(requests.DISCARD),
            answers={200: AnswerDescription(text="What was done, and whether there is more.", schema=_OBJECT)},
            problems=_PROBLEMS,
        )
    )
    async def _discard(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = requests.asked_in_query(request, requests.DISCARD)
        wanted = self._wanted(asked, token)
        requests.check_narrowed(wanted, asked)
        return await self._discarded(token, wanted, asked)

    @described(
        OperationDescription(
            summary="Forget one letter for good.",
            scope="repair",
            answers={200: AnswerDescription(text="How many of that id were forgotten.", schema=_OBJECT)},
            problems={503: _AWAY},
        )
    )
    async def _discard_one(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = {"id": [request.match_info["id"]]}
        return await self._discarded(token, self._wanted(asked, token), asked)

    async def _discarded(self, token: Bearer | None, wanted: LetterFilter, asked: dict[str, Any]) -> web.Response:
        who, dry_run = _who(token), bool(asked.get("dry_run"))

        async def act(course: RepairOptions) -> RepairResult:
            def told(row: LetterSummary) -> None:
                if not dry_run:
                    self._desk.audit.discarded(who, row)

            return await dead_letter_repair.discard(self._desk.letters, wanted, course, told)

        return await self._repair("discarded", token, wanted, asked, act)

    async def _repair(
        self,
        action: str,
        token: Bearer | None,
        wanted: LetterFilter,
        asked: dict[str, Any],
        act: Callable[[RepairOptions], Awaitable[RepairResult]],
        **more: object,
    ) -> web.Response:
        desk, dry_run = self._desk, bool(asked.get("dry_run"))
        async with self._at_hand():
            until = desk.steady() + AT_MOST
            course = RepairOptions(
                clock=desk.clock,
                steady=desk.steady,
                pause=asyncio.sleep,
                stop=lambda: desk.steady() >= until,
                rate=asked.get("rate"),
                limit=asked.get("limit", LIMIT),
                dry_run=dry_run,
            )
            account = await act(course)
            if not dry_run:
                desk.audit.repaired(action, _who(token), wanted, account, **more)
        if account.failed and not account.done:
            raise _away()
        document = account.document()
        if account.failed:  # in words that tell nothing of the insides
            document["unfinished"] = "the queue went away; what is left is as it was"
        return web.json_response({action: account.done, "dry_run": dry_run, **document}, dumps=json_text)

    def _wanted(self, asked: dict[str, Any], token: Bearer | None) -> LetterFilter:
        return requests.wanted_of(asked, token, self._desk.clock())

    @asynccontextmanager
    async def _at_hand(self, *, looking: bool = False) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(BUSY_FOR):
                    for turn in (self._looking, self._alone) if looking else (self._alone,):
                        await held.enter_async_context(turn)
            except TimeoutError:
                raise _away() from None
            try:
                yield
            except QueueError:
                raise _away() from None


def _away() -> Refusal:
    title = "The queue is away, or another command has the dead letters at hand; try again soon"
    return Refusal(problem(503, title, headers={"Retry-After": "5"}))


def _who(token: Bearer | None) -> str:
    return ANYONE if token is None else token.name


def _group(group: LetterGroup) -> dict[str, object]:
    return {
        "client_id": group.client_id,
        "iss": group.iss,
        "reason": group.reason,
        "count": group.count,
        "oldest": render_moment(group.oldest),
        "newest": render_moment(group.newest),
    }

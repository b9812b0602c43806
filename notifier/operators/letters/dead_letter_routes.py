"""`/v1/dead-letters`: list, show and export (scope `read`), replay and discard (scope `repair`).

A token with `issuers` sees and repairs only letters of those issuers. A repair ends at its limit or after a minute and
says if there is more; the same request then goes on. One request at a time has the letters. An export waits for its
reader for READ_WITHIN seconds in all, so that a slow reader does not hold them. Only one request that looks may wait
for them, so that a repair waits for one look at most.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from notifier.model.api_token import ApiToken
from notifier.model.printable import json_text
from notifier.model.registry import Registry
from notifier.network.listeners.authorization import Authorization, caller
from notifier.network.listeners.openapi import AnswerDescription, OperationDescription
from notifier.network.listeners.problem import Refusal, problem
from notifier.operators.letters import dead_letter_repair
from notifier.operators.letters import dead_letter_requests as requests
from notifier.operators.letters.dead_letter_audit import DeadLetterAudit
from notifier.operators.letters.dead_letter_listing import LetterCounts, exported, matching_letters
from notifier.operators.letters.letter_filter import LetterFilter, LetterSummary
from notifier.operators.letters.name_hints import NameHints
from notifier.operators.letters.readmission import ReplayRules
from notifier.operators.letters.turns import Turns
from notifier.operators.letters.visits import RepairResult
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import DeadLetters

LIMIT = 1000  # letters that a repair takes by default
AT_MOST = 60.0  # seconds that a repair lasts
READ_WITHIN = 10.0  # seconds that an export waits for its reader, all its waits together

_OBJECT = {"type": "object"}
_KNOWN = "it is registered now: replay it"
_AWAY = "The queue is away, or another request or command has the dead letters."
_PROBLEMS = {400: "The request is malformed; the answer lists every mistake.", 503: _AWAY}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterAccess:
    """What the routes need. `rules` is called at each replay, since the registry may have been reloaded.

    `registry`: the clients as registered now.
    """

    letters: DeadLetters
    rules: Callable[[bool], ReplayRules]
    registry: Callable[[], Registry]
    audit: DeadLetterAudit
    clock: Callable[[], float]
    steady: Callable[[], float]


class DeadLetterRoutes:
    """The routes of `/v1/dead-letters`: list, show, export, replay, discard."""

    def __init__(self, authorization: Authorization, access: DeadLetterAccess) -> None:
        self._authorization = authorization
        self._access = access
        self._turns = Turns(_AWAY)

    def routes(self) -> list[web.RouteDef]:
        """The routes that the API serves."""
        return [
            web.get("/v1/dead-letters", self._list, allow_head=False),
            web.get("/v1/dead-letters/export", self._export, allow_head=False),
            web.get("/v1/dead-letters/{id}", self._show, allow_head=False),
            web.post("/v1/dead-letters/replay", self._replay),
            web.delete("/v1/dead-letters", self._discard),
            web.delete("/v1/dead-letters/{id}", self._discard_one),
        ]

    @OperationDescription(
        summary="Count dead letters by client and reason; with rows, show the oldest too.",
        scope="read",
        query=requests.query_of(requests.LOOK),
        answers={200: AnswerDescription(text="Groups, the largest first.", schema=_OBJECT)},
        problems=_PROBLEMS,
    )
    async def _list(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "read")
        asked = requests.asked_in_query(request, requests.LOOK)
        chosen, counts, shown = self._filter(asked, token), LetterCounts(), list[dict[str, object]]()
        async with self._turns.turn(looking=True), aclosing(matching_letters(self._access.letters, chosen)) as found:
            async for summary, _ in found:
                counts.add(summary)
                if len(shown) < asked.get("rows", 0):
                    shown.append(summary.document())
        hints = NameHints(self._access.registry(), token, known=_KNOWN)
        groups = [each.document() | hints.of(each.reason, each.iss, each.client_id) for each in counts.groups()]
        document: dict[str, object] = {"total": counts.total, "groups": groups}
        return web.json_response(document | ({"letters": shown} if "rows" in asked else {}), dumps=json_text)

    @OperationDescription(
        summary="Export whole letters, one JSON object per line. The answer holds sub and sid.",
        scope="read",
        query=requests.query_of(requests.WHICH),
        answers={200: AnswerDescription(text="Oldest first.", schema={}, kind="application/x-ndjson")},
        problems=_PROBLEMS,
    )
    async def _export(self, request: web.Request) -> web.StreamResponse:
        token = self._authorization.require(request, "read")
        chosen = self._filter(requests.asked_in_query(request, requests.WHICH), token)
        self._access.audit.read("exported", caller(token), chosen)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        patience, steady = READ_WITHIN, self._access.steady
        try:
            async with (
                self._turns.turn(looking=True),
                aclosing(matching_letters(self._access.letters, chosen, whole=True)) as found,
            ):
                async for _, message in found:
                    if not response.prepared:
                        await response.prepare(request)
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
        summary="Show one whole letter. The answer holds sub and sid.",
        scope="read",
        answers={200: AnswerDescription(text="The letter.", schema=_OBJECT)},
        problems={404: "There is no letter with that id.", 503: _AWAY},
    )
    async def _show(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "read")
        chosen = self._filter({"id": [request.match_info["id"]]}, token)
        self._access.audit.read("shown", caller(token), chosen)
        async with (
            self._turns.turn(looking=True),
            aclosing(matching_letters(self._access.letters, chosen, whole=True)) as found,
        ):
            async for summary, message in found:
                hints = NameHints(self._access.registry(), token, known=_KNOWN)
                hint = hints.of(summary.reason, summary.iss, summary.client_id)
                return web.json_response(exported(message) | hint, dumps=json_text)
        raise Refusal(problem(404, "There is no such dead letter"))

    @OperationDescription(
        summary="Deliver letters again. If the answer says more, repeat the request.",
        scope="repair",
        body={"application/json": requests.schema_of(requests.REPLAY)},
        answers={
            200: AnswerDescription(
                text="How many were replayed, how many stay and why, and whether there is more.", schema=_OBJECT
            )
        },
        problems={**_PROBLEMS, 413: "The body is too large.", 415: "The body is not application/json."},
    )
    async def _replay(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = await requests.asked_in_body(request, requests.REPLAY)
        chosen = self._filter(asked, token)
        requests.check_narrowed(chosen, asked)
        force = bool(asked.get("end_newer_sessions"))
        rules = self._access.rules(force)

        async def act(options: RepairOptions) -> RepairResult:
            return await dead_letter_repair.replay(self._access.letters, chosen, rules, options)

        return await self._repair("replayed", token, chosen, asked, act, end_newer_sessions=force)

    @OperationDescription(
        summary="Delete letters for good. If the answer says more, repeat the request.",
        scope="repair",
        query=requests.query_of(requests.DISCARD),
        answers={200: AnswerDescription(text="How many were deleted, and whether there is more.", schema=_OBJECT)},
        problems=_PROBLEMS,
    )
    async def _discard(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = requests.asked_in_query(request, requests.DISCARD)
        chosen = self._filter(asked, token)
        requests.check_narrowed(chosen, asked)
        return await self._discarded(token, chosen, asked)

    @OperationDescription(
        summary="Delete one letter for good.",
        scope="repair",
        answers={200: AnswerDescription(text="How many letters with that id were deleted.", schema=_OBJECT)},
        problems={503: _AWAY},
    )
    async def _discard_one(self, request: web.Request) -> web.Response:
        token = self._authorization.require(request, "repair")
        asked = {"id": [request.match_info["id"]]}
        return await self._discarded(token, self._filter(asked, token), asked)

    async def _discarded(self, token: ApiToken | None, chosen: LetterFilter, asked: dict[str, Any]) -> web.Response:
        who, dry_run = caller(token), bool(asked.get("dry_run"))

        async def act(options: RepairOptions) -> RepairResult:
            def told(summary: LetterSummary) -> None:
                if not dry_run:
                    self._access.audit.discarded(who, summary)

            return await dead_letter_repair.discard(self._access.letters, chosen, options, told)

        return await self._repair("discarded", token, chosen, asked, act)

    async def _repair(
        self,
        action: str,
        token: ApiToken | None,
        chosen: LetterFilter,
        asked: dict[str, Any],
        act: Callable[[RepairOptions], Awaitable[RepairResult]],
        **more: object,
    ) -> web.Response:
        access, dry_run = self._access, bool(asked.get("dry_run"))
        async with self._turns.turn():
            until = access.steady() + AT_MOST
            options = RepairOptions(
                clock=access.clock,
                steady=access.steady,
                pause=asyncio.sleep,
                stop=lambda: access.steady() >= until,
                rate=asked.get("rate"),
                limit=asked.get("limit", LIMIT),
                dry_run=dry_run,
            )
            result = await act(options)
            if not dry_run:
                access.audit.repaired(action, caller(token), chosen, result, **more)
        if result.failed and not result.done:
            raise self._turns.refusal()
        document = result.document()
        if result.failed:  # its own text names hosts and files
            document["unfinished"] = "the queue went away; the rest is unchanged"
        return web.json_response({action: result.done, "dry_run": dry_run, **document}, dumps=json_text)

    def _filter(self, asked: dict[str, Any], token: ApiToken | None) -> LetterFilter:
        return requests.filter_of(asked, token, self._access.clock())

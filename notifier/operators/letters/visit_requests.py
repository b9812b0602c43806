"""Answers requests that go through dead letters, or through what waits: with counts, with a message, after a repair.

One request at a time has the messages. Requests that only look wait for one another first, so a repair waits for one
look at most. So do jobs: they follow one another, and are no reason for one at a slow rate to give way.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeVar

from aiohttp import web

from notifier.model.api_token import ApiToken
from notifier.model.errors import Mistake, QueueError
from notifier.model.message import Message
from notifier.model.nearest import NOBODY_KNOWS, near_either
from notifier.model.printable import json_text
from notifier.model.registry import Registry
from notifier.network.listeners.authorization import caller, concerns
from notifier.network.listeners.problem import Refusal, malformed, problem
from notifier.operators.letters.groups import GroupCounts, Summary
from notifier.operators.letters.job_routes import begun
from notifier.operators.letters.jobs import AWAY, Jobs
from notifier.operators.letters.message_index import AskedPage, Chosen, Indexes, MessageIndex, Shown
from notifier.operators.letters.readmission import ReplayRules
from notifier.operators.letters.repair import remove
from notifier.operators.letters.repair_audit import RepairAudit, WriteAudit, given
from notifier.operators.letters.repair_jobs import DID, AskedRepair, RemovalPasses, RepairWork, issuers_of
from notifier.operators.letters.visits import Filter, RepairResult, found_in
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

BUSY_FOR = 20.0  # seconds that a request waits for another to end
HINTS = 5  # of one answer: each costs some milliseconds of the event loop
PAGE_AGE = 60.0  # seconds that the index behind a page may be old, unless it is asked otherwise
PAGE_ROWS = 50
FOUND = 200  # summaries that one who looks for something gets


P = TypeVar("P")
S = TypeVar("S", bound=Summary)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LettersAccess:
    """What the routes need. `rules` and `registry` are called at each request, since a reload may have changed them."""

    queue: Queue
    rules: Callable[[bool], ReplayRules]
    registry: Callable[[], Registry]
    jobs: Jobs
    write_audit: WriteAudit
    clock: Callable[[], float]
    steady: Callable[[], float]
    indexes: Indexes
    subject_id: Callable[[str], str] = given


class VisitRequests:
    """The requests about the dead letters, or about what waits. `away`: the queue is away, or others are at it.

    `known` is said of a name that nobody knew and that is registered by now.
    """

    def __init__(self, access: LettersAccess, *, away: str, known: str) -> None:
        self.audit = RepairAudit(access.write_audit, access.subject_id)
        self._access = access
        self._away = away
        self._known = known
        self._alone = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._patient = asyncio.Lock()
        self._waiting = 0

    @property
    def wanted(self) -> bool:
        """True if a request waits for its turn."""
        return self._waiting > 0

    @asynccontextmanager
    async def turn(self, *, looking: bool = False, patient: bool = False) -> AsyncIterator[None]:
        """Hold the messages alone. Raises Refusal (503) if the queue is away, or if it takes long and not `patient`."""
        async with AsyncExitStack() as stack:
            if patient:
                await stack.enter_async_context(self._patient)
            self._waiting += 1
            try:
                async with asyncio.timeout(None if patient else BUSY_FOR):
                    for lock in (self._looking, self._alone) if looking else (self._alone,):
                        await stack.enter_async_context(lock)
            except TimeoutError:
                raise self._refusal() from None
            finally:
                self._waiting -= 1
            try:
                yield
            except QueueError:
                raise self._refusal() from None
            finally:
                if not looking:
                    self._access.indexes.forget(self)

    def require_queue(self) -> None:
        """Raise Refusal (503) while the queue is away."""
        if not self._access.queue.status().connected:
            raise self._refusal()

    def _refusal(self) -> Refusal:
        return Refusal(problem(503, f"{self._away.rstrip('.')}; try again soon", headers={"Retry-After": "5"}))

    async def counts(
        self, messages: P, filter_: Filter[P, S], token: ApiToken | None, asked: Mapping[str, Any], *, rows: str
    ) -> web.Response:
        """How many there are of each group, and some of them, if they are asked for, as the member `rows`."""
        self.audit.looked(caller(token), filter_)
        most, skip = asked.get("rows", 0), asked.get("skip", 0)
        counts, shown = GroupCounts(), list[dict[str, object]]()
        async with self.turn(looking=True), aclosing(found_in(messages, filter_)) as summaries:
            async for summary, _ in summaries:
                counts.add(summary)
                if skip < counts.total <= skip + most:
                    shown.append(summary.document())
        groups = [group.document() for group in counts.groups()]
        self._add_hints(groups, token)
        document: dict[str, object] = {"total": counts.total, "groups": groups}
        return web.json_response(document | ({rows: shown} if "rows" in asked else {}), dumps=json_text)

    async def page(
        self,
        messages: P,
        everything: Filter[P, S],
        chosen: Chosen,
        token: ApiToken | None,
        asked: Mapping[str, Any],
        *,
        rows: str,
        groups: int,
        newest_first: bool = False,
    ) -> web.Response:
        """A page of those that are meant, of an index of `everything`; it holds no message while it makes the page."""
        if "subject" in asked:
            raise malformed(Mistake("subject", "a page has no users: search for them with POST …/find"))

        async def make() -> MessageIndex:
            index = MessageIndex(self._access.clock, self._access.steady)
            async with self.turn(looking=True), aclosing(found_in(messages, everything)) as summaries:
                async for summary, _ in summaries:
                    index.add(summary)
            index.complete()
            return index

        index = await self._access.indexes.index(self, asked.get("age", PAGE_AGE), make)
        reasons = frozenset(asked.get("reason", ()))
        selection = Shown(chosen=chosen, reasons=reasons, newest_first=newest_first)
        skip, most = asked.get("skip", 0), asked.get("rows", PAGE_ROWS)
        page = AskedPage(selection=selection, rows=most, skip=skip, groups=groups)
        document = await index.page(page, rows)
        self._add_hints(document["groups"], token)
        return web.json_response(document, dumps=json_text)

    async def found(self, messages: P, filter_: Filter[P, S], token: ApiToken | None, *, rows: str) -> web.Response:
        """The first that somebody looks for, which is logged, and how many there are."""
        self.audit.read("looked_for", caller(token), filter_)
        total, shown = 0, list[dict[str, object]]()
        async with self.turn(looking=True), aclosing(found_in(messages, filter_)) as summaries:
            async for summary, _ in summaries:
                total += 1
                if total <= FOUND:
                    shown.append(summary.document())
        return web.json_response({"total": total, rows: shown}, dumps=json_text)

    async def message(
        self,
        messages: P,
        filter_: Filter[P, S],
        token: ApiToken | None,
        document: Callable[[S, Message], dict[str, object]],
        *,
        missing: str,
        whole: bool = False,
    ) -> web.Response:
        """The first message that the filter means, as a document. Raises Refusal: 404 with the text `missing`."""
        async with self.turn(looking=True), aclosing(found_in(messages, filter_, whole=whole)) as summaries:
            async for summary, message in summaries:
                hint = self._hint(summary.reason, summary.iss, summary.client_id, token)
                return web.json_response(document(summary, message) | hint, dumps=json_text)
        raise Refusal(problem(404, missing))

    def _add_hints(self, groups: Iterable[dict[str, Any]], token: ApiToken | None) -> None:
        for group in islice((each for each in groups if each["reason"] in NOBODY_KNOWS), HINTS):
            group.update(self._hint(group["reason"], group["iss"], group["client_id"], token))

    def _hint(self, reason: str | None, iss: str, client_id: str, token: ApiToken | None) -> dict[str, object]:
        """What its name most likely meant, if nobody knows it. No issuer is named that the token does not cover."""
        if reason not in NOBODY_KNOWS:
            return {}
        hint = near_either(iss, client_id, self._access.registry(), if_registered=self._known)
        return {"hint": hint.text} if hint is not None and concerns(token, hint.issuer.iss) else {}

    def begin_removal(
        self,
        kind: Literal["discard", "cancel"],
        messages: P,
        filter_: Filter[P, S],
        token: ApiToken | None,
        asked: Mapping[str, Any],
    ) -> web.Response:
        """Begin a job that deletes what is meant. Raises Refusal (429, 503)."""
        self.require_queue()
        who = caller(token)

        def report(summary: S) -> None:
            self.audit.removed(who, summary)

        def conclude(result: RepairResult) -> None:
            self.audit.repaired(DID[kind], who, filter_, result)

        passes = RemovalPasses(messages, filter_, report)
        wanted = AskedRepair(
            kind=kind, chosen=filter_, issuers=issuers_of(filter_), passes=passes, conclude=conclude,
            most=asked.get("limit"),
        )  # fmt: skip
        return begun(self._access.jobs, RepairWork(wanted, self), token)

    async def removed(
        self,
        did: str,
        messages: P,
        filter_: Filter[P, S],
        token: ApiToken | None,
        asked: Mapping[str, Any],
        *,
        within: float,
        missing: str | None = None,
    ) -> web.Response:
        """Delete what is meant at once. See `repaired`."""

        async def act(options: RepairOptions) -> RepairResult:
            def report(summary: S) -> None:
                if not options.dry_run:
                    self.audit.removed(caller(token), summary)

            return await remove(messages, filter_, options, report)

        return await self.repaired(did, act, filter_, token, asked, within=within, missing=missing)

    async def repaired(
        self,
        did: str,
        act: Callable[[RepairOptions], Awaitable[RepairResult]],
        filter_: Filter[Any, Any],
        token: ApiToken | None,
        asked: Mapping[str, Any],
        *,
        within: float,
        missing: str | None = None,
    ) -> web.Response:
        """Have the messages alone for a repair, `within` so many seconds, log it, and return the result: `did`.

        Raises Refusal: 404 with the text `missing`, if it is given and there is no such message.
        """
        access, dry_run = self._access, bool(asked.get("dry_run"))
        if dry_run:
            self.audit.looked(caller(token), filter_)
        async with self.turn(looking=dry_run):
            until = access.steady() + within
            options = RepairOptions(
                clock=access.clock, steady=access.steady, pause=asyncio.sleep, stop=lambda: access.steady() >= until,
                limit=asked.get("limit"), dry_run=dry_run,
            )  # fmt: skip
            result = await act(options)
            if not dry_run:
                self.audit.repaired(did, caller(token), filter_, result)
        if result.failed and not result.done:
            raise self._refusal()
        if missing is not None and not result.done and result.unfinished is None:
            raise Refusal(problem(404, missing))
        document = result.document()
        if result.failed:  # its own text names hosts and files
            document["unfinished"] = AWAY
        return web.json_response({did: result.done, "dry_run": dry_run, **document}, dumps=json_text)

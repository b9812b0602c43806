"""Answers API requests on dead letters or pending deliveries: counts, pages, single messages, repairs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.errors import InputIssue, QueueBusy, QueueError
from notifier.model.ids import new_id
from notifier.model.message import Message
from notifier.model.registry import Registry
from notifier.network.listeners.operation import ApiAnswer, ApiRequest, CallerTurns, Counts, Document, Items
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response
from notifier.operators.deliveries.groups import GroupCounts, Summary
from notifier.operators.deliveries.job_routes import answer_accepted
from notifier.operators.deliveries.jobs import Jobs
from notifier.operators.deliveries.message_index import MessageIndex, MessageIndexes, PageSelection
from notifier.operators.deliveries.readmission import ReplayRules
from notifier.operators.deliveries.repair import RepairAudit, WriteAudit, mask_subject, remove
from notifier.operators.deliveries.repair_jobs import PAST_VERBS, RepairRequest, RepairWork, issuers_of
from notifier.operators.deliveries.repair_pass import Filter, find_messages
from notifier.operators.deliveries.repair_result import RepairResult, close_failure
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue

REPAIR_SECONDS = 60.0  # seconds that a dry run of a repair may last
DEFAULT_PAGE_AGE_SECONDS = 60.0  # maximum age of the index of a page
DEFAULT_PAGE_ROWS = 50
MAX_FOUND_MESSAGES = 200  # summaries in the answer of a search

P = TypeVar("P")
S = TypeVar("S", bound=Summary)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDependencies:
    """The dependencies of the routes on messages.

    `rules` returns the rules of a replay for a value of `end_newer_sessions`. `rules` and `registry` are called per
    request, since a reload may change the result. `clock` is the wall clock, `monotonic` never jumps. `subject_id`
    returns what the audit log shows in place of a `sub` or `sid`.
    """

    queue: Queue
    rules: Callable[[bool], ReplayRules]
    registry: Callable[[], Registry]
    jobs: Jobs
    write_audit: WriteAudit
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    indexes: MessageIndexes
    subject_id: Callable[[str], str] = mask_subject


REPAIR_MEMBERS = {
    "dry_run": bool, "by_reason": Counts, "by_client": Items, "clients": int, "kept": Counts, "more": bool,
    "unfinished": str | None,
}  # fmt: skip


@with_config(ConfigDict(extra="forbid"))
class SearchBody(TypedDict, total=False):
    """The body of a search. It is not in the query, since proxies log URLs."""

    subject: Annotated[str, Field(min_length=1, max_length=1000, description="A sub or a sid.")]
    event_id: Annotated[str, Field(min_length=1, max_length=1000, description="An event.")]
    client_id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Only at this client.")]
    iss: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Only at this issuer.")]


def conditions_of(request: ApiRequest) -> Mapping[str, Any]:
    """Return the members of a filter that a request has: the ID in its path, or else its members."""
    return {"id": [request.path["id"]]} if "id" in request.path else request.members


class MessageRequests(Generic[P, S]):
    """Answers the requests on `messages`: dead letters or pending deliveries.

    `rows_member` names the list of messages in an answer. `unavailable_text` is the text of a 503, for a queue that is
    unavailable or in use; `missing_text` that of a 404, for a message that does not exist.
    """

    def __init__(
        self, access: RouteDependencies, messages: P, *, rows_member: Literal["letters", "deliveries"],
        unavailable_text: str, missing_text: str,
    ) -> None:  # fmt: skip
        self.audit = RepairAudit(access.write_audit, access.subject_id)
        self._access = access
        self._messages = messages
        self._rows_member = rows_member
        self._unavailable_text = unavailable_text
        self._missing_text = missing_text
        self._turns = CallerTurns()

    @asynccontextmanager
    async def turn(self, request: ApiRequest) -> AsyncIterator[None]:
        """Wait for the caller's other requests, then do the same as `access`.

        Passes follow each other in the order of their requests. So of each caller only one request may wait for others.
        """
        async with self._turns.turn(request):
            with self.access(request):
                yield

    @contextmanager
    def access(self, request: ApiRequest) -> Iterator[None]:
        """Raise Refusal (503) if the queue fails in the block, or others hold the messages."""
        try:
            yield
        except QueueBusy as busy:
            raise self._busy_refusal(str(busy), request) from None
        except QueueError:
            raise self._refusal(self._unavailable_text) from None

    def forget_index(self) -> None:
        """Drop the index, whose messages have changed."""
        self._access.indexes.forget(self)

    def require_queue(self) -> None:
        """Raise Refusal (503) while the queue is unavailable."""
        if not self._access.queue.status().connected:
            raise self._refusal(self._unavailable_text)

    def _busy_refusal(self, text: str, request: ApiRequest) -> Refusal:
        """Return the refusal with the holder's name, unless the token may see the jobs of some issuers only."""
        return self._refusal(text if request.issuers is None else self._unavailable_text)

    def _refusal(self, text: str) -> Refusal:
        title = f"{text[0].upper()}{text[1:].rstrip('.')}; try again soon"
        return Refusal(problem_response(503, title, headers={"Retry-After": "5"}))

    def repair_options(self, request: ApiRequest) -> RepairOptions:
        """Return the options of a repair that ends with its request, after REPAIR_SECONDS at most."""
        monotonic = self._access.monotonic
        until = monotonic() + REPAIR_SECONDS
        return RepairOptions(
            clock=self._access.clock, monotonic=monotonic, pause=asyncio.sleep, stop=lambda: monotonic() >= until,
            limit=request.members.get("limit"), dry_run=bool(request.members.get("dry_run")),
        )  # fmt: skip

    async def answer_counts(self, filter_: Filter[P, S], request: ApiRequest) -> Document:
        """Return the number of messages per group and, if the request has `rows`, some messages."""
        members = request.members
        self.audit.log_search(request.who, filter_)
        counts, rows = await self._collect(filter_, request, members.get("skip", 0), members.get("rows", 0))
        document: Document = {"total": counts.total, "groups": [group.document() for group in counts.groups()]}
        if "rows" in members:
            document[self._rows_member] = rows
        return document

    async def answer_page(
        self,
        index_filter: Filter[P, S],
        filter_: Filter[P, S],
        request: ApiRequest,
        *,
        groups: int,
        newest_first: bool = False,
    ) -> Document:
        """Return a page of the messages that `filter_` selects, and the `groups` largest groups.

        The page is read from an index of the messages that `index_filter` selects, which is built if necessary.
        """
        members = request.members
        if "subject" in members:
            raise malformed_refusal(InputIssue("subject", "a page cannot filter by user: use POST …/find"))

        async def build() -> MessageIndex:
            index = MessageIndex(self._access.clock, self._access.monotonic)
            with self.access(request):
                async with aclosing(find_messages(self._messages, index_filter)) as summaries:
                    async for summary, _ in summaries:
                        index.add(summary)
            index.complete()
            return index

        index = await self._access.indexes.index(self, members.get("age", DEFAULT_PAGE_AGE_SECONDS), build)
        reasons = frozenset(members.get("reason", ()))
        selection = PageSelection(filter_=filter_, reasons=reasons, newest_first=newest_first)
        skip, rows = members.get("skip", 0), members.get("rows", DEFAULT_PAGE_ROWS)
        return await index.page(selection, self._rows_member, rows=rows, skip=skip, groups=groups)

    async def answer_search(self, filter_: Filter[P, S], request: ApiRequest) -> Document:
        """Return the first messages of a user, session or event, and the number of all. Log the search."""
        if not request.members.keys() & {"subject", "event_id"}:
            raise malformed_refusal(InputIssue("", "give subject (a sub or a sid) or event_id to search for"))
        self.audit.log_read("looked_for", request.who, filter_)
        counts, rows = await self._collect(filter_, request, 0, MAX_FOUND_MESSAGES)
        return {"total": counts.total, self._rows_member: rows}

    async def _collect(
        self, filter_: Filter[P, S], request: ApiRequest, skip: int, limit: int
    ) -> tuple[GroupCounts, list[Document]]:
        """Count the selected messages. Return the counts, and `limit` messages after the first `skip` as JSON."""
        counts, rows = GroupCounts(), list[Document]()
        async with self.turn(request), aclosing(find_messages(self._messages, filter_)) as summaries:
            async for summary, _ in summaries:
                counts.add(summary)
                if skip < counts.total <= skip + limit:
                    rows.append(summary.document())
        return counts, rows

    async def answer_first_message(
        self,
        filter_: Filter[P, S],
        request: ApiRequest,
        to_document: Callable[[S, Message], Document],
        *,
        whole: bool = False,
    ) -> Document:
        """Return the first selected message; `to_document` receives its body if `whole`. Raises Refusal (404)."""
        async with (
            self.turn(request),
            aclosing(find_messages(self._messages, filter_, whole=whole)) as summaries,
        ):
            async for summary, message in summaries:
                return to_document(summary, message)
        raise Refusal(problem_response(404, self._missing_text))

    def require_narrowed(self, filter_: Filter[P, S], request: ApiRequest) -> None:
        """Raise Refusal (400) if the request has neither a condition nor `all`."""
        if not filter_.has_conditions and not request.members.get("all"):
            raise malformed_refusal(InputIssue("", f"give a condition for the {self._rows_member}, or all: true"))

    async def answer_removal(
        self, kind: Literal["discard", "cancel"], filter_: Filter[P, S], request: ApiRequest
    ) -> ApiAnswer:
        """Delete the message in the path, or start a job that deletes all selected messages.

        A dry run counts the messages instead. Raises Refusal (400, 404, 429, 503).
        """
        is_single, dry_run = "id" in request.path, bool(request.members.get("dry_run"))
        who, repair_id = request.who, new_id()  # a job outlives its request; its lines have the same `repair_id`
        reasons = Counter[str]()

        def report(summary: S) -> None:
            reasons[summary.reason] += 1
            self.audit.log_removal(who, summary, repair_id=repair_id)

        def conclude(result: RepairResult) -> None:
            self.forget_index()
            self.audit.log_repair(PAST_VERBS[kind], who, filter_, result, repair_id=repair_id)

        async def act(
            options: RepairOptions, on_result: Callable[[RepairResult], None] = lambda _: None
        ) -> RepairResult:
            result = await remove(self._messages, filter_, options, report)
            on_result(result)
            return result

        if not is_single:
            self.require_narrowed(filter_, request)
        if is_single or dry_run:
            return await self.answer_repair(PAST_VERBS[kind], act, filter_, request, repair_id=repair_id)
        self.require_queue()
        repair = RepairRequest(
            kind=kind, filter_=filter_, issuers=issuers_of(filter_), conclude=conclude, run=act, reasons=reasons,
            limit=request.members.get("limit"),
        )  # fmt: skip
        return answer_accepted(self._access.jobs.begin(RepairWork(repair), request.token))

    async def answer_repair(
        self,
        past_verb: str,
        act: Callable[[RepairOptions], Awaitable[RepairResult]],
        filter_: Filter[P, S],
        request: ApiRequest,
        **details: object,
    ) -> Document:
        """Carry out the repair `act`, log it with `details`, and return the result.

        Raises Refusal: 404 if the message in the path does not exist, 503 if the queue is unavailable.
        """
        dry_run = bool(request.members.get("dry_run"))
        if dry_run:
            self.audit.log_search(request.who, filter_)
        async with self.turn(request):
            result = close_failure(await act(self.repair_options(request)))
        if not dry_run:
            self.forget_index()
            self.audit.log_repair(past_verb, request.who, filter_, result, **details)
        if result.busy:
            raise self._busy_refusal(str(result.unfinished), request)
        if result.failed and not result.done:
            raise self._refusal(self._unavailable_text)
        if "id" in request.path and not result.done and result.unfinished is None:
            raise Refusal(problem_response(404, self._missing_text))
        return {past_verb: result.done, "dry_run": dry_run, **result.document()}

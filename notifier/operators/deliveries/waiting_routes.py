"""`/v1/waiting`: list, show (scope `read`) and cancel (`repair`) pending deliveries; `/v1/retry`: attempt them now.

A token with `issuers` sees and changes only deliveries of those issuers. On RabbitMQ one pass at a time reads the
pending deliveries. A retry and a cancellation are jobs (`repair_jobs`), except a dry run and the cancellation of one
delivery.
"""

from dataclasses import replace
from functools import partial
from typing import Annotated, NotRequired

from pydantic import Field

from notifier.model.client import Client, ClientKey
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import EventDocument
from notifier.model.errors import InputIssue
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import find_only_issuer
from notifier.network.listeners.authorization import permits_issuer
from notifier.network.listeners.operation import ApiAnswer, ApiOperation, ApiRequest, Counts, Document, Items, to_answer
from notifier.network.listeners.problem import malformed_refusal
from notifier.operators.deliveries.job_documents import WAITING_JOBS, name_holder
from notifier.operators.deliveries.job_routes import JOB_STARTED_ANSWER, TOO_MANY_JOBS, answer_accepted
from notifier.operators.deliveries.message_index import PAGE_MEMBERS, PageQuery
from notifier.operators.deliveries.message_requests import (
    REPAIR_MEMBERS,
    MessageRequests,
    RouteDependencies,
    SearchBody,
    conditions_of,
)
from notifier.operators.deliveries.repair_jobs import RetryWork
from notifier.operators.deliveries.retry_now import RetryMembers, preview_retry
from notifier.operators.deliveries.retry_request import RetryRequest
from notifier.operators.deliveries.waiting_filter import (
    CancelMembers,
    WaitingFilter,
    WaitingMembers,
    WaitingSummary,
    read_waiting_filter,
)
from notifier.operators.status.lifetime import Lifetime, lifetime_of
from notifier.queues.queue_port import WaitingDeliveries

GROUPS_PER_PAGE = 100

_UNAVAILABLE_TEXT = "The queue is unavailable, or another request or command holds the pending deliveries."
_MISSING_TEXT = "No such delivery is pending: it was delivered or given up, or a worker is processing it"
_PROBLEMS = {400: "The request is malformed; the answer lists every mistake.", 503: _UNAVAILABLE_TEXT}


class WaitingListQuery(WaitingMembers, total=False):
    """The query of a list."""

    rows: Annotated[int, Field(ge=0, le=1000, description="Show this many deliveries beside the counts.")]
    skip: Annotated[int, Field(ge=0, description="Leave out this many of the rows: for the next page.")]


class WaitingPageQuery(PageQuery, WaitingMembers, total=False):
    """The query of a page."""


class WaitingRoutes:
    """The routes of `/v1/waiting` and `/v1/retry`."""

    def __init__(self, access: RouteDependencies) -> None:
        self._access = access
        self._waiting = access.queue.waiting(partial(name_holder, access.queue, "api", WAITING_JOBS))
        self._requests = MessageRequests[WaitingDeliveries, WaitingSummary](
            access,
            self._waiting,
            rows_member="deliveries",
            unavailable_text=_UNAVAILABLE_TEXT,
            missing_text=_MISSING_TEXT,
        )

    @ApiOperation(
        route="GET /v1/waiting",
        summary="Count the pending deliveries by client and reason; with rows, list some too. Changes nothing.",
        scope="read",
        query=WaitingListQuery,
        answers={200: to_answer("Groups, the largest first.", total=int, groups=Items, deliveries=NotRequired[Items])},
        problems=_PROBLEMS,
    )
    async def _list(self, request: ApiRequest) -> Document:
        return await self._requests.answer_counts(self._filter_with_lifetime(request), request)

    @ApiOperation(
        route="GET /v1/waiting/page",
        summary="Show a page of pending deliveries with counts by reason and client, from an index of one pass.",
        scope="read",
        query=WaitingPageQuery,
        answers={
            200: to_answer("The page. `reasons` and `groups` also count others.", **PAGE_MEMBERS, deliveries=Items)
        },
        problems=_PROBLEMS,
    )
    async def _page(self, request: ApiRequest) -> Document:
        index_filter = WaitingFilter(get_lifetime=self._get_lifetime)
        filter_ = replace(self._filter(request), reasons=frozenset())  # the counts include all reasons
        self._requests.audit.log_search(request.who, filter_)
        return await self._requests.answer_page(index_filter, filter_, request, groups=GROUPS_PER_PAGE)

    @ApiOperation(
        route="POST /v1/waiting/find",
        summary="Find the pending deliveries of a user, a session or an event. The answer holds no sub and no sid.",
        scope="read",
        body=SearchBody,
        answers={200: to_answer("Summaries, 200 at most.", total=int, deliveries=Items)},
        problems=_PROBLEMS,
    )
    async def _find(self, request: ApiRequest) -> Document:
        return await self._requests.answer_search(self._filter_with_lifetime(request), request)

    @ApiOperation(
        route="GET /v1/waiting/{id}",
        summary="Show one pending delivery. The answer holds no sub and no sid.",
        scope="read",
        answers={200: to_answer("The delivery.", id=str, event_id=str, client_id=str, iss=str, where=str,
            reason=str, attempts=int, since=str | None, due=str | None, expires=str | None, has_sid=bool | None)},
        problems={404: "No such delivery is pending.", 503: _UNAVAILABLE_TEXT},
    )  # fmt: skip
    async def _show(self, request: ApiRequest) -> Document:
        return await self._requests.answer_first_message(
            self._filter_with_lifetime(request), request, lambda summary, _: summary.document()
        )

    @ApiOperation(
        route="DELETE /v1/waiting",
        summary="Delete pending deliveries permanently: a job. Location is its address.",
        scope="repair",
        query=CancelMembers,
        answers={
            202: JOB_STARTED_ANSWER,
            200: to_answer("With dry_run: how many would be cancelled.", cancelled=int, **REPAIR_MEMBERS),
        },
        problems=_PROBLEMS | TOO_MANY_JOBS,
    )
    async def _cancel(self, request: ApiRequest) -> ApiAnswer:
        return await self._requests.answer_removal("cancel", self._filter(request), request)

    @ApiOperation(
        route="DELETE /v1/waiting/{id}",
        summary="Delete one pending delivery permanently.",
        scope="repair",
        answers={200: to_answer("How many deliveries with that id were cancelled.", cancelled=int, **REPAIR_MEMBERS)},
        problems={404: f"{_MISSING_TEXT}.", 503: _UNAVAILABLE_TEXT},
    )
    async def _cancel_one(self, request: ApiRequest) -> ApiAnswer:
        return await self._requests.answer_removal("cancel", self._filter(request), request)

    @ApiOperation(
        route="POST /v1/retry",
        summary="Attempt the pending deliveries of a client now: a job. Location is its address.",
        scope="repair",
        body=RetryMembers,
        answers={202: JOB_STARTED_ANSWER, 200: to_answer("With dry_run: pending by reason.", client_id=str, iss=str,
            dry_run=bool, waited=int, asked=int, waiting=int, waiting_for=Counts, unknown=int,
            workers=Counts, unfinished=str | None)},
        problems=_PROBLEMS | TOO_MANY_JOBS,
    )  # fmt: skip
    async def _retry(self, request: ApiRequest) -> ApiAnswer:
        """Start a retry as a job, or answer with an equal job that runs already. With `dry_run`, only count."""
        access, members, token = self._access, request.members, request.token
        (iss, client_id), _ = find_client(request, access.registry())
        force = bool(members.get("force"))
        retry = RetryRequest(key=(iss, client_id), who=request.who, force=force, registry=access.registry)
        if not members.get("dry_run"):
            self._requests.require_queue()
            work = RetryWork(access.queue, retry, access.write_audit)
            return answer_accepted(await access.jobs.find_equal(work, token) or access.jobs.begin(work, token))
        async with self._requests.turn(request):
            result = await preview_retry(access.queue, self._waiting, retry, self._requests.repair_options(request))
        return {"client_id": client_id, "iss": iss, "dry_run": True, **result.document()}

    def _get_lifetime(self, pending: Delivery | EventDocument) -> Lifetime | None:
        return lifetime_of(pending, self._access.registry())

    def _filter_with_lifetime(self, request: ApiRequest) -> WaitingFilter:
        return replace(self._filter(request), get_lifetime=self._get_lifetime)

    def _filter(self, request: ApiRequest) -> WaitingFilter:
        """Return the filter of the request. Raises Refusal (400).

        If the request names a client but no issuer, add the only issuer that its token covers (issuers for tests do not
        count): then only one bucket is read.
        """
        members = conditions_of(request)
        sole_issuer = None
        if "client_id" in members:
            sole_issuer = find_only_issuer(_list_covered_issuers(request, self._access.registry()))
        filter_ = read_waiting_filter({"iss": sole_issuer, **members}, self._access.clock(), request.issuers)
        if isinstance(filter_, InputIssue):
            raise malformed_refusal(filter_)
        return filter_


def find_client(request: ApiRequest, registry: Registry) -> tuple[ClientKey, Client | None]:
    """Return the client whose ID or alias the request has; None if the registry does not have it.

    Without an issuer it is the only issuer of the token. Raises Refusal (400, 403).
    """
    issuers = _list_covered_issuers(request, registry)
    client_id, iss = request.members["client_id"], request.members.get("iss", find_only_issuer(issuers))
    if iss is None:
        known = ", ".join(sorted(issuers)) or "none for this token"
        raise malformed_refusal(InputIssue("iss", f"give the issuer: one of {known}"))
    request.require_issuer(iss)
    client = registry.resolve(iss, client_id, None)
    return (iss, client_id) if client is None else client.key, client


def _list_covered_issuers(request: ApiRequest, registry: Registry) -> list[str]:
    return [iss for iss in registry.issuers if permits_issuer(request.token, iss)]

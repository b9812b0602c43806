"""`GET /v1/status` and `POST /v1/reload`.

The status has the pending messages, the rates, and the states of workers and clients. A token with issuers gets only
their clients, and no text that may name other issuers. The workers are queried at most once a second, whatever the
number of requests. A reload makes all workers read their configuration and registry sources.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.errors import QueueError
from notifier.model.shared_resources import shared_lock
from notifier.network.listeners.authorization import permits_all_issuers, permits_issuer
from notifier.network.listeners.operation import ApiOperation, ApiRequest, Document, Items, MomentText, to_answer
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.operators.status.reload_request import ReloadRequest, ReloadResults
from notifier.operators.status.service_status import ServiceStatus
from notifier.operators.status.status_document import document_of
from notifier.telemetry.audit import write_audit

MAX_AGE_SECONDS = 1.0  # for which a status is reused


class StatusRoutes:
    """The status route. `query_workers` returns the current status; `monotonic` is a clock that never jumps."""

    def __init__(
        self,
        query_workers: Callable[[], Awaitable[ServiceStatus]],
        monotonic: Callable[[], float],
    ) -> None:
        self._query_workers = query_workers
        self._monotonic = monotonic
        self._last: ServiceStatus | None = None
        self._read_at = 0.0
        self._read_lock = shared_lock()

    @ApiOperation(
        route="GET /v1/status",
        summary="Show the pending messages, the rates, and the state of workers and clients.",
        scope="read",
        answers={
            200: to_answer(
                "The current status.",
                at=MomentText,
                queues=Document,
                rates=Document,
                workers=Document,
                clients=Items,
                clients_left_out=int | None,
                bindings_missing=NotRequired[Items],
                keys=NotRequired[Items],
                troubles=NotRequired[Items],
            )
        },
    )
    async def _get(self, request: ApiRequest) -> Document:
        token = request.token
        permits = None if permits_all_issuers(token) else partial(permits_issuer, token)
        return document_of(await self._read_status(), permits)

    async def _read_status(self) -> ServiceStatus:
        async with self._read_lock:
            if self._last is None or self._monotonic() - self._read_at > MAX_AGE_SECONDS:
                self._last = await self._query_workers()
                self._read_at = self._monotonic()
            return self._last


@with_config(ConfigDict(extra="forbid"))
class ReloadQuery(TypedDict, total=False):
    """The query of a reload."""

    accept_loss: Annotated[bool, Field(description="Accept that many clients would no longer be notified.")]
    drop: Annotated[str, Field(description="A registry source: drop its answers and cache.")]


class ReloadRoutes:
    """The reload route. It requires a token with scope `repair` and without issuers.

    The worker that receives the request logs the proven name of the token. All workers log the name as claimed.
    """

    def __init__(self, reload: Callable[[ReloadRequest], Awaitable[ReloadResults]]) -> None:
        self._reload = reload

    @ApiOperation(
        route="POST /v1/reload",
        summary="Have all workers read their configuration and registry sources now.",
        scope="repair",
        unbound=True,
        query=ReloadQuery,
        answers={
            200: to_answer(
                "What each worker did. `taken` is true if all of them have the new configuration and registry.",
                taken=bool,
                workers=Document,
            )
        },
        problems={503: "The queue cannot be reached."},
    )
    async def _post(self, request: ApiRequest) -> Document:
        """Reload all workers, and return their results. Raises Refusal (503)."""
        accept_loss, drop = request.members.get("accept_loss", False), request.members.get("drop")
        reload_request = ReloadRequest(who=request.who, accept_loss=accept_loss, dropped_source=drop)
        write_audit("reload_asked", who=request.who, accept_loss=accept_loss, drop=drop)
        try:
            return (await self._reload(reload_request)).document()
        except QueueError:
            title = "The queue is unavailable; try again soon"
            raise Refusal(problem_response(503, title, headers={"Retry-After": "5"})) from None

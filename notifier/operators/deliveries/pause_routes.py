"""`POST /v1/pause` and `/v1/resume` (scope `repair`), and `GET /v1/pauses` (`read`): pause clients at run time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.loading import LoadedConfiguration
from notifier.configuration.provenance import describe_pausing_source
from notifier.model.client import ClientKey
from notifier.model.errors import ChangeRefused, ChangeUncertain, InputIssue, NotifierError, QueueUnavailable
from notifier.model.nearest import suggest_client
from notifier.model.own_thread import run_in_thread
from notifier.model.registry import Registry
from notifier.network.listeners.authorization import permits_issuer
from notifier.network.listeners.operation import ApiOperation, ApiRequest, CallerTurns, Document, Items, to_answer
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response
from notifier.operators.deliveries.pause_request import PauseMembers, PauseRequests, ResumeMembers
from notifier.operators.deliveries.repair_result import log_queue_failure
from notifier.operators.deliveries.waiting_routes import find_client
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import MAX_NAME_CHARACTERS

_UNAVAILABLE = "The queue is unavailable: GET /v1/pauses shows whether anything was changed"
_UNCERTAIN = "The queue has not confirmed the change: it takes effect afterwards, or is lost; see GET /v1/pauses"
_PROBLEMS = {
    400: "The request is malformed; the answer lists every mistake.",
    404: "There is no such client.",
    409: "The pauses have no room for this change.",
    503: "The queue is unavailable, or has not confirmed the change: then it takes effect afterwards.",
}
_RESULT = {"paused": Items, "former": Items, "workers": Document, "followers": list[str], "expiring": int | None}


@with_config(ConfigDict(extra="forbid"))
class PausesQuery(TypedDict, total=False):
    """The query of the list."""

    expiring: Annotated[bool, Field(description="Count the deliveries that may expire before the end, by a pass.")]


class PauseRoutes:
    """The routes. The requests of each caller follow each other, since each may hold the register for a while."""

    def __init__(self, queue: Queue, loaded: Callable[[], LoadedConfiguration]) -> None:
        self._queue, self._loaded, self._turns = queue, loaded, CallerTurns()

    @ApiOperation(
        route="POST /v1/pause",
        summary="Pause a client: its deliveries wait until the end, and are then attempted.",
        scope="repair",
        body=PauseMembers,
        answers={200: to_answer("The new pauses, as paused.", **_RESULT)},
        problems=_PROBLEMS,
    )
    async def _pause(self, request: ApiRequest) -> Document:
        async with self._turn(request) as requests:
            key, client = find_client(request, requests.registry)
            if client is None:
                raise _unknown_client(request, key, requests.registry)
            result = await requests.pause(key, request.members)
        if isinstance(result, InputIssue):
            raise malformed_refusal(result)
        return result.document()

    @ApiOperation(
        route="POST /v1/resume",
        summary="End the pause of a client now.",
        scope="repair",
        body=ResumeMembers,
        answers={200: to_answer("The ended pauses as former. note: why it stays paused.", note=str | None, **_RESULT)},
        problems=_PROBLEMS,
    )
    async def _resume(self, request: ApiRequest) -> Document:
        async with self._turn(request) as requests:
            key, client = find_client(request, requests.registry)
            result = await requests.resume(key, request.members)
        if client is None and not result.former:
            raise _unknown_client(request, key, requests.registry)
        note = None
        if client is not None and client.paused:
            describe = partial(describe_pausing_source, self._loaded(), key)
            note = await run_in_thread(describe, "registration of a paused client")
        return result.document() | {"note": note}

    @ApiOperation(
        route="GET /v1/pauses",
        summary="List the pauses of clients, in force and ended.",
        scope="read",
        query=PausesQuery,
        answers={200: to_answer("First the pauses in force. Late workers apply none.", pauses=Items, workers=Document)},
        problems={503: "The queue is unavailable."},
    )
    async def _list(self, request: ApiRequest) -> Document:
        selects, counts = partial(permits_issuer, request.token), request.members.get("expiring", False)
        async with self._turn(request) as requests:
            pauses, workers = await requests.list_pauses(selects, counts=counts)
        return {"pauses": pauses, "workers": asdict(workers)}

    @asynccontextmanager
    async def _turn(self, request: ApiRequest) -> AsyncIterator[PauseRequests]:
        """Wait for the caller's turn. Raises Refusal (409, 503): the log has the host of a queue that fails, not it."""
        who = request.who[:MAX_NAME_CHARACTERS]
        async with self._turns.turn(request):
            try:
                yield PauseRequests(queue=self._queue, registry=self._loaded().registry, who=who, proven=True)
            except ChangeRefused as refused:
                raise Refusal(problem_response(409, str(refused))) from None
            except NotifierError as error:
                log_queue_failure(error)
                text = str(error)
                if isinstance(error, QueueUnavailable):
                    text = _UNCERTAIN if isinstance(error, ChangeUncertain) else _UNAVAILABLE
                raise Refusal(problem_response(503, text, headers={"Retry-After": "5"})) from None


def _unknown_client(request: ApiRequest, key: ClientKey, registry: Registry) -> Refusal:
    """Return the refusal (404), with the reason if it is left out, or a similar name if the token covers its issuer."""
    if (reason := registry.why_left_out(*key)) is not None:
        return Refusal(problem_response(404, f"The registry leaves this client out: {reason}"))
    hint = suggest_client(*key, registry)
    known = hint is not None and permits_issuer(request.token, hint.issuer.iss)
    return Refusal(problem_response(404, f"There is no such client{f'; {hint.text}' if hint and known else ''}"))

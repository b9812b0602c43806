"""`POST /v1/pause` and `/v1/resume` (scope `repair`), and `GET /v1/pauses` (`read`): pause clients at run time."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.loading import LoadedConfiguration
from notifier.configuration.provenance import find_pausing_source
from notifier.model.client import Client, ClientKey
from notifier.model.errors import ChangeUncertain, InputIssue, NotifierError, QueueUnavailable
from notifier.model.nearest import suggest_client
from notifier.model.own_thread import run_in_thread
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import find_only_issuer
from notifier.network.listeners.authorization import permits_issuer
from notifier.network.listeners.operation import ApiOperation, ApiRequest, CallerTurns, Document, Items, to_answer
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response
from notifier.operators.deliveries.pause_request import (
    PauseMembers,
    ResumeMembers,
    describe_pausing_source,
    list_pauses,
    plan_pauses,
    request_pause,
    request_resume,
    select_clients,
)
from notifier.operators.deliveries.repair_result import log_queue_failure
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import MAX_NAME_CHARACTERS

_UNAVAILABLE = "The queue is unavailable: GET /v1/pauses shows whether anything was changed"
_UNCERTAIN = "The queue has not confirmed the change: it takes effect afterwards, or is lost; see GET /v1/pauses"
_PROBLEMS = {
    400: "The request is malformed; the answer lists every mistake.",
    404: "There is no such client.",
    503: "The queue is unavailable, or has not confirmed the change: then it takes effect afterwards.",
}
_WORKERS = {"workers": Document, "former": Items, "followers": list[str]}


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
        answers={200: to_answer("The pauses made.", paused=Items, expiring=int | None, **_WORKERS)},
        problems=_PROBLEMS,
    )
    async def _pause(self, request: ApiRequest) -> Document:
        registry = self._loaded().registry
        key, client = self._find_client(request, registry)
        if client is None:
            raise _unknown_client(request, key, registry)
        who = request.who[:MAX_NAME_CHARACTERS]
        pauses, mistakes = plan_pauses(registry, key, request.members, who, time.time())
        if mistakes:
            raise malformed_refusal(*mistakes)
        async with self._turn(request):
            result = await request_pause(self._queue, registry, pauses, time.time, proven=True)
        return result.document()

    @ApiOperation(
        route="POST /v1/resume",
        summary="End the pause of a client now.",
        scope="repair",
        body=ResumeMembers,
        answers={
            200: to_answer("The pauses ended, as former; note: why it is still paused.", note=str | None, **_WORKERS)
        },
        problems=_PROBLEMS,
    )
    async def _resume(self, request: ApiRequest) -> Document:
        registry = self._loaded().registry
        key, client = self._find_client(request, registry)
        who = request.who[:MAX_NAME_CHARACTERS]
        async with self._turn(request):
            keys = select_clients(registry, key, request.members)
            result = await request_resume(self._queue, registry, keys, who, time.time, proven=True)
        if client is None and not result.former:
            raise _unknown_client(request, key, registry)
        members, note = result.document(), None
        if client is not None and client.paused:
            find = partial(find_pausing_source, self._loaded(), client.key)
            note = describe_pausing_source(await run_in_thread(find, "registration of a paused client"))
        return {name: members[name] for name in _WORKERS} | {"note": note}

    @ApiOperation(
        route="GET /v1/pauses",
        summary="List the pauses of clients, in force and ended.",
        scope="read",
        query=PausesQuery,
        answers={
            200: to_answer(
                "Those in force first. Workers that do not apply them are late.", pauses=Items, workers=Document
            )
        },
        problems={503: "The queue is unavailable."},
    )
    async def _list(self, request: ApiRequest) -> Document:
        async with self._turn(request):
            rows, asked = await list_pauses(
                self._queue, self._loaded().registry, request.who, time.time,
                selects=partial(permits_issuer, request.token), counts=request.members.get("expiring", False),
            )  # fmt: skip
        return {"pauses": rows, "workers": asked.document()["workers"]}

    def _find_client(self, request: ApiRequest, registry: Registry) -> tuple[ClientKey, Client | None]:
        """Return the client, whose alias may be given; None if the registry does not have it. Raises Refusal (403)."""
        client_id, iss = request.members["client_id"], request.members.get("iss")
        issuers = registry.issuers if request.issuers is None else request.issuers & registry.issuers.keys()
        if (iss := iss or find_only_issuer(issuers)) is None:
            raise malformed_refusal(InputIssue("iss", "give the issuer: there are several"))
        request.require_issuer(iss)
        client = registry.resolve(iss, client_id, None)
        return (iss, client_id) if client is None else client.key, client

    @asynccontextmanager
    async def _turn(self, request: ApiRequest) -> AsyncIterator[None]:
        """Wait for the caller's turn. Raises Refusal (503) if the queue fails: its log line has the host, not it."""
        async with self._turns.turn(request):
            try:
                yield
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

"""`POST /v1/pause` and `/v1/resume` (scope `repair`), and `GET /v1/pauses` (`read`): pause clients at run time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.loading import LoadedConfiguration
from notifier.configuration.provenance import find_pausing_source
from notifier.model.client import Client, ClientKey
from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.errors import InputIssue, NotifierError
from notifier.model.ids import new_id
from notifier.model.nearest import suggest_client
from notifier.model.own_thread import run_in_thread
from notifier.model.pauses import Pause, expire, in_force
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import find_only_issuer
from notifier.network.listeners.authorization import permits_issuer
from notifier.network.listeners.operation import ApiOperation, ApiRequest, Document, Items, to_answer
from notifier.network.listeners.problem import Refusal, malformed_refusal, problem_response
from notifier.operators.deliveries.pause_request import (
    ask_workers,
    check_reason,
    count_expiring,
    describe_pausing_source,
    list_followers,
    pause_document,
    read_end,
    request_pause,
    request_resume,
)
from notifier.operators.status.pause_watch import PauseWatch, max_paused_of, write_pause_audit
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import MAX_NAME_CHARACTERS

_ClientId = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="The client, or an alias.")]
_Issuer = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="Its issuer. Needed if there are several.")
]
_Followers = Annotated[bool, Field(description="Also the clients that follow this one.")]
_PROBLEMS = {
    400: "The request is malformed; the answer lists every mistake.",
    404: "There is no such client.",
    503: "The queue is unavailable, or has not confirmed the change: then it takes effect afterwards.",
}
_WORKERS = {"workers": Document, "former": Items, "followers": list[str]}

PauseBody = TypedDict(
    "PauseBody",
    {
        "client_id": _ClientId,
        "iss": NotRequired[_Issuer],
        "for": NotRequired[Annotated[str, Field(description="A duration, such as 2h. Either this or until.")]],
        "until": NotRequired[Annotated[str, Field(description="The end: RFC 3339 with an offset.")]],
        "reason": Annotated[str, Field(description="Shown wherever the pause is: 1 to 200 characters.")],
        "followers": NotRequired[_Followers],
    },
)
with_config(ConfigDict(extra="forbid"))(PauseBody)


@with_config(ConfigDict(extra="forbid"))
class ResumeBody(TypedDict):
    """The body of a resume."""

    client_id: _ClientId
    iss: NotRequired[_Issuer]
    followers: NotRequired[_Followers]


@with_config(ConfigDict(extra="forbid"))
class PausesQuery(TypedDict, total=False):
    """The query of the list."""

    expiring: Annotated[bool, Field(description="Count the deliveries that expire before the end, by a whole pass.")]


class PauseRoutes:
    """The routes. `watch` is this worker's."""

    def __init__(self, queue: Queue, watch: PauseWatch, loaded: Callable[[], LoadedConfiguration]) -> None:
        self._queue, self._watch, self._loaded = queue, watch, loaded

    @ApiOperation(
        route="POST /v1/pause",
        summary="Pause a client: its deliveries wait until the end, and are then attempted.",
        scope="repair",
        body=PauseBody,
        answers={200: to_answer("The pauses made.", paused=Items, expiring=int | None, **_WORKERS)},
        problems=_PROBLEMS,
    )
    async def _pause(self, request: ApiRequest) -> Document:
        registry, members, now = self._loaded().registry, request.members, time.time()
        key, _ = self._find_client(request, registry)
        end = read_end(members, now, max_paused_of(registry, key))
        mistakes = [each for each in (end, check_reason(members["reason"])) if isinstance(each, InputIssue)]
        if mistakes or isinstance(end, InputIssue):
            raise malformed_refusal(*mistakes)
        followers = list_followers(registry, key)
        ids, who = [key[1], *(followers if members.get("followers", False) else ())], request.who[:MAX_NAME_CHARACTERS]
        pauses = [
            Pause(id=new_id(), iss=key[0], client_id=each, who=who, reason=members["reason"], since=now, until=end)
            for each in ids
        ]
        with _answering():
            result = await request_pause(self._queue, pauses, time.time)
        for each in pauses:
            write_pause_audit("client_paused", each, who)
        counts = await count_expiring(self._queue, {pause.key: end for pause in pauses}, registry)
        expiring = None if counts is None else counts.total()
        left = [each for each in followers if each not in ids]
        return copy_record(result, expiring=expiring, followers=left).document()

    @ApiOperation(
        route="POST /v1/resume",
        summary="End the pause of a client now.",
        scope="repair",
        body=ResumeBody,
        answers={
            200: to_answer("The pauses ended, as former; note: why it is still paused.", note=str | None, **_WORKERS)
        },
        problems=_PROBLEMS,
    )
    async def _resume(self, request: ApiRequest) -> Document:
        registry = self._loaded().registry
        key, client = self._find_client(request, registry, may_be_paused=True)
        followers = list_followers(registry, key) if request.members.get("followers", False) else ()
        keys, who = [key, *((key[0], each) for each in followers)], request.who[:MAX_NAME_CHARACTERS]
        with _answering():
            result = await request_resume(self._queue, keys, who, time.time)
        for pause in result.former:
            write_pause_audit("client_resumed", pause, who)
        members = result.document()
        note = None
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
        now = time.time()
        with _answering():
            document = expire(await self._queue.register.read(), now)
            asked = await ask_workers(self._queue, document.version, request.who, time.time)
        shown = [pause for pause in document.pauses if permits_issuer(request.token, pause.iss)]
        rows: list[dict[str, Any]] = [pause_document(pause) for pause in shown]
        if request.members.get("expiring", False):
            ends = {pause.key: pause.until for pause in in_force(document, now).values() if pause in shown}
            counts = await count_expiring(self._queue, ends, self._loaded().registry) if ends else None
            for row, pause in zip(rows, shown, strict=True):
                row["expiring"] = None if counts is None or pause.ended_at is not None else counts[pause.key]
        return {"pauses": rows, "workers": asked.document()["workers"]}

    def _find_client(
        self, request: ApiRequest, registry: Registry, *, may_be_paused: bool = False
    ) -> tuple[ClientKey, Client | None]:
        """Return the client, whose alias may be given. Raises Refusal: 400, 403, 404 with a similar name.

        `may_be_paused`: it need not be registered while it is paused.
        """
        client_id, iss = request.members["client_id"], request.members.get("iss")
        issuers = registry.issuers if request.issuers is None else request.issuers & registry.issuers.keys()
        if (iss := iss or find_only_issuer(issuers)) is None:
            raise malformed_refusal(InputIssue("iss", "give the issuer: there are several"))
        request.require_issuer(iss)
        client = registry.resolve(iss, client_id, None)
        if client is not None:
            return client.key, client
        if may_be_paused and (iss, client_id) in self._watch.in_force:
            return (iss, client_id), None
        hint = suggest_client(iss, client_id, registry)
        known = hint is not None and permits_issuer(request.token, hint.issuer.iss)
        raise Refusal(problem_response(404, f"There is no such client{f'; {hint.text}' if hint and known else ''}"))


@contextmanager
def _answering() -> Iterator[None]:
    """Answer 503 with the reason if the queue fails. Raises Refusal."""
    try:
        yield
    except NotifierError as error:
        raise Refusal(problem_response(503, str(error), headers={"Retry-After": "5"})) from None

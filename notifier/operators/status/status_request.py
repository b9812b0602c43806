"""Requests the status from one worker's API and parses it, for a command while the broker is unavailable.

The response is untrusted: the document is validated as a whole first (`_Status`). Members that this release does not
know are ignored.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.clients.client_rows import SourceState
from notifier.model.client import TlsFiles
from notifier.model.errors import QueueError
from notifier.model.message import DEAD, DELAYED, PARKED, Depth
from notifier.model.moment import parse_moment
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import LaneState, ServiceStatus, WorkerState
from notifier.operators.status.status_document import CIRCUIT_STATES

TIMEOUT_SECONDS = 5.0  # the worker itself waits 2 s for the others
_BOUNDS = Bounds(answer=16 * 1024 * 1024)
_PATH = "/v1/status"


def _read_moment(text: object) -> float:
    if not isinstance(text, str):
        raise ValueError("not a string")  # noqa: TRY004  pydantic treats a TypeError as an internal error
    return parse_moment(text)


_MAX_NUMBER = 2**53
_Count = Annotated[int, Field(ge=-_MAX_NUMBER, le=_MAX_NUMBER)]
_Number = Annotated[float, Field(ge=-_MAX_NUMBER, le=_MAX_NUMBER, allow_inf_nan=False)]
_Moment = Annotated[float, BeforeValidator(_read_moment)]


class _Queue(TypedDict):
    ready: _Count
    held: NotRequired[_Count]
    oldest: NotRequired[_Moment | None]


class _Source(TypedDict):
    """`clients` and `problem` are None for a token with issuers."""

    name: str
    kind: str
    up: bool
    age: _Number
    clients: NotRequired[_Count | None]
    problem: NotRequired[str | None]
    changed: NotRequired[bool]


class _Worker(TypedDict):
    worker: str
    version: str
    since: _Moment
    draining: bool
    in_flight: _Count
    rates: dict[str, _Number]
    replies_dropped: _Count
    registry: list[_Source]
    consuming: NotRequired[bool | None]
    problem: NotRequired[str | None]


class _Workers(TypedDict):
    seen: _Count
    each: list[_Worker]


class _Client(TypedDict):
    iss: str
    client_id: str
    circuit: Literal["closed", "half-open", "open"]
    waiting: NotRequired[_Count]
    parked: NotRequired[_Count]
    delayed: NotRequired[_Count]
    delivered: NotRequired[_Count]
    dead: NotRequired[_Count]
    put_off: NotRequired[_Count]
    silent: NotRequired[_Number]
    status: NotRequired[_Count | None]
    reason: NotRequired[str | None]
    text: NotRequired[str | None]
    waits_for: NotRequired[str | None]
    last_success: NotRequired[_Moment | None]
    last_failure: NotRequired[_Moment | None]
    failing_since: NotRequired[_Moment | None]
    deferred_at: NotRequired[_Moment | None]
    next_due: NotRequired[_Moment | None]
    next_try: NotRequired[_Moment | None]
    next_attempt: NotRequired[_Moment | None]
    expires_with_sid: NotRequired[_Moment | None]
    expires_without_sid: NotRequired[_Moment | None]


class _Trouble(TypedDict):
    """`kind` may be unknown: a newer release may have it."""

    kind: str
    text: str | None
    since: _Moment | None
    iss: str | None
    client_id: str | None
    subject: str | None
    count: _Count
    workers: list[str]


class _Status(TypedDict):
    at: _Moment
    queues: dict[str, _Queue]
    workers: _Workers
    clients: list[_Client]
    clients_left_out: _Count | None
    troubles: list[_Trouble]


_STATUS = TypeAdapter(_Status)


async def fetch_status(url: str, token: str | None) -> ServiceStatus:
    """Return the status from this worker's API. Raises QueueError."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    where = url.rstrip("/").removesuffix(_PATH)
    client = JsonClient(_BOUNDS, TlsFiles())
    try:
        answer = await client.ask("GET", f"{where}{_PATH}", headers, within=TIMEOUT_SECONDS)
    except NoAnswer as fault:
        raise QueueError(f"{where}: {fault}") from None
    finally:
        await client.close()
    if answer.status in (401, 403):
        raise QueueError(f"{where} answered {answer.status}: name a token of scope read by --token-file")
    if answer.status != 200:
        raise QueueError(f"{where} answered {answer.status}, and no status; is it the address of a worker's API?")
    try:
        return parse_status(answer.content)
    except ValidationError:
        raise QueueError(f"{where} answered no status that this release knows") from None


def parse_status(content: object) -> ServiceStatus:
    """Return the status from a document of `document_of`. Raises ValidationError if the document is invalid."""
    document = _STATUS.validate_python(content, strict=True)
    queues, workers = document["queues"], document["workers"]
    held = {name: queue["held"] for name, queue in queues.items() if "held" in queue}
    depths = {
        DELAYED if name == "delayed" else name: Depth(ready=queue["ready"], consumers=0)
        for name, queue in queues.items()
    }
    known = bool(held) or PARKED in depths or DEAD in depths  # otherwise the worker cannot reach the queue
    troubles = document["troubles"]
    each = [_parse_worker(worker, troubles) for worker in workers["each"]]
    if each:  # the document has the total of held messages only
        each[0] = _parse_worker(workers["each"][0], troubles, held)
    return ServiceStatus(
        at=document["at"],
        depths=depths if known else {},
        oldest={name: at for name, queue in queues.items() if (at := queue.get("oldest")) is not None},
        workers=each,
        seen=workers["seen"],
        clients=[_parse_client(client) for client in document["clients"]],
        left_out=document["clients_left_out"] or 0,
        blocked=next(
            (
                trouble["text"] or "the queue takes no message"
                for trouble in troubles
                if trouble["kind"] == TroubleKind.BLOCKED and not trouble["workers"]
            ),
            "",
        ),
    )


def _parse_worker(members: _Worker, troubles: list[_Trouble], held: Mapping[str, int] | None = None) -> WorkerState:
    name = members["worker"]
    return WorkerState(
        worker=name,
        version=members["version"],
        since=members["since"],
        draining=members["draining"],
        in_flight=members["in_flight"],
        held={queue: LaneState(unsettled=count) for queue, count in (held or {}).items()},
        rates=members["rates"],
        clients=(),
        replies_dropped=members["replies_dropped"],
        registry=[_parse_source(source) for source in members["registry"]],
        troubles=[_parse_trouble(trouble, name) for trouble in troubles if name in trouble["workers"]],
        consuming=members.get("consuming"),
        problem=members.get("problem") or "",
    )


def _parse_trouble(members: _Trouble, worker: str) -> Trouble:
    """Return a trouble at one worker. The document has the total count, which is given to the first worker."""
    return Trouble(
        kind=members["kind"],
        since=members["since"],
        count=members["count"] if members["workers"][0] == worker else 0,
        text=members["text"] or "",
        iss=members["iss"] or "",
        client_id=members["client_id"] or "",
        subject=members["subject"] or "",
    )


def _parse_source(content: _Source) -> SourceState:
    members: Mapping[str, Any] = content
    return SourceState(**members)


def _parse_client(content: _Client) -> ClientState:
    names = {member.name for member in fields(ClientState)}
    members: dict[str, Any] = {name: value for name, value in content.items() if name in names}
    members |= {name: members.get(name) or "" for name in ("reason", "text", "waits_for")}
    circuit = CIRCUIT_STATES.index(content["circuit"])
    later = None if circuit else content.get("next_attempt")
    return ClientState(**members | {"circuit": circuit, "next_delayed": later})

"""Asks one worker's API for the status, and reads it back from JSON: for a command while the broker is away."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from notifier.configuration.clients.registry_refresh import SourceState
from notifier.model.client import TlsFiles
from notifier.model.errors import QueueError
from notifier.model.message import DEAD, DELAYED, PARKED, Depth
from notifier.model.moment import read_moment
from notifier.model.trouble import Trouble, TroubleKind
from notifier.network.http.json_client import JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.operators.status.client_state import ClientState
from notifier.operators.status.service_status import LaneState, ServiceStatus, WorkerState
from notifier.operators.status.status_document import CIRCUITS, EXPIRES

WITHIN = 5.0  # seconds: the worker asks the others for two of them
_BOUNDS = Bounds(answer=16 * 1024 * 1024)
_PATH = "/v1/status"
_MOMENTS = frozenset({"last_success", "last_failure", "next_due", "deferred_at", "next_try", *EXPIRES})


async def look_at_worker(url: str, token: str | None) -> ServiceStatus:
    """Return the status as this worker's API tells it. Raises QueueError."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    where = url.rstrip("/").removesuffix(_PATH)
    client = JsonClient(_BOUNDS, TlsFiles())
    try:
        answer = await client.ask("GET", f"{where}{_PATH}", headers, within=WITHIN)
    except NoAnswer as fault:
        raise QueueError(f"{where}: {fault}") from None
    finally:
        await client.close()
    if answer.status in (401, 403):
        raise QueueError(f"{where} answered {answer.status}: name a token of scope read by --token-file")
    if answer.status != 200:
        raise QueueError(f"{where} answered {answer.status}, and no status; is it the address of a worker's API?")
    try:
        return status_in(answer.content)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise QueueError(f"{where} answered no status that this release knows") from None


def status_in(document: Mapping[str, Any]) -> ServiceStatus:
    """Read what `document_of` wrote. Raises KeyError, TypeError or ValueError if it is something else."""
    queues, workers = dict(document["queues"]), document["workers"]
    held = {name: int(queue["held"]) for name, queue in queues.items() if "held" in queue}
    depths = {name: Depth(ready=int(queue["ready"]), consumers=0) for name, queue in queues.items()}
    depths = {DELAYED if name == "delayed" else name: depth for name, depth in depths.items()}
    known = bool(held) or PARKED in depths or DEAD in depths  # else the worker reached no queue
    each = [_worker(worker, document) for worker in workers["each"]]
    if each:  # the document sums up what the workers hold
        each[0] = _worker(workers["each"][0], document, held)
    return ServiceStatus(
        at=read_moment(document["at"]),
        depths=depths if known else {},
        oldest={name: at for name, queue in queues.items() if (at := _moment(queue.get("oldest"))) is not None},
        workers=each,
        seen=int(workers["seen"]),
        clients=[_client(client) for client in document["clients"]],
        left_out=int(document["clients_left_out"] or 0),
        blocked=next(
            (
                str(trouble["text"] or "the queue takes no message")
                for trouble in document["troubles"]
                if trouble["kind"] == TroubleKind.BLOCKED and not trouble["workers"]
            ),
            "",
        ),
    )


def _worker(said: Mapping[str, Any], document: Mapping[str, Any], held: Mapping[str, int] | None = None) -> WorkerState:
    name = str(said["worker"])
    return WorkerState(
        worker=name,
        version=str(said["version"]),
        since=read_moment(said["since"]),
        draining=bool(said["draining"]),
        in_flight=int(said["in_flight"]),
        held={queue: LaneState(unsettled=count) for queue, count in (held or {}).items()},
        rates={rate: float(value) for rate, value in said["rates"].items()},
        clients=(),
        replies_dropped=int(said["replies_dropped"]),
        registry=[_source(source) for source in said["registry"]],
        troubles=[_trouble(trouble, name) for trouble in document["troubles"] if name in trouble["workers"]],
    )


def _trouble(said: Mapping[str, Any], worker: str) -> Trouble:
    """One trouble at one worker. The document sums up its count, which the first worker gets."""
    texts = {name: str(said[name] or "") for name in ("text", "iss", "client_id", "subject")}
    count = int(said["count"]) if said["workers"][0] == worker else 0
    return Trouble(kind=TroubleKind(said["kind"]), since=_moment(said["since"]), count=count, **texts)


def _source(said: Mapping[str, Any]) -> SourceState:
    return SourceState(**{member.name: said[member.name] for member in fields(SourceState) if member.name in said})


def _client(said: Mapping[str, Any]) -> ClientState:
    members = {member.name: said[member.name] for member in fields(ClientState) if member.name in said}
    members |= {name: _moment(said.get(name)) for name in _MOMENTS}
    members |= {name: said.get(name) or "" for name in ("reason", "text", "waits_for")}
    circuit = CIRCUITS.index(said["circuit"])
    later = None if circuit else _moment(said.get("next_attempt"))
    return ClientState(**members | {"circuit": circuit, "next_delayed": later})


def _moment(text: object) -> float | None:
    return None if text is None else read_moment(str(text))

"""The state of the whole service for operators: what waits in the queues, and how workers and clients fare.

Each worker answers with its own state (`WorkerState`), as a document with a version. The asker sums the answers up
(`status_of`). A worker with very many clients reports those in trouble first.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.domain.frozen import frozen, replace
from notifier.domain.message import DEAD, DELAYED, PARKED, SOURCE, BindingState, Depth, Lane
from notifier.domain.moment import render_moment
from notifier.domain.outcome import Cause
from notifier.domain.trouble import SharedTrouble, Trouble, TroubleKind, merged
from notifier.domain.verdict import OF_CLIENT
from notifier.operations.health_observer import ClientRecord, HealthObserver
from notifier.operations.registry_refresh import SourceState

REPORTED = 500  # clients of one worker
BLOCKED = (
    "the broker takes no message (a memory or disk alarm), so that no worker can answer; logouts go on, and failed ones"
    " wait in the workers' memory; rabbitmq-diagnostics alarms says which node"
)
CIRCUITS = ("closed", "half-open", "open")
Key = tuple[str, str]


@frozen
class ClientState:
    """How one client fares at one worker, or at all of them. `waiting` deliveries wait in memory for a slot.

    `parked` deliveries wait in its bucket, see `BucketCounts`; `delayed` ones in delay queues, the next until
    `next_delayed`, see `DelayCounts`. `circuit`: 0 well, 1 tried now, 2 rests until `next_try`. `waits_for`: the cause
    of the last deferral, at `deferred_at`. `text`: what the last failure met. `delivered`, `dead` and `put_off`
    (retries and deferrals) are counted since the workers started.
    """

    iss: str
    client_id: str
    circuit: Literal[0, 1, 2] = 0
    waiting: int = 0
    delivered: int = 0
    dead: int = 0
    put_off: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    reason: str = ""
    status: int | None = None
    next_due: float | None = None
    next_try: float | None = None
    parked: int = 0
    waits_for: str = ""
    delayed: int = 0
    next_delayed: float | None = None
    deferred_at: float | None = None
    text: str = ""

    @property
    def state(self) -> Literal["rests", "tried", "put_off", "fails", "well"]:
        """How it fares, in a word. One that is only put off is not well, whoever is to blame."""
        if self.circuit:
            return "rests" if self.circuit == 2 else "tried"
        if self.held_back:
            return "put_off"
        return "fails" if self.troubled else "well"

    @property
    def held_back(self) -> bool:
        """True if it was put off last, for a fault of ours or before it ever took anything."""
        since = max(self.last_success or 0.0, self.last_failure or 0.0)
        of_client = self.waits_for in OF_CLIENT and self.last_success is not None
        return self.deferred_at is not None and self.deferred_at >= since and not of_client

    @property
    def waits(self) -> int:
        """How many deliveries wait for it: in memory, in its bucket and in delay queues."""
        return self.waiting + max(0, self.parked) + self.delayed

    @property
    def next_attempt(self) -> float | None:
        """When it is attempted next, as far as known; None if nothing waits."""
        return self.next_try if self.circuit else self.next_delayed

    @property
    def cause(self) -> str:
        """Why deliveries wait for it now: a cause of deferrals. Empty if none is known to wait."""
        if self.circuit and self.waits_for != Cause.RETRY_AFTER:
            return Cause.CIRCUIT
        return self.waits_for if self.circuit or self.waits or self.held_back else ""

    @property
    def troubled(self) -> bool:
        """True if its last attempt failed, or it is down."""
        return self.circuit > 0 or (self.last_failure or 0.0) > (self.last_success or 0.0)

    @property
    def urgency(self) -> tuple[int, bool, bool, int, float]:
        """A sort key: the client that most needs attention has the largest."""
        return self.circuit, self.troubled, self.held_back, self.waiting, self.last_failure or 0.0


@frozen
class LaneState:
    """How many messages of one lane, or of a source's queue, a worker holds, and since when the oldest waits."""

    unsettled: int = 0
    oldest: float | None = None


@frozen
class WorkerState:
    """The state of one worker. `rates` are per second, over the last minute; `held` is by queue."""

    worker: str
    version: str
    since: float
    draining: bool
    in_flight: int
    held: Mapping[str, LaneState]
    rates: Mapping[str, float]
    clients: Sequence[ClientState]
    left_out: int = 0
    replies_dropped: int = 0
    registry: Sequence[SourceState] = ()
    bindings_missing: Sequence[BindingState] = ()
    troubles: Sequence[Trouble] = ()


_RECORDED = tuple(each.name for each in fields(ClientRecord))
_SHOWN = tuple(each.name for each in fields(ClientState))


class _Document(TypedDict):
    v: Literal[1]
    stands: WorkerState


_DOCUMENT = TypeAdapter(_Document)


def dump_state(stands: WorkerState) -> bytes:
    """The document that a worker answers with."""
    return _DOCUMENT.dump_json({"v": 1, "stands": stands}, exclude_defaults=True)


def load_state(body: bytes) -> WorkerState | None:
    """Read a worker's answer. None if this release does not know its form."""
    try:
        return _DOCUMENT.validate_json(body)["stands"]
    except ValidationError:
        return None


def clients_of(
    health: HealthObserver,
    circuits: Iterable[tuple[str, str, int]],
    waiting: Iterable[tuple[str, str, int]],
    parked: Iterable[tuple[str, str, int]] = (),
    next_tries: Iterable[tuple[str, str, float]] = (),
    delayed: Iterable[tuple[str, str, int, float]] = (),
) -> tuple[list[ClientState], int]:
    """The clients that this worker knows, those in most trouble first, and how many are left out."""
    states = {(iss, client_id): state for iss, client_id, state in circuits}
    lines = {(iss, client_id): count for iss, client_id, count in waiting}
    in_buckets = {(iss, client_id): count for iss, client_id, count in parked}
    tries = {(iss, client_id): moment for iss, client_id, moment in next_tries}
    later = {(iss, client_id): (count, due) for iss, client_id, count, due in delayed}

    def urgency(item: tuple[Key, ClientRecord]) -> tuple[int, bool, bool, int, float]:
        key, record = item
        failed, took = record.last_failure or 0.0, record.last_success or 0.0
        put_off = (record.deferred_at or 0.0) > max(failed, took)
        return states.get(key, 0), failed > took, put_off, lines.get(key, 0), failed

    # Chosen before a ClientState is made of each: making 10,000 of them held the loop for 39 ms.
    chosen = heapq.nlargest(REPORTED, health.clients.items(), key=urgency)
    told = [
        ClientState(
            iss=key[0],
            client_id=key[1],
            circuit=2 if (state := states.get(key, 0)) == 2 else 1 if state else 0,
            waiting=lines.get(key, 0),
            parked=in_buckets.get(key, 0),
            next_try=tries.get(key),
            delayed=later.get(key, (0, None))[0],
            next_delayed=later.get(key, (0, None))[1],
            **{name: getattr(record, name) for name in _RECORDED},
        )
        for key, record in chosen
    ]
    return told, len(health.clients) - len(told)


# ── all of them ─────────────────────────────────────────────────────────────────────────────────────────────────────


@frozen
class ServiceStatus:
    """The state of queues, workers and clients, as operators see it.

    `oldest` is the age of each queue's oldest message, as epoch seconds. `seen` workers consume the queue. `blocked`:
    the broker took no message of the asker.
    """

    at: float
    depths: Mapping[str, Depth]
    oldest: Mapping[str, float]
    workers: Sequence[WorkerState]
    seen: int
    clients: Sequence[ClientState]
    left_out: int
    blocked: bool = False


def status_of(
    depths: Mapping[str, Depth],
    answers: Iterable[bytes],
    *,
    now: float,
    oldest: Mapping[str, float] | None = None,
    blocked: bool = False,
) -> ServiceStatus:
    """Sum up the workers' answers. `oldest` holds the moments that the queue itself knows."""
    workers = sorted(
        (stands for body in answers if (stands := load_state(body)) is not None), key=lambda each: each.worker
    )
    since = dict(oldest or {})
    for worker in workers:
        for lane, held in worker.held.items():
            if held.oldest is not None:
                since[lane] = min(held.oldest, since.get(lane, held.oldest))
    merged: dict[Key, ClientState] = {}
    for client in (client for worker in workers for client in worker.clients):
        key = (client.iss, client.client_id)
        merged[key] = client if key not in merged else _both(merged[key], client)
    return ServiceStatus(
        at=now,
        depths=depths,
        oldest=since,
        workers=workers,
        seen=depths[Lane.EVENTS].consumers if Lane.EVENTS in depths else 0,
        clients=sorted(merged.values(), key=lambda client: client.urgency, reverse=True),
        left_out=sum(worker.left_out for worker in workers),
        blocked=blocked,
    )


def _both(one: ClientState, other: ClientState) -> ClientState:
    """One client at two workers. The later failure gives reason and status."""
    later = one if (one.last_failure or 0.0) >= (other.last_failure or 0.0) else other
    put_off = max(later, one, other, key=lambda each: each.deferred_at or 0.0)
    return replace(
        later,
        circuit=max(one.circuit, other.circuit),
        waiting=one.waiting + other.waiting,
        parked=one.parked + other.parked,
        delayed=one.delayed + other.delayed,
        next_delayed=_earliest(one.next_delayed, other.next_delayed),
        waits_for=put_off.waits_for or one.waits_for or other.waits_for,
        delivered=one.delivered + other.delivered,
        dead=one.dead + other.dead,
        put_off=one.put_off + other.put_off,
        deferred_at=put_off.deferred_at,
        last_success=_latest(one.last_success, other.last_success),
        next_due=_latest(one.next_due, other.next_due),
        next_try=_earliest(one.next_try, other.next_try),
    )


def _earliest(one: float | None, other: float | None) -> float | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


def _latest(one: float | None, other: float | None) -> float | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)


# ── as people and programs read it ──────────────────────────────────────────────────────────────────────────────────


def rates_of(status: ServiceStatus) -> dict[str, float]:
    """The rates of all workers together, per second."""
    names = ("attempts", "delivered", "retried", "deferred", "dead")
    return {name: round(sum(worker.rates.get(name, 0.0) for worker in status.workers), 2) for name in names}


def delayed(status: ServiceStatus) -> int:
    """How many messages wait in the delay queues."""
    return sum(depth.ready for name, depth in status.depths.items() if name.startswith(DELAYED))


def consumed(status: ServiceStatus) -> list[str]:
    """The queues that workers consume, as far as they are there: the lanes, and those of sources."""
    sources = sorted(name for name in status.depths if name.startswith(SOURCE))
    return [name for name in (*map(str, Lane), *sources) if name in status.depths]


def bindings_missing(status: ServiceStatus) -> list[BindingState]:
    """The bindings of sources that a worker cannot make, as the workers say; each once."""
    told = {each.binding: each for worker in status.workers for each in worker.bindings_missing}
    return [told[binding] for binding in sorted(told, key=lambda each: (each.source, each.exchange))]


def troubles_of(status: ServiceStatus) -> list[SharedTrouble]:
    """What is wrong, as the workers say, the most urgent first. A broker that blocks keeps them from saying so."""
    found = merged((worker.worker, each) for worker in status.workers for each in worker.troubles)
    if status.blocked and all(each.trouble.kind != TroubleKind.BLOCKED for each in found):
        found.insert(0, SharedTrouble(trouble=Trouble(kind=TroubleKind.BLOCKED, text=BLOCKED), workers=()))
    return found


def held(status: ServiceStatus, queue: str) -> int:
    """How many messages of a queue the workers hold unsettled."""
    return sum(worker.held[queue].unsettled for worker in status.workers if queue in worker.held)


def document_of(status: ServiceStatus, concerns: Callable[[str], bool] = lambda _iss: True) -> dict[str, object]:
    """The JSON of `GET /v1/status` and `--json`. Only clients whose issuer `concerns` the reader are in it."""
    queues: dict[str, object] = {
        queue: {
            "ready": status.depths[queue].ready,
            "held": held(status, queue),
            "oldest": _moment(status.oldest.get(queue)),
        }
        for queue in consumed(status)
    }
    queues["delayed"] = {"ready": delayed(status)}
    if PARKED in status.depths:
        queues["parked"] = {"ready": status.depths[PARKED].ready}
    if DEAD in status.depths:
        queues["dead"] = {"ready": status.depths[DEAD].ready, "oldest": _moment(status.oldest.get(DEAD))}
    return {
        "at": render_moment(status.at),
        "queues": queues,
        "rates": rates_of(status),
        "workers": {
            "seen": status.seen,
            "answered": len(status.workers),
            "each": [_worker(worker) for worker in status.workers],
        },
        "clients": [_client(client) for client in status.clients if concerns(client.iss)],
        "clients_left_out": status.left_out,
        "bindings_missing": [each.row() for each in bindings_missing(status)],
        "troubles": [_trouble(each, concerns) for each in troubles_of(status) if _is_shown(each, concerns)],
    }


def _is_shown(shared: SharedTrouble, concerns: Callable[[str], bool]) -> bool:
    return not shared.trouble.iss or concerns(shared.trouble.iss)


def _trouble(shared: SharedTrouble, concerns: Callable[[str], bool]) -> dict[str, object]:
    """The text of one without an issuer may name clients of any, so it is for those whom all issuers concern."""
    one = shared.trouble
    return {
        "kind": one.kind,
        "text": one.text if concerns(one.iss) else "",
        "since": _moment(one.since),
        "iss": one.iss or None,
        "client_id": one.client_id or None,
        "subject": one.subject or None,
        "count": one.count,
        "workers": list(shared.workers),
        "explained": one.explained or None,
    }


def _worker(worker: WorkerState) -> dict[str, object]:
    return {
        "worker": worker.worker,
        "version": worker.version,
        "since": render_moment(worker.since),
        "draining": worker.draining,
        "in_flight": worker.in_flight,
        "rates": dict(worker.rates),
        "replies_dropped": worker.replies_dropped,
        "registry": [asdict(source) for source in worker.registry],
    }


def _client(client: ClientState) -> dict[str, object]:
    names = ("last_success", "last_failure", "deferred_at", "next_due", "next_try", "next_attempt")
    told = (name for name in _SHOWN if name != "next_delayed")
    shown = {name: getattr(client, name) for name in told} | {name: _moment(getattr(client, name)) for name in names}
    return shown | {
        "circuit": CIRCUITS[client.circuit],
        "state": client.state,
        "reason": client.reason or None,
        "text": client.text or None,
        "parked": max(0, client.parked),
        "waits": client.waits,
        "waits_for": client.cause or None,
    }


def _moment(moment: float | None) -> str | None:
    return None if moment is None else render_moment(moment)

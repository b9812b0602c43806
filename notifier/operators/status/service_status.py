"""The status of the whole service for operators: pending messages, and the states of workers and clients.

Each worker answers a query with its state (`WorkerState`) as a versioned document. `status_of` merges the answers.
`client_state` has the state of a client; `status_document` converts the status to JSON.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.configuration.clients.client_rows import SourceState
from notifier.model.client import ClientKey
from notifier.model.message import DEAD, DELAYED, SOURCE, BindingState, Depth, Lane
from notifier.model.record import copy_record, record
from notifier.model.trouble import SharedTrouble, Trouble, TroubleKind, merge_troubles
from notifier.operators.status.client_status import ClientStatus, merge_states
from notifier.tokens.first_day import Seen, SeenKey, merge_seen_keys

MAX_STATE_BYTES = 384 * 1024  # at most doubled in an answer to the console: the side channel drops 1 MiB
SMALL_SHARE = 0.2  # of a source's clients, by which workers may differ while they read it; the guard's share too
SERVED_KEYS = ("fresh", "held")  # how a relay's JWK Set is served


@record
class LaneState:
    """The number of messages that a worker has received from a queue and not settled, and the time of the oldest.

    `set_aside` of them are late, and do not count for `oldest`, which is in epoch seconds, unless held for 15 minutes.
    """

    unsettled: int = 0
    set_aside: int = 0
    oldest: float | None = None


@record
class RelayState:
    """A relay. `keys`: how its JWK Set is served, as the `result` of `relay_jwks_requests_total`.

    `last_token`: when the last token was accepted (epoch seconds); None if none was since the workers started.
    """

    relay: str
    iss: str
    keys: str
    last_token: float | None = None

    @property
    def is_served(self) -> bool:
        """Return whether clients get a JWK Set."""
        return self.keys in SERVED_KEYS


@record
class WorkerState:
    """The state of one worker. `rates` are per second over the last minute; `held` has the unsettled messages by queue.

    `clients` are those in the worst state; `left_out` is the number of the others. `keys` are the published keys that
    the worker has seen. `dead_letters` is the number of dead letters when no pass held any; 0 if unknown. `consuming`
    is None if unknown; `problem` is the reason why the worker does not consume.
    """

    worker: str
    version: str
    since: float
    draining: bool
    in_flight: int
    held: Mapping[str, LaneState]
    rates: Mapping[str, float]
    clients: Sequence[ClientStatus]
    left_out: int = 0
    replies_dropped: int = 0
    registry: Sequence[SourceState] = ()
    bindings_missing: Sequence[BindingState] = ()
    troubles: Sequence[Trouble] = ()
    keys: Sequence[SeenKey] = ()
    dead_letters: int = 0
    consuming: bool | None = None
    problem: str = ""
    relays: Sequence[RelayState] = ()


class _Document(TypedDict):
    v: Literal[1]
    stands: WorkerState


_DOCUMENT = TypeAdapter(_Document)


def dump_state(state: WorkerState) -> bytes:
    """Return the document with which a worker answers, in MAX_STATE_BYTES at most.

    Publishers choose the names of clients. Beyond the limit, the last clients and the longest troubles are omitted.
    """
    while True:
        document = _DOCUMENT.dump_json({"v": 1, "stands": state}, exclude_defaults=True)
        clients, troubles = state.clients, state.troubles
        if len(document) <= MAX_STATE_BYTES or not (clients or troubles):
            return document
        kept_clients = clients[: len(clients) // 2]
        shortest = sorted(troubles, key=lambda trouble: len(trouble.text) + len(trouble.client_id))
        state = copy_record(
            state,
            clients=kept_clients,
            left_out=state.left_out + len(clients) - len(kept_clients),
            troubles=shortest[: len(troubles) // 2],
        )


def load_state(body: bytes) -> WorkerState | None:
    """Return the state in a worker's answer; None if this release cannot read it."""
    try:
        return _DOCUMENT.validate_json(body)["stands"]
    except ValidationError:
        return None


@record
class ServiceStatus:
    """The merged state of queues, workers and clients, at the time `at` (epoch seconds).

    `oldest` has the epoch seconds of each queue's oldest message. `seen` is the number of workers, and
    `workers` has the workers that answered. `blocked` is the reason why the broker accepts no messages; empty if it
    does.
    """

    at: float
    depths: Mapping[str, Depth]
    oldest: Mapping[str, float]
    workers: Sequence[WorkerState]
    seen: int
    clients: Sequence[ClientStatus]
    left_out: int
    blocked: str = ""


def status_of(
    depths: Mapping[str, Depth],
    answers: Iterable[bytes],
    *,
    now: float,
    oldest: Mapping[str, float] | None = None,
    seen: int = 0,
    blocked: str = "",
    dead_letters_held: bool = False,
) -> ServiceStatus:
    """Merge the workers' answers. A worker may report its clients in several answers, of which the first has the rest.

    `depths`, `oldest` and `seen` are reported by the queue: the number of messages, the time of the oldest message, and
    the number of workers.
    `dead_letters_held`: a pass of a command or request holds dead letters, so `depths` may omit them.
    """
    states: dict[str, WorkerState] = {}
    for state in filter(None, map(load_state, answers)):
        first = states.setdefault(state.worker, state)
        if first is not state:
            clients = [*first.clients, *state.clients]
            states[state.worker] = copy_record(first, clients=clients, left_out=state.left_out)
    workers = [states[worker] for worker in sorted(states)]
    oldest_by_queue = dict(oldest or {})
    for queue in {queue for worker in workers for queue in worker.held}:
        if queue in depths and not depths[queue].ready:  # workers hold all, and know which are late
            oldest_by_queue.pop(queue, None)
    for worker in workers:
        for queue, lane_state in worker.held.items():
            if lane_state.oldest is not None:
                oldest_by_queue[queue] = min(lane_state.oldest, oldest_by_queue.get(queue, lane_state.oldest))
    if dead_letters_held and DEAD in depths:  # workers may have counted the dead letters before the pass
        count = max(depths[DEAD].ready, *(worker.dead_letters for worker in workers), 0)
        depths = {**depths, DEAD: copy_record(depths[DEAD], ready=count)}
    merged: dict[ClientKey, ClientStatus] = {}
    for client in (client for worker in workers for client in worker.clients):
        key = (client.iss, client.client_id)
        merged[key] = merge_states(merged[key], client) if key in merged else client
    return ServiceStatus(
        at=now,
        depths=depths,
        oldest=oldest_by_queue,
        workers=workers,
        seen=max(seen, len(workers)),
        clients=sorted(merged.values(), key=lambda client: client.urgency, reverse=True),
        left_out=sum(worker.left_out for worker in workers),
        blocked=blocked,
    )


def rates_of(status: ServiceStatus) -> dict[str, float]:
    """Return the sum of the workers' rates, per second."""
    names = ("attempts", "delivered", "retried", "deferred", "dead")
    return {name: round(sum(worker.rates.get(name, 0.0) for worker in status.workers), 2) for name in names}


def count_delayed(status: ServiceStatus) -> int:
    """Return the number of messages in the delay queues."""
    return sum(depth.ready for name, depth in status.depths.items() if name.startswith(DELAYED))


def consumed_queues_of(status: ServiceStatus) -> list[str]:
    """Return the existing queues that workers consume: the lanes and the queues of sources."""
    sources = sorted(name for name in status.depths if name.startswith(SOURCE))
    return [name for name in (*map(str, Lane), *sources) if name in status.depths]


def missing_bindings_of(status: ServiceStatus) -> list[BindingState]:
    """Return the bindings of sources that workers cannot create, without duplicates."""
    states = {state.binding: state for worker in status.workers for state in worker.bindings_missing}
    return [states[binding] for binding in sorted(states, key=lambda binding: (binding.source, binding.exchange))]


def troubles_of(status: ServiceStatus) -> list[SharedTrouble]:
    """Return the workers' problems, the most urgent first.

    A report that a worker vanished is omitted if that worker has answered. A blocked broker is added, since it prevents
    the workers' answers.
    """
    answered = {worker.worker for worker in status.workers}
    troubles = merge_troubles(
        (worker.worker, trouble)
        for worker in status.workers
        for trouble in worker.troubles
        if trouble.kind != TroubleKind.WORKER_VANISHED or trouble.subject not in answered
    )
    if status.blocked and all(shared.trouble.kind != TroubleKind.BLOCKED for shared in troubles):
        troubles.insert(0, SharedTrouble(trouble=Trouble(kind=TroubleKind.BLOCKED, text=status.blocked), workers=()))
    return [*troubles, *_find_differing_sources(status)]


def _find_differing_sources(status: ServiceStatus) -> Iterator[SharedTrouble]:
    """Yield a trouble for each registry source of which workers know very different numbers of clients.

    Workers read a source at different times. So small differences are none; the guard would hold back larger ones.
    """
    counts: dict[str, dict[str, int]] = {}
    for worker in status.workers:
        if worker.consuming is not False:  # a worker that is not ready may not have read it yet
            for source in worker.registry:
                counts.setdefault(source.name, {})[worker.worker] = source.clients
    for name, by_worker in sorted(counts.items()):
        least, most = min(by_worker.values()), max(by_worker.values())
        if most - least > max(1, most * SMALL_SHARE):
            fewer = [worker for worker, count in by_worker.items() if count == least]
            text = f"workers know {least:,} to {most:,} clients of it, and {', '.join(fewer)} the fewest"
            trouble = Trouble(kind=TroubleKind.SOURCE_DIFFERS, text=text, subject=name)
            yield SharedTrouble(trouble=trouble, workers=tuple(fewer))


def seen_keys_of(status: ServiceStatus) -> Seen:
    """Return since when the workers have seen each key in its issuer's JWK Set."""
    return merge_seen_keys(key for worker in status.workers for key in worker.keys)


def relays_of(status: ServiceStatus) -> list[RelayState]:
    """Return the relays. `keys` is that of the worker that is worst off, `last_token` the latest of all workers."""
    merged: dict[str, RelayState] = {}
    for relay in (relay for worker in status.workers for relay in worker.relays):
        other = merged.get(relay.relay, relay)
        keys = max(relay.keys, other.keys, key=lambda keys: SERVED_KEYS.index(keys) if keys in SERVED_KEYS else 9)
        last_token = max(filter(None, (relay.last_token, other.last_token)), default=None)
        merged[relay.relay] = copy_record(relay, keys=keys, last_token=last_token)
    return [merged[name] for name in sorted(merged)]


def count_held_messages(status: ServiceStatus, queue: str) -> int:
    """Return the number of messages of a queue that workers have received and not settled."""
    return sum(worker.held[queue].unsettled for worker in status.workers if queue in worker.held)


def count_set_aside(status: ServiceStatus, queue: str) -> int:
    """Return how many of these messages are set aside, since they are late."""
    return sum(worker.held[queue].set_aside for worker in status.workers if queue in worker.held)

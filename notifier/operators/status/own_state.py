"""Builds the state that this worker reports, and queries all workers for the status of the service."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from notifier import __version__
from notifier.configuration.clients.client_rows import SourceState
from notifier.messages.worker import Worker
from notifier.model.client import ClientKey
from notifier.model.errors import QueueError
from notifier.model.moment import Clock
from notifier.model.pauses import Pause
from notifier.model.record import copy_record, record
from notifier.model.trouble import Trouble
from notifier.network.listeners.ops import Readiness
from notifier.operators.status.client_status import MAX_REPORTED_CLIENTS, ClientStatus, WorkerClients
from notifier.operators.status.health_observer import HealthObserver
from notifier.operators.status.service_status import (
    LaneState,
    RelayState,
    ServiceStatus,
    WorkerState,
    dump_state,
    status_of,
)
from notifier.queues.queue_port import Queue
from notifier.queues.queue_state import QueueOverview
from notifier.tokens.first_day import SeenKey

ANSWER_TIMEOUT_SECONDS = 2.0  # in which workers must answer
MAX_AGE_SECONDS = 0.5  # for which a state is reused, so it is computed at most twice a second


@record
class OwnSources:
    """The functions that return parts of a worker's state. They are called per request and must not block."""

    readiness: Callable[[], Readiness]
    registry: Callable[[], Sequence[SourceState]]
    troubles: Callable[[], Iterable[Trouble]]
    keys: Callable[[], Iterable[SeenKey]]
    relays: Callable[[], Sequence[RelayState]]
    pauses: Callable[[], Mapping[ClientKey, Pause]] = dict


class OwnState:
    """The state of this worker, as a document for the side channel."""

    def __init__(
        self, name: str, worker: Worker, sources: OwnSources, health: HealthObserver,
        *, queue: Queue, clock: Clock, monotonic: Clock,
    ) -> None:  # fmt: skip
        self._name = name
        self._worker = worker
        self._sources = sources
        self._health = health
        self._queue = queue
        self._monotonic = monotonic
        self._since = clock()
        self._last: tuple[bytes, float] = (b"", 0.0)

    def document(self) -> bytes:
        """Return a state that is at most MAX_AGE_SECONDS old, with the clients in the worst state."""
        document, built_at = self._last
        now = self._monotonic()
        if not document or now - built_at > MAX_AGE_SECONDS:
            document = dump_state(self._state_with_clients(MAX_REPORTED_CLIENTS))
            self._last = (document, now)
        return document

    def document_with_clients(self, which: Collection[ClientKey]) -> bytes:
        """Return the current state with these clients."""
        return dump_state(self._state_with_clients(which))

    def split_document(self, size: int) -> Iterator[bytes]:
        """Yield the state without clients, then `size` clients in trouble at a time, and the number of further ones.

        The caller can yield to the event loop after each part, which takes a few milliseconds to build, and may stop.
        """
        keys = self._read_clients().list_troubled()
        state, left_out = self._state((), len(keys)), len(keys)
        yield dump_state(state)
        clients, _ = self._read_clients().list_states(keys)
        part_of = partial(copy_record, state, registry=(), bindings_missing=(), troubles=(), keys=(), relays=())
        while part := list(islice(clients, size)):
            left_out -= len(part)
            yield dump_state(part_of(clients=part, left_out=left_out))

    def _read_clients(self) -> WorkerClients:
        """Return the values of the clients at this worker."""
        worker, scheduler = self._worker, self._worker.scheduler
        return WorkerClients(
            health=self._health,
            circuits=scheduler.clients.circuits(),
            waiting=scheduler.waiting_counts(),
            parked=worker.parked,
            next_tries=scheduler.clients.next_tries(),
            delayed=worker.delayed,
            silent=scheduler.unresponsive(),
            pauses=self._sources.pauses(),
        )

    def _state_with_clients(self, which: Collection[ClientKey] | int) -> WorkerState:
        clients, left_out = self._read_clients().list_states(which)
        return self._state(list(clients), left_out)

    def _state(self, clients: Sequence[ClientStatus], left_out: int = 0) -> WorkerState:
        """Return the state of this worker with these clients; `left_out` is the number of the others."""
        worker, readiness, queue_status = self._worker, self._sources.readiness(), self._queue.status()
        return WorkerState(
            worker=self._name,
            version=__version__,
            since=self._since,
            draining=readiness.draining,
            in_flight=worker.in_flight,
            held={
                name: LaneState(unsettled=each.messages, set_aside=each.set_aside, oldest=each.oldest)
                for name, each in worker.ledger.unsettled_by_queue().items()
            },
            rates=self._health.rates(),
            clients=clients,
            left_out=left_out,
            replies_dropped=self._queue.side_channel.dropped,
            registry=self._sources.registry(),
            bindings_missing=[binding for binding in queue_status.bindings if binding.problem],
            troubles=list(self._sources.troubles()),
            keys=list(self._sources.keys()),
            dead_letters=queue_status.dead_letters,
            consuming=readiness.operates,
            problem="" if readiness.operates else readiness.problem or "",
            relays=self._sources.relays(),
        )


async def read_status(queue: Queue, clock: Clock, own: Callable[[], bytes] | None = None) -> ServiceStatus:
    """Query all workers, and return the status of the service. The queue need not be open. Raises QueueError.

    A worker gives `own`, which returns its state: the status if the queue is unavailable or no worker answers.
    """
    try:
        overview = await queue.read_overview(ANSWER_TIMEOUT_SECONDS)
    except QueueError:
        if own is None:
            raise
        overview = QueueOverview(depths={}, oldest={}, worker_states=[])
    states = overview.worker_states or ([] if own is None else [own()])
    return status_of(
        overview.depths,
        states,
        now=clock(),
        oldest=overview.oldest,
        seen=overview.workers,
        blocked=overview.blocked,
        dead_letters_held=overview.dead_letters_held,
    )

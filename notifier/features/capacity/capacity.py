"""Computes how many workers are needed when so many sessions end within a time, from `measured_costs.py`.

Four things can be the limit: the processor time of workers, their attempts in flight, the queue's process in the
broker, and the clients, which no number of workers makes faster.
"""

import math
from dataclasses import dataclass

from notifier.features.capacity import measured_costs
from notifier.model.client import Client
from notifier.model.defaults import MAX_IN_FLIGHT, PREFETCH
from notifier.model.message import Lane

LOAD = 0.7  # the share of the measured rate to plan with: at 80 % queues grow, and a worker may be away for a moment
MAX_CONCURRENT = Client(iss="", client_id="", backchannel_logout_uri=None).max_concurrent
ALGORITHMS = tuple(dict.fromkeys(alg for alg, _ in measured_costs.DELIVERY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What ends: `sessions`, each known to `clients`, within so many seconds. Clients answer after `answer` seconds."""

    sessions: int
    clients: int
    within: float
    alg: str = "RS256"
    answer: float = 0.1
    lane: Lane = Lane.BULK

    @property
    def events_per_second(self) -> float:
        """One event for each session."""
        return self.sessions / self.within

    @property
    def deliveries_per_second(self) -> float:
        """One delivery for each client of a session."""
        return self.events_per_second * self.clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a demand needs. `workers` is the greater of the two numbers that follow; each worker has one core.

    `queues` is the number of sets of queues (prefixes or virtual hosts) to share the events out over. `at_a_client` is
    the number of requests at a time at a client that knows every session; `client_seconds` is the least time that this
    client needs, by its `max_concurrent`.
    """

    workers: int
    workers_for_processor: int
    workers_for_in_flight: int
    worker_rate: float
    in_flight: int
    in_flight_of_worker: int
    memory: float
    broker_cores: float
    queues: int
    at_a_client: float
    client_seconds: float

    def within_reach(self, demand: Demand) -> bool:
        """True if the clients can be told within that time."""
        return self.client_seconds <= demand.within


def cost(alg: str, clients: int) -> float:
    """Return the µs of a core that a delivery costs, of an event with so many clients.

    An event costs `e` by itself and each of its deliveries `d`; the two follow from the events of 1 and of 10.
    """
    one_client, ten_clients = measured_costs.DELIVERY[alg, 1], measured_costs.DELIVERY[alg, 10]
    event = max(0.0, (one_client - ten_clients) / 0.9)
    return one_client - event + event / clients


def worker_rate(alg: str, clients: int) -> float:
    """Return the deliveries a second to plan with, for a worker on one core."""
    return LOAD * 1e6 / cost(alg, clients)


def capacity_for(demand: Demand) -> Capacity:
    """Return what this demand needs."""
    rate = worker_rate(demand.alg, demand.clients)
    in_flight = math.ceil(demand.deliveries_per_second * demand.answer)
    # Each event stays in flight until its last client has answered.
    of_worker = min(MAX_IN_FLIGHT, PREFETCH[demand.lane] * demand.clients)
    for_processor = math.ceil(demand.deliveries_per_second / rate)
    for_in_flight = math.ceil(in_flight / of_worker)
    workers = max(1, for_processor, for_in_flight)
    broker_cores = demand.events_per_second * measured_costs.BROKER_EVENT / 1e6
    return Capacity(
        workers=workers,
        workers_for_processor=for_processor,
        workers_for_in_flight=for_in_flight,
        worker_rate=rate,
        in_flight=in_flight,
        in_flight_of_worker=of_worker,
        memory=workers * measured_costs.MEMORY,
        broker_cores=broker_cores,
        queues=max(1, math.ceil(broker_cores / LOAD)),
        at_a_client=demand.events_per_second * demand.answer,
        client_seconds=demand.sessions * demand.answer / MAX_CONCURRENT,
    )

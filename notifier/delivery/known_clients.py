"""Stores the clients of a worker, and reports them to peers and to operators."""

import math
from collections import OrderedDict
from collections.abc import Iterable

from notifier.delivery.admission import Capacity
from notifier.delivery.circuit import CircuitChange, State
from notifier.delivery.facts import ClientFailing, ClientRecovered
from notifier.delivery.known_client import KnownClient
from notifier.delivery.ports import ClientReport, Peers, Tools
from notifier.delivery.rate import AttemptRate, registered_interval
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane

KEPT_SECONDS = 1800.0  # until a client without any event is forgotten
MAX_KNOWN_CLIENTS = 20_000  # clients stored that have no delivery in memory
EARLY_TOKEN_SECONDS = 1e-6  # by which a token may come early, so that one token is not slightly less
CLIENTS_PER_CHECK = 64  # clients that `forget` visits at a time
PROBE_SLOTS = PREFETCH[Lane.RETRIES] * 5 // 8  # slots for probes


class KnownClients(OrderedDict[ClientKey, KnownClient]):
    """The clients by key, the one with the oldest event first. `failing`: the clients with an open circuit."""

    def __init__(self, tools: Tools, capacity: Capacity, peers: Peers) -> None:
        super().__init__()
        self._tools = tools
        self._started_at = tools.monotonic()
        self._capacity = capacity
        self._peers = peers
        self.failing: dict[ClientKey, KnownClient] = {}
        self._probe_seconds: dict[ClientKey, float] = {}  # mean attempt durations of failing clients probed here …
        self._sum_seconds = 0.0  # … and their sum

    def add(self, key: ClientKey, now: float, client: Client | None = None) -> KnownClient:
        """Store and return a new client. With its registration, the registered rate applies from the worker's start."""
        token_at = -math.inf
        if client is not None:
            # Former workers may just have used up the rate, so all new workers together begin with one attempt.
            worker_count = self._capacity.worker_count()
            interval = registered_interval(client, worker_count)
            token_at = self._started_at + max(1.0, interval) - interval / worker_count - EARLY_TOKEN_SECONDS
        known = self[key] = KnownClient(key=key, seen_at=now, rate=AttemptRate(token_at=token_at))
        return known

    def on_circuit(self, known: KnownClient, change: CircuitChange | None) -> None:
        """Report the change of the client's circuit, and update the failing clients."""
        self._count_probe(known.key, known.attempt_seconds if known.circuit.state is State.OPEN else 0.0)
        iss, client_id = known.key
        if change is CircuitChange.RECOVERED:
            self.failing.pop(known.key, None)
            self._tools.observe(ClientRecovered(iss=iss, client_id=client_id, outage=known.circuit.last_outage_seconds))
        elif change is CircuitChange.OPENED:
            self.failing[known.key] = known
            next_try = known.available_at + self._capacity.wall_offset()
            self._tools.observe(ClientFailing(iss=iss, client_id=client_id, next_try=next_try))

    def _count_probe(self, key: ClientKey, seconds: float) -> None:
        self._sum_seconds += seconds - self._probe_seconds.pop(key, 0.0)
        if seconds > 0:
            self._probe_seconds[key] = seconds

    def min_open_seconds(self, known: KnownClient) -> float:
        """Return how long the client's circuit must stay open, so that each failing client can have a probe meanwhile.

        That is the expected duration of one probe of each failing client, divided by the slots for probes.
        """
        own_seconds = known.attempt_seconds
        unprobed_count = len(self.failing) - len(self._probe_seconds)  # peers reported them: assume this duration
        # At most as if each took as long as this client's: a client that fails at once is not delayed by clients that
        # hang, since its probe takes a slot only for a moment.
        probing_seconds = min(len(self.failing) * own_seconds, self._sum_seconds + unprobed_count * own_seconds)
        return probing_seconds / (PROBE_SLOTS * self._capacity.worker_count())

    def forget(self, now: float, *, busy: int) -> None:
        """Forget some clients without events for half an hour, or with the oldest events if there are too many.

        `busy`: the number of clients with a delivery in memory, which do not count as too many.
        """
        for _ in range(min(CLIENTS_PER_CHECK, len(self))):
            key, known = next(iter(self.items()))
            if now - known.seen_at < KEPT_SECONDS and len(self) - busy <= MAX_KNOWN_CLIENTS:
                return
            if known.is_idle and not known.is_paused(now) and not known.has_probe_out(now):
                del self[key]
                self.failing.pop(key, None)
                self._count_probe(key, 0.0)
            else:
                known.on_seen(now)
                self.move_to_end(key)

    def report(self, known: KnownClient, now: float, *, rate_changed: bool) -> None:
        """Report the client to the other workers, with its rate limit if `rate_changed`."""
        circuit, rate = known.circuit, known.rate
        report = ClientReport(
            key=known.key, circuit_closed=circuit.state is State.CLOSED,
            failing_seconds=0.0 if circuit.failing_since is None else now - circuit.failing_since,
            open_seconds=max(0.0, circuit.probe_at - now), concurrency=known.concurrency,
            spacing=rate.spacing if rate_changed else 0.0, former_share=rate.former_share, parked=known.parked,
        )  # fmt: skip
        self._peers.report(report)

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, state) for each client with an open circuit: 1 during a probe, otherwise 2."""
        return ((*key, 1 if known.running else 2) for key, known in self.failing.items())

    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, time of the next probe in epoch seconds) for each client with an open circuit."""
        now, offset = self._tools.monotonic(), self._capacity.wall_offset()
        return ((*key, offset + max(now, known.available_at)) for key, known in self.failing.items())

"""Stores the clients of a worker, and reports them to peers and to operators."""

import math
from collections import OrderedDict
from collections.abc import Iterable

from notifier.delivery.admission import Room
from notifier.delivery.circuit import Change, State
from notifier.delivery.facts import ClientFailing, ClientRecovered
from notifier.delivery.known_client import KnownClient, attempt_step
from notifier.delivery.ports import News, Peers, Tools
from notifier.delivery.rate import AttemptRate
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane

KEPT_SECONDS = 1800.0  # until a client without any event is forgotten
MAX_KNOWN_CLIENTS = 20_000  # clients stored that have no delivery in memory
EARLY_TOKEN_SECONDS = 1e-6  # by which a token may come early, so that one token is not slightly less
CLIENTS_PER_CHECK = 64  # clients that `forget` visits at a time
PROBE_SLOTS = PREFETCH[Lane.RETRIES] * 5 // 8  # slots for probes


class KnownClients(OrderedDict[ClientKey, KnownClient]):
    """The clients by key; the one with the oldest event comes first. `failing`: with an open circuit."""

    def __init__(self, tools: Tools, room: Room, peers: Peers) -> None:
        super().__init__()
        self._tools = tools
        self._started_at = tools.steady()
        self._room = room
        self._peers = peers
        self.failing: dict[ClientKey, KnownClient] = {}
        self._probe_seconds: dict[ClientKey, float] = {}  # the attempt duration of clients that had a probe here …
        self._sum_seconds = 0.0  # … and the sum of them

    def add(self, key: ClientKey, now: float, client: Client | None = None) -> KnownClient:
        """Store a client, with its registration if that is known."""
        token_at = -math.inf
        if client is not None:
            # All workers that start together may make one attempt at once: those before may just have spent the tokens.
            step = attempt_step(client, workers := self._room.workers())
            token_at = self._started_at + max(1.0, step) - step / workers - EARLY_TOKEN_SECONDS
        known = self[key] = KnownClient(key=key, seen_at=now, rate=AttemptRate(token_at=token_at))
        return known

    def on_circuit(self, known: KnownClient, change: Change | None) -> None:
        """Note an event of the client's circuit."""
        self._count_probe(known.key, known.attempt_seconds if known.circuit.state is State.OPEN else 0.0)
        iss, client_id = known.key
        if change is Change.RECOVERED:
            self.failing.pop(known.key, None)
            self._tools.observe(ClientRecovered(iss=iss, client_id=client_id, outage=known.circuit.last_outage_seconds))
        elif change is Change.OPENED:
            self.failing[known.key] = known
            next_try = known.available_at + self._room.ahead()
            self._tools.observe(ClientFailing(iss=iss, client_id=client_id, next_try=next_try))

    def _count_probe(self, key: ClientKey, seconds: float) -> None:
        self._sum_seconds += seconds - self._probe_seconds.pop(key, 0.0)
        if seconds > 0:
            self._probe_seconds[key] = seconds

    def least_rest(self, known: KnownClient) -> float:
        """Return for how many seconds its circuit opens at least: each open circuit may then have had its probe."""
        without_probe = len(self.failing) - len(self._probe_seconds)  # reported by peers: perhaps they hang, too
        busy = min(len(self.failing) * known.attempt_seconds, self._sum_seconds + without_probe * known.attempt_seconds)
        return busy / (PROBE_SLOTS * self._room.workers())

    def forget(self, now: float, *, busy: int) -> None:
        """Forget clients without events for long, and the ones with the oldest events if there are very many.

        `busy` is how many have a delivery in memory.
        """
        for _ in range(min(CLIENTS_PER_CHECK, len(self))):
            key, known = next(iter(self.items()))
            if now - known.seen_at < KEPT_SECONDS and len(self) - busy <= MAX_KNOWN_CLIENTS:
                return
            if known.is_idle and not known.is_paused(now) and not known.is_covered(now):
                del self[key]
                self.failing.pop(key, None)
                self._count_probe(key, 0.0)
            else:
                known.on_seen(now)
                self.move_to_end(key)

    def report(self, known: KnownClient, now: float, *, paced: bool) -> None:
        """Report the client to the other workers. `paced`: its rate has changed."""
        circuit, rate = known.circuit, known.rate
        news = News(
            key=known.key, up=circuit.state is State.CLOSED,
            failing=0.0 if circuit.failing_since is None else now - circuit.failing_since,
            rest=max(0.0, circuit.next_try - now), cap=known.concurrency, spacing=rate.spacing if paced else 0.0,
            former_share=rate.former_share, parked=known.parked,
        )  # fmt: skip
        self._peers.report(news)

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, 1 if an attempt is under way, else 2) for each client with an open circuit."""
        return ((*key, 1 if known.running else 2) for key, known in self.failing.items())

    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, next probe in epoch seconds) for each client with an open circuit."""
        now, ahead = self._tools.steady(), self._room.ahead()
        return ((*key, ahead + max(now, known.available_at)) for key, known in self.failing.items())

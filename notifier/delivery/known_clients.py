"""Keeps what a worker knows of all its clients, and tells operators and other workers of them.

Two clocks are kept apart. A steady clock counts everything, so that a jump of the wall clock takes no client for down
and lets no delivery in. Messages and operators get moments of the wall clock, since other workers read them (`ahead`).
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from notifier.delivery.circuit import Change
from notifier.delivery.facts import ClientFailing, ClientRecovered
from notifier.delivery.known_client import KnownClient, News
from notifier.delivery.ports import Peers, Tools
from notifier.delivery.slots import PROBES, Slots
from notifier.delivery.ticket import Known
from notifier.model.client import Client, ClientKey

KEPT = 1800.0  # seconds that a client not heard of is remembered
MOST_KNOWN = 20_000  # clients remembered that have nothing in memory
ASSUMED_WORKERS = 4  # share a client's limits while their number is not known, in the second after a start
ROUNDING = 1e-6  # seconds by which a token may come early, so that one token is not a hair less
LOOKS = 64  # clients looked at, at a time, for one to be forgotten


class KnownClients:
    """The clients by key. `down` has those that rest; `peers` are the other workers."""

    def __init__(self, tools: Tools, slots: Slots, peers: Peers) -> None:
        self._tools = tools
        self._started_at = tools.steady()
        self._slots = slots
        self._peers = peers
        self._known: OrderedDict[ClientKey, Known] = OrderedDict()  # the one heard of longest ago comes first
        self.down: dict[ClientKey, Known] = {}
        self._tried = 0  # those that are down and were tried here …
        self._tries = 0.0  # … and the seconds of a try of each of them

    @property
    def workers(self) -> int:
        """How many workers there are, this one included."""
        return self._peers.count() or ASSUMED_WORKERS

    def get(self, key: ClientKey) -> Known | None:
        """Return what is known of this client."""
        return self._known.get(key)

    def __getitem__(self, key: ClientKey) -> Known:
        return self._known[key]

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known.values())

    def know(self, client: Client, now: float) -> Known:
        """Return what is known of the client, with the limits of its registration as it is now."""
        workers = self.workers
        limit = max(1, client.max_concurrent // workers)
        step = 0.0 if client.per_second is None else workers / client.per_second
        known = self._known.get(key := client.key)
        if known is None:
            # All workers that start together may make one attempt at once: those before may just have spent the tokens.
            token_at = self._started_at + max(1.0, step) - step / workers - ROUNDING
            known = self._known[key] = KnownClient(key=key, limit=limit, step=step, heard=now, token_at=token_at)
        known.on_registration(limit, step, now)
        self._known.move_to_end(key)
        self._slots.place(known, now)
        return known

    def add(self, key: ClientKey, now: float) -> Known:
        """Return what is known of a client of which nothing but its name is heard."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = KnownClient(key=key, limit=1, step=0.0, heard=now)
        known.on_seen(now)
        self._known.move_to_end(key)
        return known

    def turn(self, known: Known, change: Change | None, *, was_up: bool) -> None:
        """Note what became of the client's state."""
        self._slots.turn(known, was_up=was_up)
        self._count(known, known.hold if known.down else 0.0)
        iss, client_id = known.key
        if change is Change.RECOVERED:
            self.down.pop(known.key, None)
            outage = known.circuit.outage_until - known.circuit.outage_from
            self._tools.observe(ClientRecovered(iss=iss, client_id=client_id, outage=outage))
        elif change is Change.OPENED:
            self.down[known.key] = known
            next_try = max(known.circuit.next_try, known.paused_until) + self.ahead()
            self._tools.observe(ClientFailing(iss=iss, client_id=client_id, next_try=next_try))

    def _count(self, known: Known, hold: float) -> None:
        before = known.on_probes_counted(hold)
        self._tried += (hold > 0) - (before > 0)
        self._tries += hold - before

    def least_rest(self, known: Known) -> float:
        """Return for how long it rests at least: until each of those that are down could have had its try."""
        alike = len(self.down) - self._tried  # only heard of: perhaps they hang as this one does
        busy = min(len(self.down) * known.hold, self._tries + alike * known.hold)
        return busy / (PROBES * self.workers)

    def forget(self, now: float, *, busy: int) -> None:
        """Forget clients not heard of for long, and the quietest ones if there are very many.

        `busy` is how many have something in memory.
        """
        for _ in range(min(LOOKS, len(self._known))):
            key, known = next(iter(self._known.items()))
            if now - known.heard < KEPT and len(self._known) - busy <= MOST_KNOWN:
                return
            if known.idle and known.paused_until <= now and not known.covered(now):
                del self._known[key]
                self.down.pop(key, None)
                self._count(known, 0.0)
            else:
                known.on_seen(now)
                self._known.move_to_end(key)

    def tell(self, known: Known, now: float, *, paced: bool) -> None:
        """Tell the other workers how the client stands."""
        failing = 0.0 if known.circuit.failing_since is None else now - known.circuit.failing_since
        rest = max(0.0, known.circuit.next_try - now)
        spacing = known.rate.spacing if paced else 0.0
        self._peers.tell(
            News(
                key=known.key,
                up=known.up,
                failing=failing,
                rest=rest,
                cap=known.cap,
                spacing=spacing,
                former_share=known.rate.former_share,
                parked=known.parked,
            )
        )

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, 1 half-open | 2 open) for each client that rests."""
        return ((*key, 1 if known.running else 2) for key, known in self.down.items())

    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, the moment of the next try in epoch seconds) for each client that rests."""
        now, ahead = self._tools.steady(), self.ahead()
        return (
            (*key, ahead + max(now, known.circuit.next_try, known.paused_until)) for key, known in self.down.items()
        )

    def ahead(self) -> float:
        """Return the seconds from the steady clock to the wall clock."""
        return self._tools.clock() - self._tools.steady()

"""Stores the clients of a worker and the slots that they share, and reports clients to operators and to peers.

The slots:

- `size` attempts may run in the window. A lane may use all slots of the window but a tenth for each other lane, so that
  a fresh logout finds a free slot at once, however much bulk is pending.
- Attempts at slow and silent clients use separate slots, a quarter of the window's size. However many clients hang, the
  window stays free.
- Probes use separate slots, too: fewer than the retries that a worker may hold, so that the retry of a client with a
  closed circuit is not delayed by probes that hang.

Two clocks are kept apart. All decisions use a steady clock, so that a jump of the wall clock opens no circuit and
starts no delivery. Messages and operators get moments of the wall clock, since other workers read them (`ahead`). The
steady clock stops while the process is suspended, so that no client is blamed for that time (`UnsuspendedClock`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

from notifier.delivery.admission import Side
from notifier.delivery.circuit import Change, State
from notifier.delivery.facts import ClientFailing, ClientRecovered
from notifier.delivery.known_client import CROWDED, KnownClient
from notifier.delivery.ports import News, Peers, Tools
from notifier.delivery.rate import AttemptRate
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import PREFETCH, SLOT_WAIT
from notifier.model.message import Lane

KEPT = 1800.0  # seconds until a client without any event is forgotten
MOST_KNOWN = 20_000  # clients stored that have no delivery in memory
ASSUMED_WORKERS = 4  # share a client's limits while their number is not known, in the second after a start
ROUNDING = 1e-6  # seconds by which a token may come early, so that one token is not slightly less
LOOKS = 64  # clients that `forget` visits at a time
SLOW_SHARE = 0.25  # slots for slow and silent clients, beside the window: a share of its size
PROBES = PREFETCH[Lane.RETRIES] * 5 // 8  # slots for probes
TRIED = 4  # times the window's size: attempts at clients whose circuit is not closed
KEPT_FREE = 10  # a tenth of the window is kept free for each other lane
LEAST_WAIT = 0.1  # the share of `SLOT_WAIT` that remains if memory is full
LONGEST_GAP = 0.25  # seconds: the worker reads the clock every 0.05 s, unless its event loop is blocked


class Slots:
    """Counts the running attempts, by side and lane, and the deliveries in memory.

    At most twice `size` deliveries are in memory, beside those being attempted at slow clients and as probes.
    `in_memory` counts them by lane; `begun` is the share of the prefetch of events that is begun and not acked.
    """

    def __init__(
        self, tools: Tools, peers: Peers, size: int, in_memory: Mapping[Lane, int], begun: Callable[[], float]
    ) -> None:
        self.clock = tools.clock
        self._steady = tools.steady
        self._peers = peers
        self._size = size
        self._in_memory = in_memory
        self._begun = begun
        self._most = 2 * size
        self._most_of_lane_in_memory = most_of_lane(self._most)
        self._most_of_lane = most_of_lane(size)
        self._slots = {Side.QUICK: size, Side.SLOW: max(1, int(size * SLOW_SHARE)), Side.PROBE: PROBES}
        self._used = dict.fromkeys(Side, 0)
        self._trying = 0  # attempts at clients whose circuit is not closed
        self._in_flight = dict.fromkeys(Lane, 0)  # of the window

    @property
    def _hanging(self) -> int:
        """How many attempts run at slow clients and as probes. They do not count as memory."""
        return self._used[Side.SLOW] + self._used[Side.PROBE]

    @property
    def many_probes_free(self) -> bool:
        """True if more than half of the slots for probes are free."""
        return 2 * self._used[Side.PROBE] < self._slots[Side.PROBE]

    def has_room(self, lane: Lane) -> bool:
        """True if another delivery of the lane may be begun."""
        return self._has_slot(lane) and self._has_memory(lane)

    def lacks_memory(self, lane: Lane) -> bool:
        """True if a slot is free for the lane, and only memory prevents another delivery."""
        return self._has_slot(lane) and not self._has_memory(lane)

    def _has_slot(self, lane: Lane) -> bool:
        return self._in_flight[lane] < self._most_of_lane and self._used[Side.QUICK] < self._size

    def _has_memory(self, lane: Lane) -> bool:
        hanging, in_memory = self._hanging, self._in_memory
        most, most_of_lane = self._most, self._most_of_lane_in_memory
        return in_memory[lane] - hanging < most_of_lane and sum(in_memory.values()) - hanging < most

    def fill(self) -> float:
        """Return the used share of memory, or of the prefetch of events if that is more."""
        return max((sum(self._in_memory.values()) - self._hanging) / self._most, self._begun())

    @property
    def crowded(self) -> bool:
        """True if nothing is to be fetched from buckets now."""
        return self.fill() > CROWDED

    def patience(self) -> float:
        """Return for how many seconds a delivery may wait in memory."""
        return SLOT_WAIT * max(LEAST_WAIT, 1 - self.fill())

    def any_free(self, side: Side) -> bool:
        """True if a slot of this side is free."""
        return self._slots[side] > self._used[side]

    def free(self, side: Side, lane: Lane, *, closed: bool) -> int:
        """Return how many slots of this side are free for a client. `closed`: its circuit is."""
        free = self._slots[side] - self._used[side]
        if side is Side.QUICK:
            free = min(free, self._most_of_lane - self._in_flight[lane])
        return free if closed else min(free, TRIED * self._size - self._trying)

    def count(self, known: KnownClient, lane: Lane, side: Side, change: int) -> None:
        """Note that an attempt at the client began (+1) or ended (-1)."""
        self._used[side] += change
        if known.circuit.state is not State.CLOSED:
            self._trying += change
        if side is Side.QUICK:
            self._in_flight[lane] += change

    def turn(self, known: KnownClient, *, was_up: bool) -> None:
        """Note that the circuit of the client is closed now, or no longer closed, while attempts run."""
        if known.up is not was_up:
            self._trying += -len(known.running) if known.up else len(known.running)

    def place(self, known: KnownClient, now: float) -> None:
        """Move the running attempts at the client to the side that fits by now. Probes stay."""
        side = known.side_at(now)
        if side is not known.side:
            for lane, before in known.move_to(side):
                self.count(known, lane, before, -1)
                self.count(known, lane, side, +1)

    @property
    def workers(self) -> int:
        """How many workers there are, this one included."""
        return self._peers.count() or ASSUMED_WORKERS

    def ahead(self) -> float:
        """Return the seconds from the steady clock to the wall clock."""
        return self.clock() - self._steady()


def most_of_lane(size: int) -> int:
    """Return how many one lane may hold. A window under ten is too small to divide."""
    return size - size // KEPT_FREE * (len(Lane) - 1)


class KnownClients:
    """The clients by key. `down` contains the ones with an open circuit; `peers` are the other workers."""

    def __init__(self, tools: Tools, slots: Slots, peers: Peers) -> None:
        self._tools = tools
        self._started_at = tools.steady()
        self._slots = slots
        self._peers = peers
        self._known: OrderedDict[ClientKey, KnownClient] = OrderedDict()  # the one with the oldest event comes first
        self.down: dict[ClientKey, KnownClient] = {}
        self._probe_seconds: dict[ClientKey, float] = {}  # of those that had a probe here: their attempt duration …
        self._sum_seconds = 0.0  # … and the sum of them

    def get(self, key: ClientKey) -> KnownClient | None:
        """Return the client, None if it is not stored."""
        return self._known.get(key)

    def __getitem__(self, key: ClientKey) -> KnownClient:
        return self._known[key]

    def __iter__(self) -> Iterator[KnownClient]:
        return iter(self._known.values())

    def know(self, client: Client, now: float) -> KnownClient:
        """Return the client with the limits of its present registration, and store it if it is new."""
        workers = self._slots.workers
        limit = max(1, client.max_concurrent // workers)
        step = 0.0 if client.per_second is None else workers / client.per_second
        known = self._known.get(key := client.key)
        if known is None:
            # All workers that start together may make one attempt at once: those before may just have spent the tokens.
            token_at = self._started_at + max(1.0, step) - step / workers - ROUNDING
            rate = AttemptRate(token_at=token_at)
            known = self._known[key] = KnownClient(key=key, limit=limit, seen_at=now, rate=rate)
        if known.limit != limit or known.rate.step != step:
            known.on_registration(limit, step)
        self._known.move_to_end(key)
        self._slots.place(known, now)
        return known

    def add(self, key: ClientKey, now: float) -> KnownClient:
        """Return the client, and store it without its registration if it is new."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = KnownClient(key=key, limit=1, seen_at=now)
        known.on_seen(now)
        self._known.move_to_end(key)
        return known

    def turn(self, known: KnownClient, change: Change | None, *, was_up: bool) -> None:
        """Note a change of the client's circuit."""
        self._slots.turn(known, was_up=was_up)
        self._count(known.key, known.attempt_seconds if known.down else 0.0)
        iss, client_id = known.key
        if change is Change.RECOVERED:
            self.down.pop(known.key, None)
            outage = known.circuit.outage_until - known.circuit.outage_from
            self._tools.observe(ClientRecovered(iss=iss, client_id=client_id, outage=outage))
        elif change is Change.OPENED:
            self.down[known.key] = known
            next_try = max(known.circuit.next_try, known.paused_until) + self._slots.ahead()
            self._tools.observe(ClientFailing(iss=iss, client_id=client_id, next_try=next_try))

    def _count(self, key: ClientKey, seconds: float) -> None:
        before = self._probe_seconds.pop(key, 0.0)
        if seconds > 0:
            self._probe_seconds[key] = seconds
        self._sum_seconds += seconds - before

    def least_rest(self, known: KnownClient) -> float:
        """Return for how many seconds its circuit opens at least: each open circuit may then have had its probe."""
        alike = len(self.down) - len(self._probe_seconds)  # reported by peers only: perhaps they hang as this one does
        busy = min(len(self.down) * known.attempt_seconds, self._sum_seconds + alike * known.attempt_seconds)
        return busy / (PROBES * self._slots.workers)

    def forget(self, now: float, *, busy: int) -> None:
        """Forget clients without events for long, and the ones with the oldest events if there are very many.

        `busy` is how many have a delivery in memory.
        """
        for _ in range(min(LOOKS, len(self._known))):
            key, known = next(iter(self._known.items()))
            if now - known.seen_at < KEPT and len(self._known) - busy <= MOST_KNOWN:
                return
            if known.idle and known.paused_until <= now and not known.covered(now):
                del self._known[key]
                self.down.pop(key, None)
                self._count(key, 0.0)
            else:
                known.on_seen(now)
                self._known.move_to_end(key)

    def tell(self, known: KnownClient, now: float, *, paced: bool) -> None:
        """Report the client to the other workers."""
        failing = 0.0 if known.circuit.failing_since is None else now - known.circuit.failing_since
        rest = max(0.0, known.circuit.next_try - now)
        spacing = known.rate.spacing if paced else 0.0
        self._peers.tell(
            News(
                key=known.key,
                up=known.up,
                failing=failing,
                rest=rest,
                cap=known.concurrency,
                spacing=spacing,
                former_share=known.rate.former_share,
                parked=known.parked,
            )
        )

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, 1 if an attempt is under way, else 2) for each client with an open circuit."""
        return ((*key, 1 if known.running else 2) for key, known in self.down.items())

    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, next probe in epoch seconds) for each client with an open circuit."""
        now, ahead = self._tools.steady(), self._slots.ahead()
        return (
            (*key, ahead + max(now, known.circuit.next_try, known.paused_until)) for key, known in self.down.items()
        )


class UnsuspendedClock:
    """Counts the seconds of `steady`, but at most LONGEST_GAP between two readings.

    A process may be frozen, its machine moved, its CPU quota used up. Afterwards answers lie unread and deadlines have
    passed. By a plain clock every client with a running attempt has then been silent for seconds. After six such
    seconds every delivery of the next minutes was deferred by the length of an attempt (measured: 1,000 deliveries).
    """

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._read = steady()
        self._held = 0.0

    def __call__(self) -> float:
        """Return the present moment."""
        now = self._steady()
        if now - self._read > LONGEST_GAP:
            self._held += now - self._read - LONGEST_GAP
        self._read = now
        return now - self._held

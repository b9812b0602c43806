"""Starts deliveries, at once or from memory as slots become free. `KnownClient.offer` decides for one client.

The gate protects clients from each other:

- `size` attempts may run in the window. A lane may use all slots of the window but a tenth for each other lane, so that
  a fresh logout finds a free slot at once, however much bulk is pending.
- A client with a closed circuit may take as many slots as stay free, up to its limit. So one client alone takes half of
  the slots, the next a quarter, and another client always finds one.
- Attempts at slow and silent clients use separate slots, a quarter of the window's size. However many clients hang, the
  window stays free.
- Probes use separate slots, too: fewer than the retries that a worker may hold, so that the retry of a client with a
  closed circuit is not delayed by probes that hang.
- A delivery waits in memory only if its turn is expected within `SLOT_WAIT`, or within less as memory fills. Otherwise
  it waits in a queue (`client_buckets.py`).

Two clocks are kept apart. All decisions use a steady clock, so that a jump of the wall clock opens no circuit and
starts no delivery. Messages and operators get moments of the wall clock, since other workers read them (`ahead`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

from notifier.delivery.admission import Deferral, Side, StartNow, Ticket, Wait
from notifier.delivery.circuit import Change, State
from notifier.delivery.client_buckets import Buckets
from notifier.delivery.known_client import SLOW_SECONDS, KnownClient
from notifier.delivery.known_clients import PROBE_SLOTS, KnownClients
from notifier.delivery.ports import News, Peers, Tools
from notifier.delivery.verdict import AttemptResult, Done
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import SLOT_WAIT
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Signal

DEFERRALS_PER_ROUND = 16  # deliveries deferred out of memory at a time: more would delay the others
ASSUMED_WORKERS = 4  # share a client's limits while their number is not known, in the second after a start
SLOW_SHARE = 0.25  # slots for slow and silent clients, beside the window: a share of its size
MAX_HANGING_WINDOWS = 4  # × `size` attempts may hang before a client whose circuit is not closed must wait
LANE_RESERVES = 10  # a tenth of the window is kept free for each other lane
MIN_WAIT_SHARE = 0.1  # the share of `SLOT_WAIT` that remains if memory is full


class Slots:
    """Counts the running attempts, by side and lane, and the deliveries in memory.

    At most twice `size` deliveries are in memory, beside those being attempted at slow clients and as probes.
    `in_memory` counts them by lane; `started_share` returns the share of the prefetch of events in unfinished messages.
    """

    def __init__(
        self, tools: Tools, peers: Peers, size: int, in_memory: Mapping[Lane, int], started_share: Callable[[], float]
    ) -> None:
        self._clock = tools.clock
        self._steady = tools.steady
        self._peers = peers
        self._size = size
        self._in_memory = in_memory
        self._started_share = started_share
        self._slots = {Side.QUICK: size, Side.SLOW: max(1, int(size * SLOW_SHARE)), Side.PROBE: PROBE_SLOTS}
        self._most_of_lane, self._most_of_lane_in_memory = most_of_lane(size), most_of_lane(2 * size)
        self._used = dict.fromkeys(Side, 0)
        self._in_flight = dict.fromkeys(Lane, 0)  # of the window
        self._hanging = 0  # attempts at slow clients and probes, which do not count as memory

    def many_probes_free(self) -> bool:
        """True if more than half of the slots for probes are free."""
        return 2 * self._used[Side.PROBE] < PROBE_SLOTS

    def workers(self) -> int:
        """How many workers there are, this one included."""
        return self._peers.count() or ASSUMED_WORKERS

    def ahead(self) -> float:
        """Return the seconds from the steady clock to the wall clock."""
        return self._clock() - self._steady()

    def has_room(self, lane: Lane) -> bool:
        """Return True if another delivery of the lane may start."""
        return self.has_slot(lane) and self.has_memory(lane)

    def has_slot(self, lane: Lane) -> bool:
        """Return True if a slot is free for another delivery of the lane."""
        return self._in_flight[lane] < self._most_of_lane and self._used[Side.QUICK] < self._size

    def has_memory(self, lane: Lane) -> bool:
        """Return True if there is memory for another delivery of the lane."""
        of_lane, most_of_lane = self._in_memory[lane], self._most_of_lane_in_memory + self._hanging
        return of_lane < most_of_lane and sum(self._in_memory.values()) - self._hanging < 2 * self._size

    def fill(self) -> float:
        """Return the used share of memory, or of the prefetch of events if that is more."""
        return max((sum(self._in_memory.values()) - self._hanging) / (2 * self._size), self._started_share())

    def patience(self) -> float:
        """Return for how many seconds a delivery may wait in memory."""
        return SLOT_WAIT * max(MIN_WAIT_SHARE, 1 - self.fill())

    def any_free(self, side: Side) -> bool:
        """Return True if a slot of this side is free."""
        return self._slots[side] > self._used[side]

    def free(self, side: Side, lane: Lane, *, closed: bool) -> int:
        """Return how many slots of this side are free for a client. `closed`: its circuit is."""
        free = self._slots[side] - self._used[side]
        if side is Side.QUICK:
            free = min(free, self._most_of_lane - self._in_flight[lane])
        return free if closed else min(free, MAX_HANGING_WINDOWS * self._size - self._hanging)

    def count(self, lane: Lane, side: Side, change: int) -> None:
        """Note that an attempt began (+1) or ended (-1)."""
        self._used[side] += change
        if side is Side.QUICK:
            self._in_flight[lane] += change
        else:
            self._hanging += change

    def place(self, known: KnownClient, now: float) -> None:
        """Move the running attempts at the client to the side that fits by now. Probes stay."""
        side = known.side_at(now)
        if side is not known.side:
            for lane, before in known.move_to(side):
                self.count(lane, before, -1)
                self.count(lane, side, +1)


def most_of_lane(size: int) -> int:
    """Return how many one lane may hold. A window under ten is too small to divide."""
    return size - size // LANE_RESERVES * (len(Lane) - 1)


class Gate:
    """Starts the deliveries of one worker."""

    def __init__(self, tools: Tools, slots: Slots, peers: Peers) -> None:
        self._tools = tools
        self.slots = slots
        self.clients = KnownClients(tools, slots, peers)
        self.buckets = Buckets(tools, slots, self.clients)
        self._busy: dict[ClientKey, KnownClient] = {}  # clients with deliveries in memory
        self._ready: dict[Side, OrderedDict[ClientKey, KnownClient]] = {side: OrderedDict() for side in Side}

    # ── start, wait or defer ──

    def admit(
        self, delivery: Delivery, client: Client, lane: Lane, *, fetched: bool = False
    ) -> StartNow | Wait | Deferral:
        """Return whether the delivery starts, waits in memory, or is deferred. The answer contains it as changed."""
        now, key = self._tools.steady(), client.key
        known = self.clients.get(key) or self.clients.add(key, now, client)
        known.on_registration(client, self.slots.workers())
        self.clients.move_to_end(key)
        self.slots.place(known, now)
        answer = known.offer(delivery, client, lane, self.slots, now, fetched=fetched)
        if isinstance(answer, StartNow):
            self._begin(known, answer, now)
            return answer
        if isinstance(answer, Wait):
            self._busy[key] = self._ready[known.side][key] = known
            return answer
        return self.buckets.defer(known, *answer, client)

    def _begin(self, known: KnownClient, ticket: Ticket, now: float) -> None:
        side = Side.PROBE if known.circuit.state is State.OPEN else known.side
        known.on_started(ticket, side, now)
        self._busy[known.key] = known
        self.slots.count(ticket.lane, side, +1)

    def on_ended(self, ticket: Ticket, result: AttemptResult) -> tuple[list[Ticket], AttemptResult, float]:
        """Note the result of an attempt. Return the deliveries that start in its slot, and `Buckets.after_attempt`."""
        now, known = self._tools.steady(), self.clients[ticket.client.key]
        if result.pause is not None:
            known.on_pause(now + result.pause)
        side = known.on_ended(ticket)
        self.slots.count(ticket.lane, side, -1)
        was_closed, was_limited = known.circuit.state is State.CLOSED, known.rate.spacing
        repeat = ticket.delivery.attempts > 0
        least = 0.0 if result.signal is Signal.RESPONSIVE else self.clients.least_rest(known)
        change = known.on_result(result.signal, now - ticket.posted_at, now, repeat=repeat, least=least)
        if not was_closed or known.circuit.state is not State.CLOSED:
            self._on_circuit(known, change)
        if change is Change.OPENED:
            ticket.on_circuit_opened()
        paced = known.rate.spacing not in (0.0, was_limited)
        if change is not None or paced:
            self.clients.report(known, now, paced=paced)
        self.slots.place(known, now)
        if known.waiting:
            self._ready[known.side][known.key] = known
        elif not known.running:
            self._busy.pop(known.key, None)
        following = self.start_waiting() if any(self._ready.values()) else []
        if isinstance(result.verdict, Done) and not known.parked:
            return following, result, 0.0  # nearly always
        return following, *self.buckets.after_attempt(known, ticket, result, now)

    def _on_circuit(self, known: KnownClient, change: Change | None) -> None:
        self.clients.on_circuit(known, change)
        if change is Change.RECOVERED and known.parked and known.in_pass:
            self.buckets.requested[known.key] = None  # a pass that began before misses deliveries parked since

    def start_waiting(self) -> list[Ticket]:
        """Start the deliveries in memory for which slots are free, client after client, and return them."""
        now, begun = self._tools.steady(), list[Ticket]()
        for side, ready in self._ready.items():
            looks = min(len(ready), 8)
            while looks and self.slots.any_free(side):
                looks -= 1
                key, known = ready.popitem(last=False)
                if known.side is not side:
                    self._ready[known.side][key] = known
                    continue
                while known.waiting and known.can_start(known.first.delivery, known.first.lane, self.slots, now):
                    begun.append(ticket := known.pop())
                    self._begin(known, ticket, now)
                if known.waiting and len(known.running) < known.concurrency:
                    ready[key] = known
        return begun

    # ── deferrals from memory ──

    def defer_overdue(self) -> Iterator[tuple[Ticket, Deferral]]:
        """Defer some of the deliveries that can wait in memory no longer, and return them. Called 20 times a second."""
        now = self._tools.steady()
        for key, known in self._busy.items():
            self.slots.place(known, now)
            if known.waiting:
                self._ready[known.side][key] = known
        self.clients.forget(now, busy=len(self._busy))
        return self._defer(now, DEFERRALS_PER_ROUND, 2 * self.slots.patience())

    def free_memory(self) -> Iterator[tuple[Ticket, Deferral]]:
        """Defer the newest of the deliveries that would wait longest, and return them: memory is full."""
        return self._defer(self._tools.steady(), 2 * DEFERRALS_PER_ROUND, MIN_WAIT_SHARE * SLOT_WAIT)

    def _defer(self, now: float, most: int, patience: float) -> Iterator[tuple[Ticket, Deferral]]:
        for key, known in list(self._busy.items()):
            while most and known.must_defer(self.slots, now, patience):
                most -= 1
                ticket = known.pop(newest=True)
                later = known.defer(ticket.delivery, self.slots, now, fetched=ticket.fetched)
                yield ticket, self.buckets.defer(known, ticket.delivery, later, ticket.client)
            if not known.waiting:
                self._ready[known.side].pop(key, None)
                if not known.running:
                    self._busy.pop(key, None)

    # ── other workers ──

    def on_peer_report(self, news: News) -> None:
        """Apply the report of another worker."""
        known, now = self.clients.get(news.key), self._tools.steady()
        if known is not None:
            self._on_circuit(known, known.on_peer_report(news, now))
            self.buckets.on_peer_report(known, now)
        elif news.up and news.parked:
            self.buckets.requested[news.key] = None  # by a worker that stops, perhaps

    def unresponsive(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, seconds without an answer) for each client that hangs."""
        now = self._tools.steady()
        for key, known in self._busy.items():
            if known.circuit.state is not State.OPEN and (seconds := known.silence(now)) > SLOW_SECONDS:
                yield *key, seconds

    @property
    def waiting(self) -> int:
        """How many deliveries wait in memory for their client."""
        return sum(known.waiting for known in self._busy.values())

    def waiting_counts(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return ((*key, known.waiting) for key, known in self._busy.items() if known.waiting)

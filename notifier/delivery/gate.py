"""Starts deliveries, at once or from memory as slots become free. `KnownClient.admit` decides for one client.

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

Two clocks are kept apart. All decisions use a monotonic clock, so that a jump of the wall clock opens no circuit and
starts no delivery. Messages and operators get moments of the wall clock, since other workers read them (`ahead`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

from notifier.delivery.admission import SlotPool, StartNow, Ticket, WaitInMemory
from notifier.delivery.circuit import CircuitChange, State
from notifier.delivery.client_buckets import Buckets
from notifier.delivery.known_client import KnownClient
from notifier.delivery.known_clients import PROBE_SLOTS, KnownClients
from notifier.delivery.pending import SLOW_SECONDS
from notifier.delivery.ports import ClientReport, Peers, Tools
from notifier.delivery.verdict import AttemptReport, Defer
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import SLOT_WAIT
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Delivered, Signal

DEFERRALS_PER_ROUND = 16  # deliveries deferred out of memory at a time: more would delay the others
CLIENTS_PER_START = 8  # of each pool, examined each time that a slot becomes free
ASSUMED_WORKERS = 4  # share a client's limits while their number is not known, in the second after a start
SLOW_SHARE = 0.25  # slots for slow and silent clients, beside the window: a share of its size
MAX_HANGING_WINDOWS = 4  # × `size` attempts may hang before a client whose circuit is not closed must wait
LANE_RESERVES = 10  # a tenth of the window is kept free for each other lane
MIN_WAIT_SHARE = 0.1  # the share of `SLOT_WAIT` that remains if memory is full


class Slots:
    """Counts the running attempts, by pool and lane, and limits the deliveries in memory. Implements `Capacity`.

    `size`: the number of slots of the window. At most twice as many deliveries are in memory, beside attempts at slow
    clients and probes. `in_memory` counts all deliveries in memory by lane. `started_share` returns which share of the
    prefetch of events is used by messages that are started and not acked.
    """

    def __init__(
        self, tools: Tools, peers: Peers, size: int, in_memory: Mapping[Lane, int], started_share: Callable[[], float]
    ) -> None:
        self._clock = tools.clock
        self._monotonic = tools.monotonic
        self._peers = peers
        self._size = size
        self._in_memory = in_memory
        self._started_share = started_share
        self._pool_sizes = {
            SlotPool.QUICK: size,
            SlotPool.SLOW: max(1, int(size * SLOW_SHARE)),
            SlotPool.PROBE: PROBE_SLOTS,
        }
        self._lane_limit, self._lane_memory_limit = lane_limit(size), lane_limit(2 * size)
        self._used_slots = dict.fromkeys(SlotPool, 0)
        self._window_slots_of = dict.fromkeys(Lane, 0)  # used slots of the window
        self._attempts_outside = 0  # attempts at slow clients and probes, which do not count as memory

    def has_spare_probe_slots(self) -> bool:
        """Return True if more than half of the slots for probes are free."""
        return 2 * self._used_slots[SlotPool.PROBE] < PROBE_SLOTS

    def worker_count(self) -> int:
        """Return the number of workers, including this one; an assumed number while it is unknown."""
        return self._peers.count() or ASSUMED_WORKERS

    def wall_offset(self) -> float:
        """Return the seconds to add to a moment of the monotonic clock to get the wall clock's moment."""
        return self._clock() - self._monotonic()

    def has_room(self, lane: Lane) -> bool:
        """Return True if another delivery of the lane may start."""
        return self.has_slot(lane) and self.has_memory(lane)

    def has_slot(self, lane: Lane) -> bool:
        """Return True if the window has a free slot for another delivery of the lane."""
        return self._window_slots_of[lane] < self._lane_limit and self._used_slots[SlotPool.QUICK] < self._size

    def has_memory(self, lane: Lane) -> bool:
        """Return True if there is memory for another delivery of the lane."""
        count, max_count = self._in_memory[lane], self._lane_memory_limit + self._attempts_outside
        return count < max_count and sum(self._in_memory.values()) - self._attempts_outside < 2 * self._size

    def used_share(self) -> float:
        """Return the used share of memory, or of the prefetch of events if that is more."""
        return max((sum(self._in_memory.values()) - self._attempts_outside) / (2 * self._size), self._started_share())

    def max_wait_seconds(self) -> float:
        """Return for how many seconds a delivery may wait in memory: `SLOT_WAIT`, less as memory fills."""
        return SLOT_WAIT * max(MIN_WAIT_SHARE, 1 - self.used_share())

    def has_free_slot(self, pool: SlotPool) -> bool:
        """Return True if a slot of this pool is free."""
        return self._pool_sizes[pool] > self._used_slots[pool]

    def free_slots(self, pool: SlotPool, lane: Lane, *, circuit_closed: bool) -> int:
        """Return how many slots of this pool a client may take. `circuit_closed`: the client's circuit is closed."""
        count = self._pool_sizes[pool] - self._used_slots[pool]
        if pool is SlotPool.QUICK:
            count = min(count, self._lane_limit - self._window_slots_of[lane])
        if circuit_closed:
            return count
        return min(count, MAX_HANGING_WINDOWS * self._size - self._attempts_outside)  # such a client may hang

    def count_attempt(self, lane: Lane, pool: SlotPool, change: int) -> None:
        """Count an attempt that began (`change` +1) or ended (-1) in a slot of this pool."""
        self._used_slots[pool] += change
        if pool is SlotPool.QUICK:
            self._window_slots_of[lane] += change
        else:
            self._attempts_outside += change

    def update_pool(self, known: KnownClient, now: float) -> None:
        """Move the client's running attempts, except probes, to the pool for quick or slow clients that fits now."""
        if (pool := known.pool_at(now)) is not known.pool:
            for lane, former_pool in known.move_running(pool):
                self.count_attempt(lane, former_pool, -1)
                self.count_attempt(lane, pool, +1)


def lane_limit(size: int) -> int:
    """Return how many of `size` slots one lane may use: all but a tenth for each other lane. Below ten, all."""
    return size - size // LANE_RESERVES * (len(Lane) - 1)


class Gate:
    """Starts the deliveries of one worker, at once or once a slot is free.

    A client in `_ready` may have a delivery in memory that can start; a client in `_busy` has deliveries in memory.
    """

    def __init__(self, tools: Tools, slots: Slots, peers: Peers) -> None:
        self._tools = tools
        self.slots = slots
        self.clients = KnownClients(tools, slots, peers)
        self.buckets = Buckets(tools, slots, self.clients)
        self._busy: dict[ClientKey, KnownClient] = {}
        self._ready: dict[SlotPool, OrderedDict[ClientKey, KnownClient]] = {pool: OrderedDict() for pool in SlotPool}

    # ── start, wait or defer ──

    def admit(
        self, delivery: Delivery, client: Client, lane: Lane, *, fetched: bool = False
    ) -> StartNow | WaitInMemory | tuple[Delivery, Defer]:
        """Return whether the delivery starts, waits in memory, or is deferred. `fetched`: it comes from a bucket.

        The answer contains the delivery, which may be changed.
        """
        now, key = self._tools.monotonic(), client.key
        known = self.clients.get(key) or self.clients.add(key, now, client)
        known.on_registration(client, self.slots.worker_count())
        self.clients.move_to_end(key)
        self.slots.update_pool(known, now)
        answer = known.admit(delivery, client, lane, self.slots, now, fetched=fetched)
        if isinstance(answer, StartNow):
            self._start(known, answer, now)
            return answer
        if isinstance(answer, WaitInMemory):
            self._busy[key] = self._ready[known.pool][key] = known
            return answer
        delivery, standing = answer
        return delivery, self.buckets.defer(known, delivery, standing, client)

    def _start(self, known: KnownClient, ticket: Ticket, now: float) -> None:
        """Take a slot for the delivery: one for probes if the circuit is open or half-open."""
        pool = SlotPool.PROBE if known.circuit.state is State.OPEN else known.pool
        known.on_started(ticket, pool, now)
        self._busy[known.key] = known
        self.slots.count_attempt(ticket.lane, pool, +1)

    def on_ended(self, ticket: Ticket, report: AttemptReport, *, is_cancelled: bool = False) -> list[Ticket]:
        """Free the attempt's slot, update the state of its client, and return the deliveries that start now.

        Unless the attempt succeeded or was cancelled, `Buckets.decide_verdict` follows, which may request a pass.
        """
        now, known = self._tools.monotonic(), self.clients[ticket.client.key]
        if report.pause_seconds is not None:
            known.on_pause(now + report.pause_seconds)
        pool = known.on_ended(ticket)
        self.slots.count_attempt(ticket.lane, pool, -1)
        was_closed, former_spacing = known.circuit.state is State.CLOSED, known.rate.spacing
        repeat = ticket.delivery.progress.attempts > 0
        min_open = 0.0 if report.signal is Signal.RESPONSIVE else self.clients.min_open_seconds(known)
        seconds = now - ticket.posted_at
        change = known.on_result(report.signal, seconds, now, is_repeat=repeat, min_open_seconds=min_open)
        if not was_closed or known.circuit.state is not State.CLOSED:
            self._on_circuit(known, change)
        if change is CircuitChange.OPENED:
            ticket.on_circuit_opened()
        rate_changed = known.rate.spacing not in (0.0, former_spacing)
        if change is not None or rate_changed:
            self.clients.report(known, now, rate_changed=rate_changed)
        self.slots.update_pool(known, now)
        if known.waiting_count:
            self._ready[known.pool][known.key] = known
        elif not known.running:
            self._busy.pop(known.key, None)
        started = self.start_waiting() if any(self._ready.values()) else []
        if known.parked and (is_cancelled or isinstance(report.outcome, Delivered)):
            self.buckets.request_pass(known, now)
        return started

    def _on_circuit(self, known: KnownClient, change: CircuitChange | None) -> None:
        """Report the change. If the client recovered during a pass through its bucket, request another pass."""
        self.clients.on_circuit(known, change)
        if change is CircuitChange.RECOVERED and known.parked and known.in_pass:
            self.buckets.requested[known.key] = None  # the present pass misses deliveries that were parked since

    def start_waiting(self) -> list[Ticket]:
        """Start deliveries in memory while slots are free, for the next few clients of each pool, and return them."""
        now, started = self._tools.monotonic(), list[Ticket]()
        for pool, ready in self._ready.items():
            remaining = min(len(ready), CLIENTS_PER_START)
            while remaining and self.slots.has_free_slot(pool):
                remaining -= 1
                key, known = ready.popitem(last=False)
                if known.pool is not pool:
                    self._ready[known.pool][key] = known
                    continue
                while known.waiting_count and known.can_start(known.first.delivery, known.first.lane, self.slots, now):
                    started.append(ticket := known.pop())
                    self._start(known, ticket, now)
                if known.waiting_count and len(known.running) < known.concurrency:
                    ready[key] = known
        return started

    # ── deferrals from memory ──

    def defer_without_turn(self) -> Iterator[tuple[Ticket, Defer]]:
        """Defer some deliveries whose turn is not expected soon, and yield them. Called 20 times a second.

        Also updates the pools of clients with deliveries in memory, and forgets unused clients.
        """
        now = self._tools.monotonic()
        for key, known in self._busy.items():
            self.slots.update_pool(known, now)
            if known.waiting_count:
                self._ready[known.pool][key] = known
        self.clients.forget(now, busy=len(self._busy))
        return self._defer(now, DEFERRALS_PER_ROUND, 2 * self.slots.max_wait_seconds())

    def free_memory(self) -> Iterator[tuple[Ticket, Defer]]:
        """Defer the newest deliveries of clients whose deliveries would wait longest, and yield them."""
        return self._defer(self._tools.monotonic(), 2 * DEFERRALS_PER_ROUND, MIN_WAIT_SHARE * SLOT_WAIT)

    def _defer(self, now: float, max_count: int, max_wait: float) -> Iterator[tuple[Ticket, Defer]]:
        """Defer at most `max_count` deliveries that would wait in memory for more than `max_wait` seconds."""
        for key, known in list(self._busy.items()):
            while max_count and known.must_defer(self.slots, now, max_wait):
                max_count -= 1
                ticket = known.pop(newest=True)
                standing = known.standing(ticket.delivery, self.slots, now, fetched=ticket.fetched)
                yield ticket, self.buckets.defer(known, ticket.delivery, standing, ticket.client)
            if not known.waiting_count:
                self._ready[known.pool].pop(key, None)
                if not known.running:
                    self._busy.pop(key, None)

    # ── other workers ──

    def on_peer_report(self, report: ClientReport) -> None:
        """Apply another worker's report of a client."""
        known, now = self.clients.get(report.key), self._tools.monotonic()
        if known is not None:
            self._on_circuit(known, known.on_peer_report(report, now))
            self.buckets.on_peer_report(known, now)
        elif report.circuit_closed and report.parked:
            self.buckets.requested[report.key] = None  # the other worker may be stopping and leave the bucket

    def unresponsive(self) -> Iterable[tuple[str, str, float]]:
        """Yield (iss, client_id, seconds without an answer) for each client that hangs and has no open circuit."""
        now = self._tools.monotonic()
        for key, known in self._busy.items():
            seconds = known.silent_seconds(now)
            if known.circuit.state is not State.OPEN and seconds > SLOW_SECONDS:
                yield *key, seconds

    @property
    def waiting(self) -> int:
        """The number of deliveries that wait in memory for their client."""
        return sum(known.waiting_count for known in self._busy.values())

    def waiting_counts(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, number of deliveries that wait in memory) for each client that has any."""
        return ((*key, known.waiting_count) for key, known in self._busy.items() if known.waiting_count)

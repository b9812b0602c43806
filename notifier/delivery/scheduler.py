"""Starts the deliveries of a worker, at once or from memory as slots become free, and stores the states of its clients.

`ClientState.admit` decides for one client, and the scheduler carries it out.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial

from notifier.delivery.circuit import CircuitChange, State
from notifier.delivery.client_state import SILENCE_FACTOR, SLOW_SECONDS, Admission, ClientState
from notifier.delivery.deferrals import Deferrals
from notifier.delivery.facts import ClientFailing, ClientRecovered
from notifier.delivery.line_and_parking import AdmittedDelivery
from notifier.delivery.ports import ClientReport, Peers, Tools
from notifier.delivery.rate import EARLY_TOKEN_SECONDS, AttemptRate, registered_interval
from notifier.delivery.slots import MIN_WAIT_SHARE, PROBE_SLOTS, SlotPool, Slots
from notifier.delivery.verdict import AttemptReport, Defer, Standing
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import SLOT_WAIT
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Delivered, Signal
from notifier.model.shared_resources import shared_bound

KEPT_SECONDS = 1800.0  # until a client without any event is forgotten
MAX_KNOWN_CLIENTS = shared_bound(20_000)  # clients stored that have no delivery in memory
CLIENTS_PER_CHECK = 64  # clients that `forget` examines at a time
DEFERRALS_PER_ROUND = 16  # deliveries deferred out of memory at a time: more would delay the others
OPEN_SECONDS_PER_WAIT = 8.0  # for each second that probes yield to others: then a ninth of them yields at a time
STARTS_PER_TURN = shared_bound(8)  # deliveries of each pool, for each free slot, in a separate round of the event loop
PATIENCE_SECONDS = 5.0  # without an answer, after which an attempt may end early: the default timeout is not shortened
REPEAT_PATIENCE_SECONDS = 30.0  # … if the delivery's attempt before ended early: a slow client can answer


class ClientStates(OrderedDict[ClientKey, ClientState]):
    """The clients by key, the one with the oldest event first. `failing`: the clients with an open circuit."""

    def __init__(self, tools: Tools, slots: Slots, peers: Peers) -> None:
        super().__init__()
        self._tools = tools
        self._started_at = tools.monotonic()
        self._slots = slots
        self._peers = peers
        self.failing: dict[ClientKey, ClientState] = {}
        self._probe_seconds: dict[ClientKey, float] = {}  # mean attempt durations of failing clients probed here …
        self._sum_seconds = 0.0  # … and their sum

    def add(self, key: ClientKey, now: float, client: Client | None = None) -> ClientState:
        """Store and return a new client. With its registration, the registered rate applies from the worker's start."""
        rate = AttemptRate()
        if client is not None:
            # Former workers may just have used up the rate, so all new workers together begin with one attempt.
            worker_count = self._slots.worker_count()
            interval = registered_interval(client, worker_count)
            token_at = self._started_at + max(1.0, interval) - interval / worker_count - EARLY_TOKEN_SECONDS
            rate = AttemptRate(token_at=token_at, registered_interval=interval)
        known = self[key] = ClientState(key=key, seen_at=now, rate=rate)
        return known

    def on_circuit(self, known: ClientState, change: CircuitChange | None) -> None:
        """Report the change of the client's circuit, and update the failing clients."""
        self._count_probe(known.key, known.attempt_seconds if known.circuit.state is State.OPEN else 0.0)
        iss, client_id = known.key
        if change is CircuitChange.RECOVERED:
            self.failing.pop(known.key, None)
            self._tools.observe(ClientRecovered(iss=iss, client_id=client_id, outage=known.circuit.last_outage_seconds))
        elif change is CircuitChange.OPENED:
            self.failing[known.key] = known
            next_try = known.available_at + self._slots.wall_offset()
            self._tools.observe(ClientFailing(iss=iss, client_id=client_id, next_try=next_try))

    def _count_probe(self, key: ClientKey, seconds: float) -> None:
        self._sum_seconds += seconds - self._probe_seconds.pop(key, 0.0)
        if seconds > 0:
            self._probe_seconds[key] = seconds

    def min_open_seconds(self, known: ClientState) -> float:
        """Return how long the client's circuit must stay open, so that each failing client can have a probe meanwhile.

        That is the expected duration of one probe of each failing client, divided by the slots for probes; or longer,
        in proportion to the time for which probes yield at present, since the processor has no time for so many.
        """
        own_seconds = known.attempt_seconds
        unprobed_count = len(self.failing) - len(self._probe_seconds)  # peers reported them: assume this duration
        # At most as if each took as long as this client's: a client that fails at once is not delayed by clients that
        # hang, since its probe takes a slot only for a moment.
        probing_seconds = min(len(self.failing) * own_seconds, self._sum_seconds + unprobed_count * own_seconds)
        by_slots = probing_seconds / (PROBE_SLOTS * self._slots.worker_count())
        return max(by_slots, OPEN_SECONDS_PER_WAIT * self._slots.yielding_seconds())

    def forget(self, now: float, *, busy: int) -> None:
        """Forget some clients without events for half an hour, or with the oldest events if there are too many.

        `busy`: the number of clients with a delivery in memory, which do not count as too many.
        """
        for _ in range(min(CLIENTS_PER_CHECK, len(self))):
            key, known = next(iter(self.items()))
            if now - known.seen_at < KEPT_SECONDS and len(self) - busy <= MAX_KNOWN_CLIENTS:
                return
            if known.is_idle and not known.parking.is_paused(now) and not known.parking.has_probe_out(now):
                del self[key]
                self.failing.pop(key, None)
                self._count_probe(key, 0.0)
            else:
                known.on_seen(now)
                self.move_to_end(key)

    def report(self, known: ClientState, now: float, *, rate_changed: bool) -> None:
        """Report the client to the other workers, with its rate limit if `rate_changed`."""
        circuit, rate = known.circuit, known.rate
        report = ClientReport(
            key=known.key, circuit_closed=circuit.state is State.CLOSED,
            failing_seconds=0.0 if circuit.failing_since is None else now - circuit.failing_since,
            open_seconds=max(0.0, circuit.probe_at - now), concurrency=known.concurrency,
            spacing=rate.spacing if rate_changed else 0.0, former_share=rate.former_share, parked=known.parking.parked,
        )  # fmt: skip
        self._peers.report(report)

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, state) for each client with an open circuit: 1 during a probe, otherwise 2."""
        return ((*key, 1 if known.running else 2) for key, known in self.failing.items())

    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, time of the next probe in epoch seconds) for each client with an open circuit."""
        now, offset = self._tools.monotonic(), self._slots.wall_offset()
        return ((*key, offset + max(now, known.available_at)) for key, known in self.failing.items())


class Scheduler:
    """Starts the deliveries of one worker, at once or once a slot is free.

    A client in `_ready` may have a delivery in memory that can start; a client in `_busy` has deliveries in memory.
    `start_turns`: how often to call `start_waiting`, each time in another round of the event loop. Many attempts may
    end in one round, and if deliveries in memory took all their slots at once, they would delay all others.
    """

    def __init__(self, tools: Tools, slots: Slots, peers: Peers) -> None:
        self._tools = tools
        self.slots = slots
        self.clients = ClientStates(tools, slots, peers)
        self.deferrals = Deferrals(tools, slots, self.clients, partial(self.clients.report, rate_changed=False))
        self._busy: dict[ClientKey, ClientState] = {}
        self._worker_count = slots.worker_count()  # at the last round of `defer_without_slot`
        self._ready: dict[SlotPool, OrderedDict[ClientKey, ClientState]] = {pool: OrderedDict() for pool in SlotPool}
        self.start_turns = 0

    # ── start, wait or defer ──

    def admit(
        self, delivery: Delivery, client: Client, lane: Lane, *, fetched: bool = False
    ) -> AdmittedDelivery | tuple[Delivery, Defer]:
        """Start the delivery, let it wait in memory (`is_waiting`), or defer it. `fetched`: it comes from a bucket.

        The answer contains the delivery: a failure during the last outage does not lengthen its backoff.
        """
        now, key = self._tools.monotonic(), client.key
        known = self.clients.get(key) or self.clients.add(key, now, client)
        known.on_registration(client, self.slots.worker_count(), now)
        self.clients.move_to_end(key)
        self._update_pool(known, now)
        if delivery.progress.charged_at is not None:
            delivery = known.without_outage(delivery, self.slots)
        answer = known.admit(delivery, client, lane, self.slots, now, fetched=fetched)
        if isinstance(answer, Standing):
            return delivery, self.deferrals.defer(known, delivery, answer, client)
        is_waiting = answer is Admission.WAIT
        admitted = AdmittedDelivery(delivery=delivery, client=client, lane=lane, fetched=fetched, is_waiting=is_waiting)
        if is_waiting:
            known.line.push(admitted)
            self._busy[key] = self._ready[known.pool][key] = known
        else:
            self._start(known, admitted, now)
        return admitted

    def _start(self, known: ClientState, admitted: AdmittedDelivery, now: float) -> None:
        """Take a slot for the delivery: one for probes if the circuit is open or half-open."""
        pool = SlotPool.PROBE if known.circuit.state is State.OPEN else known.pool
        known.on_started(admitted, pool, now)
        self._busy[known.key] = known
        self.slots.count_attempt(admitted.lane, pool, +1)

    def on_ended(self, admitted: AdmittedDelivery, report: AttemptReport, *, is_cancelled: bool = False) -> None:
        """Free the attempt's slot for `start_waiting`, and update the state of its client.

        Unless the attempt succeeded or was cancelled, `Deferrals.decide_verdict` follows, which may request a fetch.
        """
        now, known = self._tools.monotonic(), self.clients[admitted.client.key]
        if report.pause_seconds is not None:
            known.parking.on_pause(now + report.pause_seconds)
        pool = known.on_attempt_ended(admitted)
        self.slots.count_attempt(admitted.lane, pool, -1)
        was_closed, former_spacing = known.circuit.state is State.CLOSED, known.rate.spacing
        repeat = admitted.delivery.progress.attempts > 0
        min_open = 0.0 if report.signal is Signal.RESPONSIVE else self.clients.min_open_seconds(known)
        seconds = now - admitted.posted_at
        change = known.on_result(report.signal, seconds, now, is_repeat=repeat, min_open_seconds=min_open)
        if not was_closed or known.circuit.state is not State.CLOSED:
            self._on_circuit(known, change)
        if change is CircuitChange.OPENED:
            admitted.on_circuit_opened()
        rate_changed = known.rate.spacing not in (0.0, former_spacing)
        if change is not None or rate_changed:
            self.clients.report(known, now, rate_changed=rate_changed)
        self._update_pool(known, now)
        if known.line.count:
            self._ready[known.pool][known.key] = known
        elif not known.running:
            self._busy.pop(known.key, None)
        if any(self._ready.values()):
            self.start_turns += 1
        if known.parking.parked and (is_cancelled or isinstance(report.outcome, Delivered)):
            self.deferrals.request_fetch(known, now)

    def _on_circuit(self, known: ClientState, change: CircuitChange | None) -> None:
        """Report the change. If the client recovered while its bucket is fetched from, request another fetch."""
        self.clients.on_circuit(known, change)
        if change is CircuitChange.RECOVERED and known.parking.parked and known.parking.is_fetching:
            self.deferrals.requested[known.key] = None  # the present fetch misses deliveries that were parked since

    def start_waiting(self) -> list[AdmittedDelivery]:
        """Take one of the turns: start some deliveries in memory that have a slot, clients by turns. Return them."""
        self.start_turns -= 1
        now, started = self._tools.monotonic(), list[AdmittedDelivery]()
        for pool, ready in self._ready.items():
            start_count = blocked_count = 0
            while blocked_count < min(len(ready), STARTS_PER_TURN) and self.slots.has_free_slot(pool):
                if start_count == STARTS_PER_TURN:
                    self.start_turns += 1
                    break
                key, known = ready.popitem(last=False)
                if known.pool is not pool:
                    self._ready[known.pool][key] = known
                    continue
                if known.line.count and known.can_start(
                    known.line.first.delivery, known.line.first.lane, self.slots, now
                ):
                    started.append(admitted := known.line.pop())
                    self._start(known, admitted, now)
                    start_count += 1
                else:
                    blocked_count += 1
                if known.line.count and len(known.running) < known.concurrency:
                    ready[key] = known
        return started

    def _update_pool(self, known: ClientState, now: float) -> None:
        """Move the client's running attempts, except probes, to the pool for quick or slow clients that fits now."""
        if (pool := known.pool_at(now)) is not known.pool:
            for lane, former_pool in known.move_running(pool):
                self.slots.count_attempt(lane, former_pool, -1)
                self.slots.count_attempt(lane, pool, +1)

    # ── deferrals from memory ──

    def defer_without_slot(self) -> Iterator[tuple[AdmittedDelivery, Defer]]:
        """Defer some deliveries whose slot is not expected soon, and yield them. Called 20 times a second.

        Adds a turn of `start_waiting`. Also updates the pools of clients with deliveries in memory, their limits if the
        number of workers has changed, and forgets unused clients.
        """
        now, former_count, self._worker_count = self._tools.monotonic(), self._worker_count, self.slots.worker_count()
        for key, known in self._busy.items():
            if self._worker_count != former_count:
                known.on_worker_count(self._worker_count, now)
            self._update_pool(known, now)
            if known.line.count:
                self._ready[known.pool][key] = known
        self.clients.forget(now, busy=len(self._busy))
        self.start_turns += any(self._ready.values())
        return self._defer(now, DEFERRALS_PER_ROUND, 2 * self.slots.max_wait_seconds())

    def free_memory(self) -> Iterator[tuple[AdmittedDelivery, Defer]]:
        """Defer the newest deliveries of clients whose deliveries would wait longest, and yield them."""
        return self._defer(self._tools.monotonic(), 2 * DEFERRALS_PER_ROUND, MIN_WAIT_SHARE * SLOT_WAIT)

    def _defer(self, now: float, max_count: int, max_wait: float) -> Iterator[tuple[AdmittedDelivery, Defer]]:
        """Defer at most `max_count` deliveries that would wait in memory for more than `max_wait` seconds."""
        for key, known in list(self._busy.items()):
            while max_count and known.must_defer(self.slots, now, max_wait):
                max_count -= 1
                admitted = known.line.pop(newest=True)
                standing = known.standing(admitted.delivery, self.slots, now, fetched=admitted.fetched)
                yield admitted, self.deferrals.defer(known, admitted.delivery, standing, admitted.client)
            if not known.line.count:
                self._ready[known.pool].pop(key, None)
                if not known.running:
                    self._busy.pop(key, None)

    # ── attempts that hang ──

    def attempts_to_end(self) -> list[AdmittedDelivery]:
        """Return the attempts that end early since others need their slots: those without an answer for longest.

        Each has had none for over 5 s, or 30 s if the delivery's attempt before ended early, so that a slow client can
        answer; or four times the mean of a client with a closed circuit if that is longer.
        """
        if (needs := self.slots.take_needs()) == (0, 0):
            return []
        now = self._tools.monotonic()
        silent: tuple[list[AdmittedDelivery], list[AdmittedDelivery]] = [], []  # probes, others
        for known in self._busy.values():
            usual = SILENCE_FACTOR * known.attempt_seconds if known.circuit.state is State.CLOSED else 0.0
            for admitted, pool in known.running.items():
                is_repeat = admitted.delivery.progress.ended_early
                patience = REPEAT_PATIENCE_SECONDS if is_repeat else PATIENCE_SECONDS
                if now - admitted.posted_at > max(patience, usual):
                    silent[pool is not SlotPool.PROBE].append(admitted)
        to_end = list[AdmittedDelivery]()
        for attempts, count in zip(silent, needs, strict=True):
            to_end += sorted(attempts, key=lambda admitted: admitted.posted_at)[:count]
        return to_end

    # ── other workers ──

    def on_peer_report(self, report: ClientReport) -> None:
        """Apply another worker's report of a client."""
        known, now = self.clients.get(report.key), self._tools.monotonic()
        if known is not None:
            self._on_circuit(known, known.on_peer_report(report, now))
            self.deferrals.on_peer_report(known, now)
        elif report.circuit_closed and report.parked:
            self.deferrals.requested[report.key] = None  # the other worker may be stopping and leave the bucket

    # ── for operators ──

    def probe_now(self, key: ClientKey, *, force: bool) -> None:
        """Request an attempt at the client now, if a delivery is parked for it. `force`: also during a pause."""
        now = self._tools.monotonic()
        known = self.clients.get(key) or self.clients.add(key, now)
        self.clients.move_to_end(key)
        if known.on_operator_probe(now, force=force):
            self.deferrals.request_fetch(known, now)

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
        return sum(known.line.count for known in self._busy.values())

    def waiting_counts(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, number of deliveries that wait in memory) for each client that has any."""
        return ((*key, known.line.count) for key, known in self._busy.items() if known.line.count)

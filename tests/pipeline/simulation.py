"""Simulates workers, delay queues and clients around the real `Admission`, `Window` and `LaneOrder`.

A heap of events, and no real time: an hour with a hundred thousand deliveries takes seconds. What is modelled:

- a worker's CPU is one serial resource: a POST takes it for 300 µs, a pass through a queue (a deferral or a retry
  written, read and asked again) for 200 µs;
- messages are handed to the workers in turn, up to the prefetch, and acked once all their deliveries have a fate;
- what is put off goes through delay queues of powers of two seconds, by the `hops` that RabbitMQ takes;
- what a delivery remembers, when it expires and when it is due again is decided by the real `verdict`;
- a client is a function from the moment to how long it takes and what its answer says; it may ask for a pause.

The wall clock and the steady one are the same here, seconds since the beginning.
"""

import heapq
import itertools
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import quantiles

from notifier.adapters.queues.rabbitmq.delays import hops
from notifier.domain.backoff import SOON, deferral_wait
from notifier.domain.client import Client
from notifier.domain.defaults import PREFETCH
from notifier.domain.delivery import Delivery
from notifier.domain.message import Lane
from notifier.domain.outcome import Failed, Reason
from notifier.domain.verdict import Dead, Defer, Done, before_attempt, decide, postponed, record, within_age
from notifier.pipeline.admission import Admission, Go, Later, Wait
from notifier.pipeline.client_standing import CircuitChange, Mark
from notifier.pipeline.selection import LOOKED_AT, LaneOrder
from notifier.pipeline.window import Window

POST = 300e-6  # seconds of the CPU
PASS = 200e-6
CONFIRM = 2e-3  # seconds until the broker has confirmed what was written
TICK = 0.2

Behaviour = Callable[[float, random.Random], tuple[float, Mark]]
"""(the moment, chance) → (seconds until the attempt ends, what it says of the client)."""


def quick(_now: float, chance: random.Random) -> tuple[float, Mark]:
    """A healthy client: 3 to 7 ms."""
    return 0.003 + 0.004 * chance.random(), Mark.ALIVE


def black_hole(_now: float, _chance: random.Random) -> tuple[float, Mark]:
    """Nothing comes back until the deadline."""
    return 5.0, Mark.DOWN


def slow(_now: float, _chance: random.Random) -> tuple[float, Mark]:
    """It answers 200, but takes 4.5 s."""
    return 4.5, Mark.ALIVE


def between(since: float, until: float, then: Behaviour) -> Behaviour:
    """Healthy, but for a while."""
    return lambda now, chance: then(now, chance) if since <= now < until else quick(now, chance)


def flapping(period: float) -> Behaviour:
    """Healthy for a period, a black hole for the next."""
    return lambda now, chance: (quick, black_hole)[int(now / period) % 2](now, chance)


@dataclass(slots=True, eq=False)
class Parcel:
    """A delivery, and its message: `hops` are left of its delay, `due` its end."""

    client: Client
    born: float
    delivery: Delivery
    hops: tuple[int, ...] = ()
    due: float = 0.0
    passes: int = 0
    late_passes: int = 0  # of them, after `Simulation.mark_from`


@dataclass(slots=True, eq=False)
class Bundle:
    """A message: an event with a parcel a client, or one parcel that came back."""

    lane: Lane
    parcels: deque[Parcel]
    open: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A parcel that wants an attempt, and the message it came with."""

    bundle: Bundle
    parcel: Parcel


@dataclass(slots=True)
class Tally:
    """What was seen. Latencies and arrivals by client."""

    latencies: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))  # (born, s)
    arrivals: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    attempts: Counter[str] = field(default_factory=Counter)
    deferrals: Counter[str] = field(default_factory=Counter)
    passes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    late_passes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    most_running: Counter[str] = field(default_factory=Counter)
    pass_seconds: float = 0.0
    circuit_changes: list[tuple[float, str, str]] = field(default_factory=list)
    dead: list[tuple[float, Delivery, Dead]] = field(default_factory=list)

    def percentile(self, names: Iterable[str], percent: int, since: float = 0.0) -> float:
        """Of the time from publishing to arrival, for what was published after `since`."""
        found = [late for name in names for born, late in self.latencies[name] if born >= since]
        return quantiles(found, n=100)[percent - 1]

    def last(self, names: Iterable[str]) -> float:
        """When the last of them arrived."""
        return max(self.arrivals[name][-1] for name in names)


class Simulation:
    """See the module. Fill it with `publish` and `stream`, then `run`."""

    def __init__(
        self,
        clients: Iterable[Client],
        behaviours: dict[str, Behaviour] | None = None,
        *,
        workers: int = 1,
        max_in_flight: int = 512,
        seed: int = 1,
        tick: float = TICK,
        asks_for: float | None = None,
    ) -> None:
        self.now = 0.0
        self.tick = tick
        self.asks_for = asks_for  # seconds of `Retry-After` in every answer that fails
        self.chance = random.Random(seed)
        self.clients = {client.client_id: client for client in clients}
        self.behaviours = behaviours or {}
        self.tally = Tally()
        self.mark_from = float("inf")
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._numbers = itertools.count()
        self._queues: dict[Lane, deque[Bundle]] = {lane: deque() for lane in Lane}
        self.running: Counter[str] = Counter()
        self.left = 0  # deliveries without an end
        self.workers = [SimulatedWorker(self, workers, max_in_flight) for _ in range(workers)]
        self._next_worker = itertools.cycle(self.workers)

    # ── what happens ──

    def at(self, moment: float, what: Callable[..., None], *args: object) -> None:
        """Let it happen then."""
        heapq.heappush(self._heap, (moment, next(self._numbers), what, args))

    def publish(self, names: Iterable[str], lane: Lane = Lane.EVENTS) -> None:
        """An event for these clients, now."""
        parcels = deque(
            Parcel(client=self.clients[name], born=self.now, delivery=_delivery(name, next(self._numbers)))
            for name in names
        )
        self.left += len(parcels)
        self.put(Bundle(lane=lane, parcels=parcels))

    def stream(self, rate: float, until: float, pick: Callable[[random.Random], Iterable[str]]) -> None:
        """Events at random moments, `rate` a second on average."""
        chance = random.Random(7)

        def arrive() -> None:
            self.publish(pick(chance))
            if (then := self.now + chance.expovariate(rate)) < until:
                self.at(then, arrive)

        self.at(self.now + chance.expovariate(rate), arrive)

    def put(self, bundle: Bundle) -> None:
        """A message comes into its queue."""
        self._queues[bundle.lane].append(bundle)
        self.feed(bundle.lane)

    def feed(self, lane: Lane) -> None:
        """Hand out messages to the workers in turn, as far as their prefetch goes."""
        queue = self._queues[lane]
        refused = 0
        while queue and refused < len(self.workers):
            worker = next(self._next_worker)
            if worker.unacked[lane] >= PREFETCH[lane]:
                refused += 1
                continue
            refused = 0
            worker.take(queue.popleft())

    def delay(self, parcel: Parcel, first: int) -> None:
        """It went into the delay queue of so many seconds."""
        self.at(self.now + first, self.put, Bundle(lane=Lane.RETRIES, parcels=deque((parcel,))))

    def run(self, until: float, *, drained: bool = False) -> Tally:
        """Up to that moment; with `drained`, no longer than there is anything to deliver."""
        for worker in self.workers:
            if not worker.ticking:
                worker.tick()
        while self._heap and self._heap[0][0] <= until and not (drained and not self.left):
            self.now, _, what, args = heapq.heappop(self._heap)
            what(*args)
        if not drained:
            self.now = until
        return self.tally


class SimulatedWorker:
    """One worker: what `Worker`, `Intake` and `Settlement` do, in simulated time."""

    def __init__(self, simulation: Simulation, workers: int, max_in_flight: int) -> None:
        self._sim = simulation
        self.window = Window(max_in_flight)
        self.admission: Admission[Ticket] = Admission(
            self.window, slot_wait=1.0, workers=lambda: workers, circuit_changed=self._circuit_changed
        )
        self._order = LaneOrder()
        self.held = dict.fromkeys(Lane, 0)
        self.unacked = dict.fromkeys(Lane, 0)
        self._shelves: dict[Lane, deque[Bundle]] = {lane: deque() for lane in Lane}
        self._free_at = 0.0  # the CPU
        self._making_room = False
        self.ticking = False

    def take(self, bundle: Bundle) -> None:
        """A message came."""
        self.unacked[bundle.lane] += 1
        self._shelves[bundle.lane].append(bundle)
        self._pump()

    def _circuit_changed(self, client: Client, change: CircuitChange) -> None:
        self._sim.tally.circuit_changes.append((self._sim.now, client.client_id, change.value))

    def _work(self, seconds: float, what: Callable[..., None], *args: object) -> None:
        """One thing after another on the one CPU."""
        self._free_at = max(self._free_at, self._sim.now) + seconds
        if seconds == PASS:
            self._sim.tally.pass_seconds += seconds
        self._sim.at(self._free_at, what, *args)

    def tick(self) -> None:
        """As the worker does a few times a second."""
        self.ticking = True
        for ticket, later in self.admission.put_off(self._sim.now):
            self._put_off(ticket, later)
        for following in self.admission.hand_out(self._sim.now):
            self._start(following)
        self._pump()
        self._sim.at(self._sim.now + self._sim.tick, self.tick)

    def _pump(self) -> None:
        waiting = [lane for lane, shelf in self._shelves.items() if shelf]
        while waiting:
            lane = self._order.next(waiting, self._has_room)
            if lane is None:
                self._make_room(waiting)
                return
            if not self._step_aside(lane):
                waiting.remove(lane)
                continue
            bundle = self._shelves[lane][0]
            parcel = bundle.parcels.popleft()
            if not bundle.parcels:
                self._shelves[lane].popleft()
            bundle.open += 1
            self.held[lane] += 1
            self._ask(Ticket(bundle, parcel))
            waiting = [lane for lane, shelf in self._shelves.items() if shelf]

    def _has_room(self, lane: Lane) -> bool:
        return self.window.has_slot(lane) and self.window.has_memory(lane, self.held)

    def _step_aside(self, lane: Lane) -> bool:
        """Bring forward a message that need not wait; whether there is one, among the first."""
        shelf = self._shelves[lane]
        for _ in range(min(LOOKED_AT, len(shelf))):
            if not self.admission.crowded(shelf[0].parcels[0].client.key, lane):
                return True
            shelf.rotate(-1)
        return False

    def _make_room(self, waiting: list[Lane]) -> None:
        """Memory is full: whoever waits most gives way to another client."""
        lane = waiting[0]
        if self._making_room or not self.window.has_slot(lane) or self.window.has_memory(lane, self.held):
            return
        given = self.admission.give_way(self._shelves[waiting[0]][0].parcels[0].client.key, self._sim.now)
        if given is not None:
            self._making_room = True
            self._put_off(*given)

    def _ask(self, ticket: Ticket) -> None:
        parcel, now = ticket.parcel, self._sim.now
        if ticket.bundle.lane is Lane.RETRIES:
            parcel.passes += 1
            parcel.late_passes += now >= self._sim.mark_from
        if parcel.hops and parcel.due - now >= SOON:
            self._work(PASS, self._delay, ticket, parcel.hops)
            return
        verdict = before_attempt(
            parcel.delivery, parcel.client, issuer_known=True, grace=0.0, carries_sid=True, now=now
        )
        if isinstance(verdict, Dead):
            self._work(PASS, self._bury, ticket, verdict)
            return
        match self.admission.ask(parcel.client, ticket.bundle.lane, ticket, now, parcel.delivery.reserved_until):
            case Go():
                self._start(ticket)
            case Wait():
                pass
            case Later() as later:
                self._put_off(ticket, later)

    def _bury(self, ticket: Ticket, verdict: Dead) -> None:
        self._sim.tally.dead.append((self._sim.now, ticket.parcel.delivery, verdict))
        self._sim.left -= 1
        self._fate(ticket.bundle)

    def _start(self, ticket: Ticket) -> None:
        name = ticket.parcel.client.client_id
        self._sim.running[name] += 1
        self._sim.tally.most_running[name] = max(self._sim.tally.most_running[name], self._sim.running[name])
        self._work(POST, self._posted, ticket)

    def _posted(self, ticket: Ticket) -> None:
        parcel, now, tally = ticket.parcel, self._sim.now, self._sim.tally
        name = parcel.client.client_id
        seconds, mark = self._sim.behaviours.get(name, quick)(now, self._sim.chance)
        tally.attempts[name] += 1
        if mark is Mark.ALIVE:
            tally.latencies[name].append((parcel.born, now - parcel.born))
            tally.arrivals[name].append(now)
            tally.passes[name].append(parcel.passes)
            tally.late_passes[name].append(parcel.late_passes)
        self._sim.at(now + seconds, self._answered, ticket, mark, seconds)

    def _answered(self, ticket: Ticket, mark: Mark, seconds: float) -> None:
        parcel, now = ticket.parcel, self._sim.now
        self._sim.running[parcel.client.client_id] -= 1
        if mark is not Mark.ALIVE and self._sim.asks_for is not None:
            self.admission.pause(parcel.client, now + self._sim.asks_for)
        begun = self.admission.ended(parcel.client, ticket, mark, now)
        if mark is Mark.ALIVE:
            self._sim.left -= 1
            self._fate(ticket.bundle)
        else:
            self._failed(ticket, seconds)
        for following in begun:
            self._start(following)
        self._pump()

    def _failed(self, ticket: Ticket, seconds: float) -> None:
        parcel, now = ticket.parcel, self._sim.now
        outcome = Failed(reason=Reason.SERVER_ERROR, retry_after=self._sim.asks_for)
        parcel.delivery = record(parcel.delivery, outcome, now - seconds)
        verdict = decide(
            outcome, parcel.delivery, parcel.client.retry, carries_sid=True, now=now, jitter=self._sim.chance.random
        )
        if isinstance(verdict, Dead):
            self._work(PASS, self._bury, ticket, verdict)
            return
        assert not isinstance(verdict, Done)
        parcel.due = verdict.due
        self._work(PASS, self._delay, ticket, hops(verdict.due - now, verdict.rounding))

    def _put_off(self, ticket: Ticket, later: Later) -> None:
        parcel, now = ticket.parcel, self._sim.now
        defer = Defer(due=later.due, cause=later.cause, rounding=later.rounding)
        defer = within_age(defer, parcel.delivery, parcel.client, carries_sid=True, now=now)
        parcel.delivery = postponed(parcel.delivery, defer, parcel.client, now)
        self._sim.tally.deferrals[parcel.client.client_id] += 1
        self._work(PASS, self._delay, ticket, (deferral_wait(defer.due - now, defer.rounding),))

    def _delay(self, ticket: Ticket, path: tuple[int, ...]) -> None:
        first, *rest = path
        ticket.parcel.hops = tuple(rest)
        self._sim.at(self._sim.now + CONFIRM, self._confirmed, ticket, first)

    def _confirmed(self, ticket: Ticket, first: int) -> None:
        self._sim.delay(ticket.parcel, first)
        self._fate(ticket.bundle)

    def _fate(self, bundle: Bundle) -> None:
        bundle.open -= 1
        self._making_room = False
        self.held[bundle.lane] -= 1
        if not bundle.open and not bundle.parcels:
            self.unacked[bundle.lane] -= 1
            self._sim.feed(bundle.lane)
        self._pump()


def _delivery(name: str, number: int) -> Delivery:
    known = str(number)
    return Delivery(
        id=known, event_id=known, id_given=True, iss="https://id.example", client_id=name, sub="alice", sid=known
    )


def client(name: str, **more: object) -> Client:
    """A registered client of that name."""
    return Client(iss="https://id.example", client_id=name, backchannel_logout_uri="https://c.example/", **more)  # type: ignore[arg-type]


def names(count: int) -> list[str]:
    """c0, c1, …"""
    return [f"c{number}" for number in range(count)]


def some(among: list[str], count: int) -> Callable[[random.Random], Iterator[str]]:
    """So many of them, drawn anew for every event."""
    return lambda chance: iter(chance.sample(among, count))

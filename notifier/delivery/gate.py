"""Decides whether a delivery may go now, and if not, where it waits.

The worker and its selection ask the gate and nobody else. It keeps one client from hurting another:

- A client that is up may take as many slots as stay free, up to its limit. So one client alone takes half of the slots,
  the next a quarter, and a newcomer always finds one.
- Attempts at slow and silent clients, and tries of those that are down, have slots of their own (see `slots`).
- A delivery waits in memory only if its turn is expected within `SLOT_WAIT`, or within less as memory fills.

A delivery that may neither go nor wait in memory waits in a queue (see `waits`). A worker that sees a client answer
goes through the client's bucket, if anything may be in it (`wishes`, see `pulls`). A worker that sees a client go down,
fail its try or recover tells the other workers (`heard`). `known_clients` keeps what is known of the clients.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from notifier.delivery.circuit import MAX_OPEN_SECONDS, MIN_OPEN_SECONDS, Change, State
from notifier.delivery.facts import ClientServed
from notifier.delivery.known_client import SLOW, News, Side
from notifier.delivery.known_clients import KnownClients
from notifier.delivery.ports import Peers, Tools
from notifier.delivery.slots import Slots, most_of_lane
from notifier.delivery.ticket import Deferral, Known, StartNow, Ticket, Wait
from notifier.delivery.verdict import AttemptResult, Defer, Done, RetryAt
from notifier.delivery.waits import Waits
from notifier.model.backoff import deferral_wait
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import PREFETCH, SLOT_WAIT
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.message import Lane
from notifier.model.outcome import Signal

LEAST_WAIT = 0.1  # the share of `SLOT_WAIT` that is left of it if memory is full
CROWDED = 0.5  # of memory in use: nothing is fetched
OFF = 16  # deliveries put out of memory at a time: more would hold up the others
FRESH = 4.0  # seconds after which a fresh delivery may try a client that is down; a second a worker if that is more
PROBE_FAILURES = 4  # of a delivery as a probe, after which another delivery is the probe
ROTATIONS = PREFETCH[Lane.RETRIES] // 8  # at a time: each holds a message, and clients that are up have retries too
OVERDUE = 60.0  # seconds after its rest that a traveller may be late: it waits behind others, or at another worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a client stands at this worker. `busy`: a delivery of it runs, waits for a slot or is being fetched.

    It `rests` until `next_try`, and is not called before `paused_until`. Moments are in epoch seconds.
    """

    busy: bool = False
    rests: bool = False
    next_try: float | None = None
    paused_until: float | None = None


class Gate:
    """Says whether one more delivery may run. `in_memory` counts the deliveries in memory, by lane.

    `begun` is the share of the prefetch of events that is begun and not acked.
    """

    def __init__(
        self,
        tools: Tools,
        in_memory: Mapping[Lane, int],
        *,
        max_in_flight: int,
        begun: Callable[[], float],
        peers: Peers,
    ) -> None:
        self._tools = tools
        self._in_memory = in_memory
        self._begun = begun
        self._most = 2 * max_in_flight
        self._most_of_lane = most_of_lane(self._most)
        self._slots = Slots(max_in_flight)
        self.clients = KnownClients(tools, self._slots, peers)
        self._waits = Waits(tools, self.clients, self._slots)
        self._busy: dict[ClientKey, Known] = {}  # those with deliveries in memory
        self._ready: dict[Side, OrderedDict[ClientKey, Known]] = {side: OrderedDict() for side in Side}
        self.wishes: dict[ClientKey, None] = {}  # clients whose buckets are to be gone through, in this order
        self.waiting = 0  # deliveries that wait in memory for their client
        self._rotations = 0  # clients whose next probe is being fetched

    # ── room ──

    def has_room(self, lane: Lane) -> bool:
        """True if another delivery of the lane may be begun."""
        return self._slots.has_slot(lane) and self._has_memory(lane)

    def lacks_memory(self, lane: Lane) -> bool:
        """True if a slot is free for the lane, and only memory keeps it from another delivery."""
        return self._slots.has_slot(lane) and not self._has_memory(lane)

    def _has_memory(self, lane: Lane) -> bool:
        hanging, in_memory = self._slots.hanging, self._in_memory
        return in_memory[lane] - hanging < self._most_of_lane and sum(in_memory.values()) - hanging < self._most

    def _fill(self) -> float:
        """Return how full memory is, or the prefetch of events, whatever is fuller."""
        return max((sum(self._in_memory.values()) - self._slots.hanging) / self._most, self._begun())

    @property
    def crowded(self) -> bool:
        """True if nothing is to be fetched from buckets now."""
        return self._fill() > CROWDED

    # ── what a client bears ──

    def _may_start(self, known: Known, delivery: Delivery, lane: Lane, now: float) -> bool:
        running, state = len(known.running), known.circuit.state
        if running >= (known.cap if state is State.CLOSED else 1) or now < known.paused_until or known.tokens(now) < 1:
            return False
        if state is State.OPEN:
            return self._may_try(known, delivery, now) and self._slots.free(known, lane) > 0
        return running < self._slots.free(known, lane)

    def _may_try(self, known: Known, delivery: Delivery, now: float) -> bool:
        """Return True if its rest is over for this delivery: for a traveller first, or it would come in vain.

        A fresh one may try a little earlier, while many slots are free.
        """
        if delivery.leash is not None:
            return now >= known.circuit.next_try
        due = known.circuit.next_try + MIN_OPEN_SECONDS
        if delivery.first_taken_at is None and self._slots.many_probes_free:
            due = min(due, known.ended + max(FRESH, MIN_OPEN_SECONDS * self.clients.workers))
        return now >= max(due, known.ended + MIN_OPEN_SECONDS)

    def _patience(self) -> float:
        """Return for how many seconds a delivery may wait in memory."""
        return SLOT_WAIT * max(LEAST_WAIT, 1 - self._fill())

    def _may_wait(self, known: Known, delivery: Delivery, now: float, *, pulled: bool) -> bool:
        match known.state_at(now):
            case State.OPEN | State.PAUSED:
                return False
            case State.UNTRIED if (
                not known.running and known.tokens(now + self._patience()) >= 1
            ):  # one, for its first try
                return not known.waiting and self._fill() < CROWDED
            case State.UNTRIED if pulled:  # its first try says soon whether it bears more
                return False
            case State.UNTRIED | State.CLOSED:
                patience = self._patience()
                turn = delivery.turn
                if pulled or (turn is not None and turn - self.clients.ahead() <= now + patience):
                    patience *= 2
                return (known.waiting + 1) * self._waits.pace(known, now) <= patience

    # ── asking ──

    def ask(
        self, delivery: Delivery, client: Client, lane: Lane, *, pulled: bool = False
    ) -> StartNow | Wait | Deferral:
        """Return whether the delivery starts, waits in memory, or is deferred. The answer contains it as changed."""
        now = self._tools.steady()
        known = self.clients.know(client, now)
        charged_at = delivery.charged_at
        if charged_at is not None and known.circuit.has_been_open_at(charged_at - self.clients.ahead()):
            delivery = replace(delivery, backoffs=max(0, delivery.backoffs - 1), charged_at=None)
        if delivery.leash is not None:
            known.on_parked()  # by others, while it was on its way
        if delivery.asked_until is not None:
            asked_until = delivery.asked_until - self.clients.ahead()
            known.recall_pause(min(asked_until, now + client.retry.max_delay))
        if not known.waiting and self._may_start(known, delivery, lane, now):
            start = StartNow(delivery=delivery, client=client, lane=lane, pulled=pulled)
            self._begin(known, start, lane, now)
            return start
        if self._may_wait(known, delivery, now, pulled=pulled):
            wait = Wait(delivery=delivery, client=client, lane=lane, pulled=pulled)
            known.push(lane, wait, pulled=pulled)
            self.waiting += 1
            self._busy[known.key] = self._ready[known.side][known.key] = known
            return wait
        return self._waits.put(known, delivery, client, now, pulled=pulled)

    def _begin(self, known: Known, ticket: Ticket, lane: Lane, now: float) -> None:
        side = Side.PROBE if known.circuit.state is State.OPEN else known.side
        known.on_started(id(ticket), lane, side, now)
        self._busy[known.key] = known
        self._slots.count(known, lane, side, +1)

    def ended(self, ticket: Ticket, result: AttemptResult) -> list[Ticket]:
        """Note how an attempt ended. Returns those that waited for its slot and begin now."""
        now, known = self._tools.steady(), self.clients[ticket.client.key]
        if result.pause is not None:
            known.on_pause(now + result.pause)
        began, lane, side = known.on_ended(id(ticket))
        self._slots.count(known, lane, side, -1)
        was_up, was_limited = known.circuit.state is State.CLOSED, known.rate.spacing
        repeat = ticket.delivery.attempts > 0
        least = 0.0 if result.signal is Signal.RESPONSIVE else self.clients.least_rest(known)
        change = known.on_result(result.signal, now - began, now, repeat=repeat, least=least)
        if not was_up or known.circuit.state is not State.CLOSED:
            self._turn(known, change, was_up=was_up)
        if change is Change.OPENED:
            ticket.on_circuit_opened()
        paced = known.rate.spacing not in (0.0, was_limited)
        if change is not None or paced:
            self.clients.tell(known, now, paced=paced)
        self._slots.place(known, now)
        if known.waiting:
            self._ready[known.side][known.key] = known
        elif not known.running:
            self._busy.pop(known.key, None)
        return self.hand_out() if any(self._ready.values()) else []

    def _turn(self, known: Known, change: Change | None, *, was_up: bool) -> None:
        self.clients.turn(known, change, was_up=was_up)
        if change is Change.RECOVERED and known.parked and known.pulling:
            self.wishes[known.key] = None  # a pass that began before sees nothing of what was parked since

    def hand_out(self) -> list[Ticket]:
        """Give free slots to those that wait, client after client."""
        now, begun = self._tools.steady(), list[Ticket]()
        for side, ready in self._ready.items():
            looks = min(len(ready), 8)
            while looks and self._slots.any_free(side):
                looks -= 1
                key, known = ready.popitem(last=False)
                if known.side is not side:
                    self._ready[known.side][key] = known
                    continue
                while known.waiting and self._may_start(known, known.first.delivery, known.first.lane, now):
                    begun.append(ticket := self._pop(known))
                    self._begin(known, ticket, ticket.lane, now)
                if known.waiting and len(known.running) < known.cap:
                    ready[key] = known
        return begun

    def _pop(self, known: Known, *, newest: bool = False) -> Ticket:
        """Take one of the deliveries that wait in memory."""
        ticket = known.pop(newest=newest)
        self.waiting -= 1
        return ticket

    # ── rotation of probes ──

    def rotation_seconds(self, ticket: Ticket, result: AttemptResult) -> float:
        """Return for how long `after_failure` waits for another probe: 0 unless this one failed for the fourth time.

        The probe's message stays unacked until the next probe is durable (`probe_sent`), so that one is always out.
        While many clients rotate, this one keeps its probe: the retries of clients that are up need the prefetch.
        """
        known, now = self.clients[ticket.client.key], self._tools.steady()
        if (
            not isinstance(result.verdict, RetryAt)
            or result.delivery.attempts % PROBE_FAILURES
            or not known.parked
            or known.replaced is not None
            or known.state_at(now) not in (State.OPEN, State.PAUSED)
            or self._waits.leaving
        ):
            return 0.0
        ticket.on_rotation(rotated=known.covered(now) and not self._waits.is_only_probe(known, ticket.delivery))
        if ticket.rotated or self._rotations == ROTATIONS:
            return 0.0
        known.on_rotation(ticket)
        self._rotations += 1
        self.wishes[known.key] = None
        return min(MAX_OPEN_SECONDS, max(known.circuit.next_try, known.paused_until) - now)

    def probe_sent(self, key: ClientKey) -> None:
        """Note that a probe of the client is durable in a delay queue."""
        if (known := self.clients.get(key)) is not None and known.replaced is not None:
            known.replaced.on_rotation(rotated=True)
            self._end_rotation(known)

    def _end_rotation(self, known: Known) -> None:
        ticket = known.end_rotation()
        self._rotations -= ticket is not None
        if ticket is not None:
            ticket.call_up()

    # ── where it waits ──

    def after_failure(self, ticket: Ticket, result: AttemptResult) -> AttemptResult:
        """Return the judgement with where and how long the delivery waits. Call it after `ended`, whatever the outcome.

        A failure of a client that is down, or asked for a pause, is not charged to the delivery's own backoff. Of one
        that is up it is, if another delivery had more luck since the last charge.
        """
        known = self.clients[ticket.client.key]
        if isinstance(result.verdict, Done) and not known.parked:
            return result  # nearly always
        now = self._tools.steady()
        if known.replaced is ticket:
            self._end_rotation(known)
        after = self._waits.after_failure(known, ticket, result, now)
        if isinstance(after.verdict, Defer) and ticket.delivery.leash is not None:  # a fault of ours keeps it
            known.on_probe_sent(now + deferral_wait(after.verdict.due - self._tools.clock()))
        self._look_after(known, now)
        return after

    # ── those that can wait no longer ──

    def put_off(self) -> Iterator[tuple[Ticket, Deferral]]:
        """Return some of the deliveries that can wait in memory no longer. Is called many times a second."""
        now = self._tools.steady()
        for known in list(self._busy.values()):
            self._slots.place(known, now)
            if known.waiting:
                self._ready[known.side][known.key] = known
        self.clients.forget(now, busy=len(self._busy))
        return self._put_out(now, OFF, 2 * self._patience())

    def give_way(self) -> Iterator[tuple[Ticket, Deferral]]:
        """Return the newest of the deliveries that would wait longest: memory is full."""
        return self._put_out(self._tools.steady(), 2 * OFF, LEAST_WAIT * SLOT_WAIT)

    def _put_out(self, now: float, most: int, patience: float) -> Iterator[tuple[Ticket, Deferral]]:
        for key, known in list(self._busy.items()):
            stopped = known.state_at(now) in (State.OPEN, State.PAUSED)
            stays = (
                known.circuit.state is State.UNTRIED
                and not known.running
                and not stopped
                and known.tokens(now + patience) >= 1
            )
            while (
                most and known.waiting > stays and (stopped or known.waiting * self._waits.pace(known, now) > patience)
            ):
                most -= 1
                ticket = self._pop(known, newest=True)
                yield ticket, self._waits.put(known, ticket.delivery, ticket.client, now, pulled=ticket.pulled)
            if not known.waiting:
                self._ready[known.side].pop(key, None)
                if not known.running:
                    self._busy.pop(key, None)

    def leave(self) -> None:
        """Park nothing any more, and tell the other workers what is parked: this worker stops."""
        self._waits.leaving, now = True, self._tools.steady()
        for known in self.clients:
            known.on_pass(pulling=False)
            self._end_rotation(known)
            self._look_after(known, now)

    def abandon(self) -> None:
        """Forget all deliveries that wait: a drain gives them back to the queue."""
        for known in self._busy.values():
            while known.waiting:
                self._pop(known)
        for ready in self._ready.values():
            ready.clear()

    # ── what is parked ──

    def _look_after(self, known: Known, now: float) -> None:
        """See to it that somebody looks at what is parked for the client: this worker, or a traveller on its way."""
        if not known.parked or known.pulling:
            return
        tried = bool(known.running or known.waiting) or known.covered(now)
        if known.state_at(now) is not State.CLOSED and tried:
            return
        if self._waits.leaving:
            self.clients.tell(known, now, paced=False)
        else:
            self.wishes[known.key] = None

    def look_after_overdue(self) -> None:
        """Look after the clients whose traveller should have come long ago: an operator may have taken it away."""
        now = self._tools.steady()
        for known in self.clients:
            if known.parked and now > max(known.circuit.next_try, known.covered_until, known.paused_until) + OVERDUE:
                self._look_after(known, now)

    def wanted(self, key: ClientKey) -> int | None:
        """Return how many parked deliveries the client bears now; None if it needs none."""
        known, now = self.clients.get(key), self._tools.steady()
        if known is None:
            return 1
        state = known.state_at(now)
        if state is State.CLOSED:
            running, free = len(known.running), self._slots.free(known, Lane.RETRIES)
            bears = min(known.cap - running, (free - running + 1) // 2, known.tokens(now)) - known.waiting
            # Where those that come fill its pace, one waits among them at a time.
            among = known.waiting > 0 and not known.fetched
            return max(
                0, bears, int(among and (known.waiting + 1) * self._waits.pace(known, now) <= 2 * self._patience())
            )
        if known.running:
            return 0
        return 1 if state is State.UNTRIED or not known.covered(now) else None

    def parked(self, key: ClientKey) -> None:
        """Note that a delivery is durable in the client's bucket."""
        known = self.clients.get(key)
        if known is None or (known.pulling and known.up):
            self.wishes[key] = None  # it may have come too late for this pass, or for all that was known of the client
        if known is not None:
            known.on_parked()
            self._look_after(known, self._tools.steady())

    def pulls(self, key: ClientKey, *, pulling: bool, empty: bool = False) -> None:
        """Note whether a pass goes through the client's bucket. `empty`: nothing of the client is left in it."""
        known, now = self.clients.get(key), self._tools.steady()
        if known is None:
            return
        known.on_pass(pulling=pulling)
        if not pulling and not known.covered(now):
            self._end_rotation(known)  # nothing of the client is in the bucket
        if not empty or known.state_at(now) is not State.CLOSED or key in self.wishes:
            return
        if (seconds := known.on_bucket_empty(now)) is not None:
            iss, client_id = key
            self._tools.observe(ClientServed(iss=iss, client_id=client_id, seconds=seconds))

    def traveller_ended(self, key: ClientKey) -> None:
        """Note that the client's traveller came to its end without an attempt: another one is needed."""
        if (known := self.clients.get(key)) is not None:
            known.on_probe_lost()
        self.wishes[key] = None

    # ── other workers ──

    def heard(self, news: News) -> None:
        """Act as if this worker had seen what another one saw."""
        known, now = self.clients.get(news.key), self._tools.steady()
        if known is None:
            if news.up and news.parked:
                self.wishes[news.key] = None  # by a worker that stops, perhaps
            return
        was_up = known.up
        change = known.on_peer_report(news, now)
        self._turn(known, change, was_up=was_up)
        if not self._waits.leaving:  # it would tell the others what they hear themselves
            self._look_after(known, now)

    # ── for operators ──

    def try_now(self, key: ClientKey, *, force: bool) -> None:
        """Have the client tried at once, if something is parked for it. A pause stands, unless `force`."""
        now = self._tools.steady()
        known = self.clients.add(key, now)
        if known.on_operator_probe(now, force=force):
            self._look_after(known, now)

    def held_up(self, key: ClientKey) -> bool:
        """Return True if the client rests or pauses, or something may be parked for it."""
        known = self.clients.get(key)
        return known is not None and (not known.up or known.parked or self._tools.steady() < known.paused_until)

    def standing(self, key: ClientKey) -> Standing:
        """Return how the client stands."""
        known, now = self.clients.get(key), self._tools.steady()
        if known is None:
            return Standing()
        ahead, wait = self.clients.ahead(), max(0.0, known.circuit.next_try - now, known.paused_until - now)
        return Standing(
            busy=bool(not known.idle or key in self.wishes),
            rests=known.down and not known.running,
            next_try=now + wait + ahead if known.down else None,
            paused_until=known.paused_until + ahead if now < known.paused_until else None,
        )

    def silent(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, seconds without an answer) for each client that is not down and hangs."""
        now = self._tools.steady()
        for key, known in self._busy.items():
            if not known.down and (seconds := known.silence(now)) > SLOW:
                yield *key, seconds

    def lines(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return ((*key, known.waiting) for key, known in self._busy.items() if known.waiting)

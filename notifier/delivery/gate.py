"""Decides whether a delivery starts now or waits in memory, and starts the ones in memory as slots become free.

It protects clients from each other:

- A client with a closed circuit may take as many slots as stay free, up to its limit. So one client alone takes half of
  the slots, the next a quarter, and another client always finds one.
- Attempts at slow and silent clients, and probes, use separate slots (`known_clients.py`).
- A delivery waits in memory only if its turn is expected within `SLOT_WAIT`, or within less as memory fills.

A delivery that may neither start nor wait in memory waits in a queue (`waits.py`). If a delivery may be parked for a
client that succeeds, its bucket needs a pass (`bucket_requests.py`). A worker reports a client to the others when the
circuit opens, a probe fails, or the client recovers (`heard`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from notifier.delivery.admission import Deferral, StartNow, Ticket, Wait
from notifier.delivery.bucket_requests import BucketRequests
from notifier.delivery.circuit import MIN_OPEN_SECONDS, Change, State
from notifier.delivery.known_client import SLOW, KnownClient, Side
from notifier.delivery.known_clients import CROWDED, LEAST_WAIT, KnownClients, Slots
from notifier.delivery.ports import News, Peers, Tools
from notifier.delivery.verdict import AttemptResult, Defer, Done
from notifier.delivery.waits import Waits
from notifier.model.backoff import deferral_wait
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import SLOT_WAIT
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.message import Lane
from notifier.model.outcome import Signal

OFF = 16  # deliveries deferred out of memory at a time: more would delay the others
FRESH = 4.0  # seconds after which a fresh delivery may be the probe; a second a worker if that is more


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A parked delivery is to replace this probe, which waits for that, unacked, for at most half of `seconds`."""

    result: AttemptResult
    seconds: float


class Gate:
    """Starts the deliveries of one worker. `in_memory` counts the deliveries in memory, by lane.

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
        self.slots = Slots(max_in_flight, in_memory, begun)
        self.clients = KnownClients(tools, self.slots, peers)
        self._waits = Waits(tools, self.clients, self.slots)
        self.buckets = BucketRequests(tools, self.clients, self.slots, self._waits)
        self._busy: dict[ClientKey, KnownClient] = {}  # clients with deliveries in memory
        self._ready: dict[Side, OrderedDict[ClientKey, KnownClient]] = {side: OrderedDict() for side in Side}
        self.waiting = 0  # deliveries that wait in memory for their client

    # ── limits of one client ──

    def _may_start(self, known: KnownClient, delivery: Delivery, lane: Lane, now: float) -> bool:
        running, state = len(known.running), known.circuit.state
        most = known.concurrency if state is State.CLOSED else 1
        if running >= most or now < known.paused_until or known.tokens(now) < 1:
            return False
        if state is State.OPEN:
            return self._may_try(known, delivery, now) and self.slots.free(known, lane) > 0
        return running < self.slots.free(known, lane)

    def _may_try(self, known: KnownClient, delivery: Delivery, now: float) -> bool:
        """Return True if this delivery may be the probe now: the one sent as the probe first, or it would be useless.

        A fresh one may be the probe a little earlier, while many slots are free.
        """
        if delivery.leash is not None:
            return now >= known.circuit.next_try
        due = known.circuit.next_try + MIN_OPEN_SECONDS
        if delivery.first_taken_at is None and self.slots.many_probes_free:
            due = min(due, known.ended_at + max(FRESH, MIN_OPEN_SECONDS * self.clients.workers))
        return now >= max(due, known.ended_at + MIN_OPEN_SECONDS)

    def _may_wait(self, known: KnownClient, delivery: Delivery, now: float, *, pulled: bool) -> bool:
        if not known.is_available(now):
            return False
        match known.circuit.state:
            case State.UNTRIED if (
                not known.running and known.tokens(now + self.slots.patience()) >= 1
            ):  # one, for the first attempt
                return not known.waiting and self.slots.fill() < CROWDED
            case State.UNTRIED if pulled:  # the first attempt shows soon whether more may follow
                return False
            case _:
                patience = self.slots.patience()
                turn = delivery.turn
                if pulled or (turn is not None and turn - self.clients.ahead() <= now + patience):
                    patience *= 2
                return (known.waiting + 1) * self._waits.pace(known, now) <= patience

    # ── start, wait or defer ──

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
            known.push(wait)
            self.waiting += 1
            self._busy[known.key] = self._ready[known.side][known.key] = known
            return wait
        return self._waits.put(known, delivery, client, now, pulled=pulled)

    def _begin(self, known: KnownClient, ticket: Ticket, lane: Lane, now: float) -> None:
        side = Side.PROBE if known.circuit.state is State.OPEN else known.side
        known.on_started(id(ticket), lane, side, now)
        self._busy[known.key] = known
        self.slots.count(known, lane, side, +1)

    def on_ended(self, ticket: Ticket, result: AttemptResult) -> tuple[list[Ticket], AttemptResult | Rotation]:
        """Note the result of an attempt. Return the deliveries that start in its slot, and the result.

        The result includes the queue and delay of a retry. In place of it, a `Rotation` is passed to `on_rotated`.
        """
        now, known = self._tools.steady(), self.clients[ticket.client.key]
        if result.pause is not None:
            known.on_pause(now + result.pause)
        began, lane, side = known.on_ended(id(ticket))
        self.slots.count(known, lane, side, -1)
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
        self.slots.place(known, now)
        if known.waiting:
            self._ready[known.side][known.key] = known
        elif not known.running:
            self._busy.pop(known.key, None)
        following = self.hand_out() if any(self._ready.values()) else []
        if isinstance(result.verdict, Done) and not known.parked:
            return following, result  # nearly always
        if (seconds := self.buckets.rotate(known, ticket, result, now)) > 0:
            return following, Rotation(result=result, seconds=seconds)
        return following, self._with_queue(known, ticket, result, now)

    def on_rotated(self, ticket: Ticket, rotation: Rotation) -> AttemptResult:
        """Return the result of an attempt, after the wait for another probe."""
        return self._with_queue(self.clients[ticket.client.key], ticket, rotation.result, self._tools.steady())

    def _with_queue(self, known: KnownClient, ticket: Ticket, result: AttemptResult, now: float) -> AttemptResult:
        if known.replaced is ticket:
            self.buckets.end_rotation(known)
        after = self._waits.after_failure(known, ticket, result, now)
        if isinstance(after.verdict, Defer) and ticket.delivery.leash is not None:  # an internal fault: still the probe
            known.on_probe_sent(now + deferral_wait(after.verdict.due - self._tools.clock()))
        self.buckets.look_after(known, now)
        return after

    def _turn(self, known: KnownClient, change: Change | None, *, was_up: bool) -> None:
        self.clients.turn(known, change, was_up=was_up)
        if change is Change.RECOVERED and known.parked and known.pulling:
            self.buckets.requested[known.key] = None  # a pass that began before sees nothing of what was parked since

    def hand_out(self) -> list[Ticket]:
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
                while known.waiting and self._may_start(known, known.first.delivery, known.first.lane, now):
                    begun.append(ticket := self._pop(known))
                    self._begin(known, ticket, ticket.lane, now)
                if known.waiting and len(known.running) < known.concurrency:
                    ready[key] = known
        return begun

    def _pop(self, known: KnownClient, *, newest: bool = False) -> Ticket:
        """Remove and return one of the deliveries in memory."""
        ticket = known.pop(newest=newest)
        self.waiting -= 1
        return ticket

    # ── deferrals from memory ──

    def put_off(self) -> Iterator[tuple[Ticket, Deferral]]:
        """Defer some of the deliveries that can wait in memory no longer, and return them. Called 20 times a second."""
        now = self._tools.steady()
        for known in list(self._busy.values()):
            self.slots.place(known, now)
            if known.waiting:
                self._ready[known.side][known.key] = known
        self.clients.forget(now, busy=len(self._busy))
        return self._put_out(now, OFF, 2 * self.slots.patience())

    def give_way(self) -> Iterator[tuple[Ticket, Deferral]]:
        """Defer the newest of the deliveries that would wait longest, and return them: memory is full."""
        return self._put_out(self._tools.steady(), 2 * OFF, LEAST_WAIT * SLOT_WAIT)

    def _put_out(self, now: float, most: int, patience: float) -> Iterator[tuple[Ticket, Deferral]]:
        for key, known in list(self._busy.items()):
            stopped = not known.is_available(now)
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

    def abandon(self) -> None:
        """Forget all deliveries that wait: a drain gives them back to the queue."""
        for known in self._busy.values():
            while known.waiting:
                self._pop(known)
        for ready in self._ready.values():
            ready.clear()

    # ── other workers ──

    def heard(self, news: News) -> None:
        """Apply the report of another worker."""
        known, now = self.clients.get(news.key), self._tools.steady()
        if known is None:
            if news.up and news.parked:
                self.buckets.requested[news.key] = None  # by a worker that stops, perhaps
            return
        was_up = known.up
        change = known.on_peer_report(news, now)
        self._turn(known, change, was_up=was_up)
        if not self._waits.leaving:  # it would report what the others receive themselves
            self.buckets.look_after(known, now)

    def silent(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, seconds without an answer) for each client that is not down and hangs."""
        now = self._tools.steady()
        for key, known in self._busy.items():
            if not known.down and (seconds := known.silence(now)) > SLOW:
                yield *key, seconds

    def lines(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return ((*key, known.waiting) for key, known in self._busy.items() if known.waiting)

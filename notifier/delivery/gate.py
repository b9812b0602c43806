"""Starts deliveries, and those that wait in memory as slots become free. `KnownClient.offer` decides for one client.

The gate protects clients from each other:

- A client with a closed circuit may take as many slots as stay free, up to its limit. So one client alone takes half of
  the slots, the next a quarter, and another client always finds one.
- Attempts at slow and silent clients, and probes, use separate slots (`known_clients.py`).
- A delivery waits in memory only if its turn is expected within `SLOT_WAIT`, or within less as memory fills.

A delivery that may neither start nor wait in memory waits in a queue (`pending.py`). If a delivery may be parked for a
client that succeeds, its bucket needs a pass (`bucket_requests.py`). A worker reports a client to the others when the
circuit opens, a probe fails, or the client recovers (`heard`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from notifier.delivery.admission import Deferral, Side, StartNow, Ticket, Wait
from notifier.delivery.bucket_requests import BucketRequests
from notifier.delivery.circuit import Change, State
from notifier.delivery.known_client import SLOW, KnownClient
from notifier.delivery.known_clients import LEAST_WAIT, KnownClients, Slots
from notifier.delivery.ports import News, Peers, Tools
from notifier.delivery.verdict import AttemptResult, Defer, Done
from notifier.delivery.waits import Waits
from notifier.model.backoff import deferral_wait
from notifier.model.client import Client, ClientKey
from notifier.model.defaults import SLOT_WAIT
from notifier.model.delivery import Delivery
from notifier.model.message import Lane
from notifier.model.outcome import Signal

OFF = 16  # deliveries deferred out of memory at a time: more would delay the others


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
        self.slots = Slots(tools, peers, max_in_flight, in_memory, begun)
        self.clients = KnownClients(tools, self.slots, peers)
        self._waits = Waits(tools, self.slots)
        self.buckets = BucketRequests(tools, self.clients, self.slots, self._waits)
        self._busy: dict[ClientKey, KnownClient] = {}  # clients with deliveries in memory
        self._ready: dict[Side, OrderedDict[ClientKey, KnownClient]] = {side: OrderedDict() for side in Side}
        self.waiting = 0  # deliveries that wait in memory for their client

    # ── start, wait or defer ──

    def ask(
        self, delivery: Delivery, client: Client, lane: Lane, *, pulled: bool = False
    ) -> StartNow | Wait | Deferral:
        """Return whether the delivery starts, waits in memory, or is deferred. The answer contains it as changed."""
        now = self._tools.steady()
        known = self.clients.know(client, now)
        answer = known.offer(delivery, client, lane, self.slots, now, pulled=pulled)
        if isinstance(answer, StartNow):
            self._begin(known, answer, lane, now)
            return answer
        if isinstance(answer, Wait):
            self.waiting += 1
            self._busy[known.key] = self._ready[known.side][known.key] = known
            return answer
        return self._waits.defer(known, *answer, client)

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
                while known.waiting and known.can_start(known.first.delivery, known.first.lane, self.slots, now):
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
            while most and known.must_defer(self.slots, now, patience):
                most -= 1
                ticket = self._pop(known, newest=True)
                later = known.defer(ticket.delivery, self.slots, now, pulled=ticket.pulled)
                yield ticket, self._waits.defer(known, ticket.delivery, later, ticket.client)
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

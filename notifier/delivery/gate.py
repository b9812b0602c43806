"""The one place that answers: may this delivery go now, and if not, where does it wait?

The worker and its selection ask here and nowhere else. This keeps one client from hurting another:

- A client that is up may take as many slots as others leave free, up to its limit. So one client alone takes half of
  what is free, the next a quarter, and a newcomer always finds a slot.
- Attempts at slow and silent clients, and tries of those that are down, have slots of their own (see `slots`).
- A delivery waits in memory only if its turn is expected within `slot_wait`, or within less as memory fills.

What may neither go nor wait in memory waits in a queue:

- For a client that is up, or that nobody has tried yet, in the *line*: its place and the client's pace say when its
  turn is. Until then it waits in the delay queues, but at once for no longer than it has waited already, or a second.
- For a client that is down or paused, as its *traveller*: it waits in a delay queue until the rest ends, and is the
  next try. Or, while a traveller that this worker sent itself cannot have come back yet, *parked* in the bucket.

So whoever parks has a traveller out, and whoever sees a client answer goes through its bucket, if something may be
there (`wishes`, see `pulls`). A worker that sees a client go down, fail its try or recover tells the others (`heard`).

The gate keeps two clocks apart. It counts by a steady clock, so that a wall clock that jumps takes no client for down
and lets nobody in. Messages bear the time of the wall clock, since other workers read them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from notifier.delivery.attempt import Judgement, Tools
from notifier.delivery.facts import ClientFailing, ClientRecovered, ClientServed
from notifier.delivery.known_client import (  # fmt: skip
    SHARE_OF_OUTAGE,
    SHORTEST,
    Change,
    Key,
    KnownClient,
    Mark,
    News,
    Side,
    State,
    whole_pass,
)
from notifier.delivery.ledger import HeldMessage
from notifier.delivery.ports import Peers
from notifier.delivery.slots import PROBES, Slots, most_of_lane
from notifier.delivery.verdict import Defer, Place, RetryAt, last_moment, retry, uncharged
from notifier.model.backoff import EARLY, LATE, SOON, Rounding, deferral_wait
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.frozen import replace
from notifier.model.message import Lane
from notifier.model.outcome import Cause

# Times that a message was given back for no known reason, from which on its delivery is attempted whatever its client
# does. It may be what kills the process, and to be put off would begin its count anew: it would never be buried.
INSIST = 2
SHORT_LIVED = 60.0  # seconds: a delivery that may wait no longer is not parked, or it would expire unseen
LEAST_WAIT = 0.1  # the share of `slot_wait` that is left of it if memory is full
CROWDED = 0.5  # of memory in use: nothing is fetched
OFF = 16  # deliveries put out of memory at a time: more would hold up the others
FRESH = 4.0  # seconds after which a fresh delivery may try a client that is down; a second a worker if that is more
LEAST_LINE, MOST_LINE = 1.0, 64.0  # seconds at once that a delivery waits in line, however young or old it is …
LONGEST_LINE = 1024.0  # … or, where a registered rate says when its turn is, until then, for so long at most
TIRED = 4  # attempts after which a traveller lets another delivery of its client take its place
BUSY_TRY = 2.0  # seconds that a traveller waits for the end of another try, or for a slot
OVERDUE = 60.0  # seconds after its rest that a traveller may be late: it waits behind others, or at another worker
KEPT = 1800.0  # seconds that a client not heard of is remembered
MOST_KNOWN = 20_000  # clients remembered that have nothing in memory
LOOKS = 64  # clients looked at, at a time, for one to be forgotten


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A delivery that wants an attempt, the message it came with, and its client as resolved for it.

    `pulled`: this worker took it out of its bucket, since its client can be called. `turn` is there if it waits in
    memory, and says at its end until when it is put off, or None: it goes. `last`: its failure took the client down.
    """

    held: HeldMessage
    delivery: Delivery
    client: Client
    pulled: bool = False
    turn: "asyncio.Future[Defer | None] | None" = None
    last: bool = False

    def call_up(self, later: "Defer | None" = None) -> None:
        """End its wait in memory."""
        assert self.turn is not None
        self.turn.set_result(later)


Known: TypeAlias = KnownClient[Ticket]


@dataclass(frozen=True, slots=True)
class Go:
    """Attempt it now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It waits in memory; `ended` or `hand_out` returns it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Put it off. `due`: the moment to come back, or the next try of its client if it is parked."""

    due: float
    cause: Cause
    place: Place
    rounding: Rounding = "down"
    turn: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a client stands at this worker. `busy`: something of it runs, waits for a slot or is fetched.

    `rests` until `next_try`; not to be called before `paused_until`. Moments are in epoch seconds.
    """

    busy: bool = False
    rests: bool = False
    next_try: float | None = None
    paused_until: float | None = None


class Gate:
    """Says whether one more may run. `in_memory` counts the deliveries in memory, by lane.

    `begun` is the share of the prefetch of events that is begun and not acked.
    """

    def __init__(
        self,
        tools: Tools,
        in_memory: Mapping[Lane, int],
        *,
        max_in_flight: int,
        slot_wait: float,
        begun: Callable[[], float],
        peers: Peers,
    ) -> None:
        self._tools = tools
        self._in_memory = in_memory
        self._begun = begun
        self._peers = peers
        self._slot_wait = slot_wait
        self._most = 2 * max_in_flight
        self._most_of_lane = most_of_lane(self._most)
        self._slots = Slots(max_in_flight)
        self._known: OrderedDict[Key, Known] = OrderedDict()  # the one heard of longest ago comes first
        self._busy: dict[Key, Known] = {}  # those with deliveries in memory
        self._ready: dict[Side, OrderedDict[Key, Known]] = {side: OrderedDict() for side in Side}
        self._down: dict[Key, Known] = {}
        self._holds: dict[Key, float] = {}  # seconds of a try, of each that is down and was tried here …
        self._tries = 0.0  # … and of all of them
        self.wishes: dict[Key, None] = {}  # clients whose buckets are to be gone through, in this order
        self.waiting = 0  # deliveries that wait in memory for their client
        self._leaving = False

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

    def _know(self, client: Client, now: float) -> Known:
        workers = max(1, self._peers.count())
        limit = max(1, client.max_concurrent // workers)
        step = 0.0 if client.per_second is None else workers / client.per_second
        one = self._known.get(key := client.key)
        if one is None:
            one = self._known[key] = KnownClient(key=key, limit=limit, step=step, heard=now)
        one.limit, one.step, one.heard = limit, step, now
        one.cap = min(one.cap, limit)
        self._known.move_to_end(key)
        self._slots.place(one, now)
        return one

    def _may_start(self, one: Known, ticket: Ticket, now: float) -> bool:
        lane = ticket.held.lane
        running = len(one.running)
        if running >= (one.cap if one.up else 1) or one.tokens(now) < 1:
            return False
        match one.state_at(now):
            case State.PAUSED:
                return False
            case State.DOWN:
                return self._may_try(one, ticket.delivery, now) and self._slots.free(one, lane) > 0
            case State.NEW | State.UP:
                return running < self._slots.free(one, lane)

    def _may_try(self, one: Known, delivery: Delivery, now: float) -> bool:
        """Return True if its rest is over for this delivery: for a traveller first, or it would come in vain.

        A fresh one may try a little earlier, while many slots are free.
        """
        if delivery.leash is not None:
            return now >= one.next_try
        due = one.next_try + SHORTEST
        if delivery.first_taken_at is None and self._slots.many_probes_free:
            due = min(due, one.ended + max(FRESH, SHORTEST * self._peers.count()))
        return now >= max(due, one.ended + SHORTEST)

    def _patience(self) -> float:
        """Return for how many seconds a delivery may wait in memory."""
        return self._slot_wait * max(LEAST_WAIT, 1 - self._fill())

    def _pace(self, one: Known, now: float) -> float:
        """Return the seconds between two of its attempts. What it may have at a time grows while they are made."""
        grows = min(one.limit, one.cap + one.waiting // 2) if one.up else one.cap
        return one.pace(now, grows if self._slots.free(one, Lane.EVENTS) > 0 else len(one.running))

    def _may_wait(self, one: Known, ticket: Ticket, now: float) -> bool:
        match one.state_at(now):
            case State.DOWN | State.PAUSED:
                return False
            case State.NEW if not one.running:  # one stands in line for the slot of its first try
                return not one.waiting and self._fill() < CROWDED
            case State.NEW if ticket.pulled:  # its first try says soon whether it bears more
                return False
            case State.NEW | State.UP:
                patience = self._patience()
                turn = ticket.delivery.turn
                if ticket.pulled or (turn is not None and turn - self._ahead() <= now + patience):
                    patience *= 2
                return (one.waiting + 1) * self._pace(one, now) <= patience

    # ── asking ──

    def ask(self, ticket: Ticket) -> Go | Wait | Defer:
        """Say whether the delivery may be attempted now, waits in memory, is put off or is parked."""
        now, delivery, lane = self._tools.steady(), ticket.delivery, ticket.held.lane
        one = self._know(ticket.client, now)
        if delivery.charged_at is not None and one.outage[0] <= delivery.charged_at - self._ahead() <= one.outage[1]:
            ticket.delivery = delivery = replace(delivery, backoffs=max(0, delivery.backoffs - 1), charged_at=None)
        one.parked = one.parked or delivery.leash is not None  # by others, while it was on its way
        insists = ticket.held.message.unexplained >= INSIST
        if insists or (not one.waiting and self._may_start(one, ticket, now)):
            self._begin(one, ticket, lane, now)
            return Go()
        if self._may_wait(one, ticket, now):
            one.push(lane, ticket)
            one.fetched += ticket.pulled
            self.waiting += 1
            self._busy[one.key] = self._ready[one.side][one.key] = one
            return Wait()
        return self._put(one, ticket, now)

    def _begin(self, one: Known, ticket: Ticket, lane: Lane, now: float) -> None:
        one.take_token(now)
        side = Side.PROBE if one.down else one.side
        one.running[id(ticket)] = (now, lane, side)
        self._busy[one.key] = one
        self._slots.count(one, lane, side, +1)

    def ended(self, ticket: Ticket, result: Judgement) -> list[Ticket]:
        """Note how an attempt ended. Returns those that waited for its slot and begin now."""
        now, one = self._tools.steady(), self._known[ticket.client.key]
        if result.pause is not None:
            one.pause(now + result.pause)
        began, lane, side = one.running.pop(id(ticket))
        self._slots.count(one, lane, side, -1)
        was_up, was_limited = one.up, one.overload.spacing
        repeat = ticket.delivery.attempts > 0
        least = 0.0 if result.mark is Mark.ALIVE else self._least_rest(one)
        change = one.learn(result.mark, now - began, now, repeat=repeat, least=least)
        one.heard = now
        if not (was_up and one.up):
            self._turn(one, change, was_up=was_up)
        ticket.last = change is Change.DOWN
        paced = one.overload.spacing not in (0.0, was_limited)
        if change is not None or paced:
            self._pass_on(one, now, paced=paced)
        self._slots.place(one, now)
        if one.waiting:
            self._ready[one.side][one.key] = one
        elif not one.running:
            self._busy.pop(one.key, None)
        return self.hand_out() if any(self._ready.values()) else []

    def _least_rest(self, one: Known) -> float:
        """Return for how long it rests at least: until each of those that are down could have had its try."""
        alike = len(self._down) - len(self._holds)  # only heard of: perhaps they hang as this one does
        busy = min(len(self._down) * one.hold, self._tries + alike * one.hold)
        return busy / (PROBES * max(1, self._peers.count()))

    def _turn(self, one: Known, change: Change | None, *, was_up: bool) -> None:
        """Note what became of the client's state."""
        self._slots.turn(one, was_up=was_up)
        self._tries += (one.hold if one.down else 0.0) - self._holds.pop(one.key, 0.0)
        if one.down and one.hold:
            self._holds[one.key] = one.hold
        iss, client_id = one.key
        if change is Change.RECOVERED:
            self._down.pop(one.key, None)
            began, ended = one.outage
            self._tools.observe(ClientRecovered(iss=iss, client_id=client_id, outage=ended - began))
        elif change is Change.DOWN:
            self._down[one.key] = one
            next_try = max(one.next_try, one.paused_until) + self._ahead()
            self._tools.observe(ClientFailing(iss=iss, client_id=client_id, next_try=next_try))

    def hand_out(self) -> list[Ticket]:
        """Give free slots to those that wait, client after client."""
        now, begun = self._tools.steady(), list[Ticket]()
        for side, ready in self._ready.items():
            looks = min(len(ready), 8)
            while looks and self._slots.any_free(side):
                looks -= 1
                key, one = ready.popitem(last=False)
                if one.side is not side:
                    self._ready[one.side][key] = one
                    continue
                while one.waiting and self._may_start(one, one.first, now):
                    begun.append(ticket := self._pop(one))
                    self._begin(one, ticket, ticket.held.lane, now)
                if one.waiting and len(one.running) < one.cap:
                    ready[key] = one
        return begun

    def _pop(self, one: Known, *, newest: bool = False) -> Ticket:
        """Take one of those that wait in memory out of it."""
        ticket = one.pop(newest=newest)
        self.waiting -= 1
        one.fetched -= ticket.pulled
        return ticket

    # ── where it waits ──

    def _put(self, one: Known, ticket: Ticket, now: float, *, tried: bool = False) -> Defer:
        """Return where a delivery waits. `tried`: its failure took the client down, or was a traveller's."""
        age = 0.0 if ticket.delivery.first_taken_at is None else self._tools.clock() - ticket.delivery.first_taken_at
        state = one.state_at(now)
        if state is State.NEW and ticket.pulled and (one.running or one.waiting):
            # Who tries it looks after the bucket.
            later = Later(due=now + SHORTEST, cause=Cause.SLOT, place=Place.PARKED)
        elif state in (State.NEW, State.UP):
            cause = Cause.RATE if one.step and one.tokens(now) < 1 else Cause.SLOT
            later = self._in_line(one, ticket, now, age, cause)
        else:
            cause = Cause.CIRCUIT if state is State.DOWN else Cause.RETRY_AFTER
            later = self._away(one, now, cause, tried=tried)
        return self._defer(one, ticket, later)

    def _in_line(self, one: Known, ticket: Ticket, now: float, age: float, cause: Cause) -> Later:
        """Let it wait for its turn. Far from that it looks again, and soon if the client may bear more by then.

        What this worker took out of a bucket has its turn at the pace of all workers: no other one has it in its line,
        and it comes back to any of them.
        """
        turn = None if ticket.delivery.turn is None else ticket.delivery.turn - self._ahead()
        steady, pace = one.overload.steady(now), self._pace(one, now)
        if sure := steady and pace == one.step:
            longest = now + LONGEST_LINE
        else:
            longest = now + (MOST_LINE if steady and one.cap >= one.limit else min(MOST_LINE, max(LEAST_LINE, age)))
        if turn is None or turn <= now or (age < 0 and turn > longest):  # the last: the wall clock has jumped back
            shared_by = max(1, self._peers.count()) if ticket.pulled else 1
            turn = max(one.line, now + (one.waiting + 1) * pace) + pace / shared_by
            if turn > longest and not sure:
                return Later(due=longest, cause=cause, place=Place.DELAYED)
            one.line = turn
        return Later(due=min(turn, longest), cause=cause, place=Place.DELAYED, turn=turn)

    def _away(self, one: Known, now: float, cause: Cause, *, tried: bool) -> Later:
        """Let it wait for a client that is down or paused: in the bucket, or as the client's traveller."""
        paused = now < one.paused_until
        opens = one.paused_until if paused else one.next_try
        if one.covered(now) and one.relief:  # the tired one's turn would come at the end of the rest
            one.relief, one.next_try = False, now + whole_pass(max(SHORTEST, (opens - now) / 2))
            return Later(due=one.next_try, cause=cause, place=Place.TRAVELLER)
        if one.covered(now) and not tried:
            return Later(due=opens, cause=cause, place=Place.PARKED)
        wait = max(SHORTEST, opens - now) if opens > now else BUSY_TRY
        # One pass through one delay queue, which is exact. After several it may come a second early.
        return Later(due=now + (wait if paused else whole_pass(wait)), cause=cause, place=Place.TRAVELLER)

    def _defer(self, one: Known, ticket: Ticket, later: Later) -> Defer:
        """Return the deferral by the wall clock. A delivery comes back for its last attempt, if there is time for one.

        What is parked in a bucket may stay there beyond that, and is judged when it comes back. So one with little
        time left is not parked, nor is any by a worker that stops, since it looks after no bucket any more: they wait
        in the delay queues for half of their age, again and again.
        """
        now, delivery, client = self._tools.clock(), ticket.delivery, ticket.client
        ahead = self._ahead()
        due, turn = later.due + ahead, None if later.turn is None else later.turn + ahead
        if delivery.turn != turn:
            ticket.delivery = delivery = replace(delivery, turn=turn)
        sid = self._tools.channel.names_session(delivery, client)
        last = max(now, last_moment(delivery, client.retry, carries_sid=sid, now=now))
        if later.place is Place.PARKED and last - now >= SHORT_LIVED and not self._leaving:
            return Defer(due=due, cause=later.cause, place=Place.PARKED, until=last)
        if later.place is Place.PARKED:
            age = 0.0 if delivery.first_taken_at is None else now - delivery.first_taken_at
            due = now + max(SOON, min(due - now, SHARE_OF_OUTAGE * age))
        if later.place is not Place.TRAVELLER:
            return Defer(due=min(due, last), cause=later.cause)
        if (due - now) * LATE <= last - now:
            asked = later.cause is Cause.RETRY_AFTER  # several passes, of which the last may end a second early
            one.travels(due - ahead - (SOON if asked else 0))
            return Defer(due=due, cause=later.cause, place=Place.TRAVELLER, rounding="up")
        one.travels(now - ahead + min(due - now, last - now) * EARLY)
        return Defer(due=min(due, last), cause=later.cause, place=Place.TRAVELLER)

    def after_failure(self, ticket: Ticket, result: Judgement) -> Judgement:
        """Return the result with where and how long the delivery waits. Call it after `ended`, however that was.

        A failure of a client that is down, or asked for a pause, is not charged to the delivery's own backoff. Of one
        that is up it is, if another delivery had more luck since the last charge.
        """
        one, now = self._known[ticket.client.key], self._tools.steady()
        after = self._waits(one, ticket, result, now)
        if isinstance(after.verdict, Defer) and ticket.delivery.leash is not None:  # a fault of ours keeps it
            one.travels(now + deferral_wait(after.verdict.due - self._tools.clock()))
        self._look_after(one, now)
        return after

    def _waits(self, one: Known, ticket: Ticket, result: Judgement, now: float) -> Judgement:
        verdict, before, client = result.verdict, ticket.delivery, ticket.client
        if not isinstance(verdict, RetryAt) or result.mark not in (Mark.DOWN, Mark.BRAKED):
            return result
        if result.asked and result.pause is None:
            return result  # the client said when this delivery is to come again
        up = one.state_at(now) in (State.NEW, State.UP)
        paced = result.mark is Mark.BRAKED and one.overload.spacing > 0  # its pace is known: it may come again at that
        before_at = None if before.charged_at is None else before.charged_at - self._ahead()
        if up and not paced and (before_at is None or before_at < one.well):
            return result
        after = uncharged(result.delivery, before)
        if up and not paced:
            sid = self._tools.channel.names_session(after, client)
            verdict = retry(
                after, client.retry, None, carries_sid=sid, now=self._tools.clock(), jitter=self._tools.jitter
            )
            return replace(result, delivery=after, verdict=verdict)
        waits = Ticket(held=ticket.held, delivery=after, client=client)
        defer = self._put(one, waits, now, tried=ticket.last or before.leash is not None)
        leash = defer.due if defer.place is Place.TRAVELLER else None
        if leash is not None and after.attempts % TIRED == 0 and one.parked:
            one.relief = True
        verdict = RetryAt(due=defer.due, rounding=defer.rounding, place=defer.place, until=defer.until)
        return replace(result, delivery=replace(waits.delivery, leash=leash), verdict=verdict)

    # ── those that can wait no longer ──

    def put_off(self) -> Iterator[tuple[Ticket, Defer]]:
        """Return some of those that waited in memory and can wait no longer. Is called many times a second."""
        now = self._tools.steady()
        for one in list(self._busy.values()):
            self._slots.place(one, now)
            if one.waiting:
                self._ready[one.side][one.key] = one
        self._forget(now)
        return self._put_out(now, OFF, 2 * self._patience())

    def give_way(self) -> Iterator[tuple[Ticket, Defer]]:
        """Return the newest of those that would wait longest: memory is full."""
        return self._put_out(self._tools.steady(), 2 * OFF, LEAST_WAIT * self._slot_wait)

    def _put_out(self, now: float, most: int, patience: float) -> Iterator[tuple[Ticket, Defer]]:
        for key, one in list(self._busy.items()):
            stopped = one.state_at(now) in (State.DOWN, State.PAUSED)
            stays = one.state is State.NEW and not one.running and not stopped
            while most and one.waiting > stays and (stopped or one.waiting * self._pace(one, now) > patience):
                most -= 1
                ticket = self._pop(one, newest=True)
                yield ticket, self._put(one, ticket, now)
            if not one.waiting:
                self._ready[one.side].pop(key, None)
                if not one.running:
                    self._busy.pop(key, None)

    def leave(self) -> None:
        """Park nothing any more, and tell the other workers of what is parked: this one stops."""
        self._leaving, now = True, self._tools.steady()
        for one in self._known.values():
            one.pulling = False
            self._look_after(one, now)

    def abandon(self) -> None:
        """Forget all that wait: a drain gives them back to the queue."""
        for one in self._busy.values():
            while one.waiting:
                self._pop(one)
        for ready in self._ready.values():
            ready.clear()

    def _forget(self, now: float) -> None:
        """Forget clients not heard of for long, and the quietest ones if there are very many."""
        for _ in range(min(LOOKS, len(self._known))):
            key, one = next(iter(self._known.items()))
            if now - one.heard < KEPT and len(self._known) - len(self._busy) <= MOST_KNOWN:
                return
            if one.idle and one.paused_until <= now and not one.covered(now):
                del self._known[key]
                self._down.pop(key, None)
                self._tries -= self._holds.pop(key, 0.0)
            else:
                one.heard = now
                self._known.move_to_end(key)

    # ── what is parked ──

    def _look_after(self, one: Known, now: float) -> None:
        """See to it that somebody looks at what is parked for the client: this worker, or a traveller on its way."""
        if not one.parked or one.pulling:
            return
        tried = bool(one.running or one.waiting) or (one.covered(now) and not one.relief)
        if one.state_at(now) is not State.UP and tried:
            return
        if self._leaving:
            self._pass_on(one, now, paced=False)
        else:
            self.wishes[one.key] = None

    @property
    def workers(self) -> int:
        """How many workers there are, this one included."""
        return self._peers.count()

    def look_after_overdue(self) -> None:
        """Look after the clients whose traveller should have come long ago: an operator may have taken it away."""
        now = self._tools.steady()
        for one in self._down.values():
            if now > max(one.next_try, one.covered_until, one.paused_until) + OVERDUE:
                self._look_after(one, now)

    def wanted(self, key: Key) -> int | None:
        """Return how many of its parked deliveries the client bears now; None if it has no use of them."""
        one, now = self._known.get(key), self._tools.steady()
        if one is None:
            return 1
        state = one.state_at(now)
        if state is State.UP:
            running, free = len(one.running), self._slots.free(one, Lane.RETRIES)
            bears = min(one.cap - running, (free - running + 1) // 2, one.tokens(now)) - one.waiting
            # Where those that come fill its pace, one waits among them at a time.
            among = one.waiting > 0 and not one.fetched
            return max(0, bears, int(among and (one.waiting + 1) * self._pace(one, now) <= 2 * self._patience()))
        if one.running:
            return 0
        return 1 if state is State.NEW or one.relief or not one.covered(now) else None

    def parked(self, key: Key) -> None:
        """Note that a delivery is durable in the client's bucket."""
        one = self._known.get(key)
        if one is None or (one.pulling and one.up):
            self.wishes[key] = None  # it may have come too late for this pass, or for all that was known of the client
        if one is not None:
            one.parked = True
            self._look_after(one, self._tools.steady())

    def fetched(self, keys: Iterable[Key]) -> None:
        """Note that some of these clients' bucket were fetched: a tired traveller that found no relief goes on."""
        for key in keys:
            if (one := self._known.get(key)) is not None:
                one.relief = False

    def pulls(self, key: Key, *, pulling: bool, empty: bool = False) -> None:
        """Note that the client's bucket is gone through, or not any more. `empty`: nothing of the client is left."""
        one, now = self._known.get(key), self._tools.steady()
        if one is None:
            return
        one.pulling = pulling
        if empty and one.state_at(now) is State.UP and key not in self.wishes:
            one.parked = False
            if one.recovered is not None:
                iss, client_id = key
                self._tools.observe(ClientServed(iss=iss, client_id=client_id, seconds=now - one.recovered))
                one.recovered = None

    def traveller_ended(self, key: Key) -> None:
        """Note that the client's traveller came to its end without an attempt: another one is needed."""
        if (one := self._known.get(key)) is not None:
            one.parked, one.covered_until = True, -float("inf")
        self.wishes[key] = None

    # ── other workers ──

    def _pass_on(self, one: Known, now: float, *, paced: bool) -> None:
        """Tell the other workers how the client stands."""
        failing = 0.0 if one.failing_since is None else now - one.failing_since
        rest = max(0.0, one.next_try - now)
        spacing = one.overload.spacing if paced else 0.0
        self._peers.tell(
            News(key=one.key, up=one.up, failing=failing, rest=rest, cap=one.cap, spacing=spacing, parked=one.parked)
        )

    def heard(self, news: News) -> None:
        """Act as if this worker had seen what another one saw."""
        one, now = self._known.get(news.key), self._tools.steady()
        if one is None:
            if news.up and news.parked:
                self.wishes[news.key] = None  # by a worker that stops, perhaps
            return
        was_up = one.up
        change = one.hear(news, now)
        one.parked = one.parked or news.parked
        self._turn(one, change, was_up=was_up)
        if not self._leaving:  # it would tell the others what they hear themselves
            self._look_after(one, now)

    # ── for operators ──

    def try_now(self, key: Key, *, force: bool) -> None:
        """Have the client tried at once, if something is parked for it. A pause stands, unless `force`."""
        now = self._tools.steady()
        one = self._known.get(key)
        if one is None:  # what is parked for it was parked by others
            one = self._known[key] = KnownClient(key=key, limit=1, step=0.0, heard=now)
        one.heard = now
        self._known.move_to_end(key)
        one.try_now(now, force=force)
        if now >= one.paused_until:
            one.parked = True
            self._look_after(one, now)

    def held_up(self, key: Key) -> bool:
        """Return True if the client rests or pauses, or something may be parked for it."""
        one = self._known.get(key)
        return one is not None and (not one.up or one.parked or self._tools.steady() < one.paused_until)

    def standing(self, key: Key) -> Standing:
        """Return how the client stands."""
        one, now = self._known.get(key), self._tools.steady()
        if one is None:
            return Standing()
        ahead, wait = self._ahead(), max(0.0, one.next_try - now, one.paused_until - now)
        return Standing(
            busy=bool(not one.idle or key in self.wishes),
            rests=one.down and not one.running,
            next_try=now + wait + ahead if one.down else None,
            paused_until=one.paused_until + ahead if now < one.paused_until else None,
        )

    def circuits(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, 1 half-open | 2 open) for each client that rests."""
        return ((*key, 1 if one.running else 2) for key, one in self._down.items())

    def next_tries(self) -> Iterable[tuple[str, str, float]]:
        """Return (iss, client_id, the moment of the next try in epoch seconds) for each client that rests."""
        now, ahead = self._tools.steady(), self._ahead()
        return ((*key, ahead + max(now, one.next_try, one.paused_until)) for key, one in self._down.items())

    def lines(self) -> Iterable[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return ((*key, one.waiting) for key, one in self._busy.items() if one.waiting)

    def _ahead(self) -> float:
        """Return the seconds from the steady clock to the wall clock."""
        return self._tools.clock() - self._tools.steady()

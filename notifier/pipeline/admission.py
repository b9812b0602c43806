"""Decides whether a delivery is attempted now, waits in memory for its client, is put off or is parked.

Pure: the clock is an argument, and nothing here waits. This keeps one client from hurting another:

- A client that is up may take as many slots as others leave free, up to its limit. So one client alone takes half of
  what is free, the next a quarter, and a newcomer always finds a slot.
- Attempts at slow and silent clients have slots of their own, a quarter of the window's size. However many clients
  hang, the window is free.
- A delivery waits in memory only if its turn is expected within `slot_wait`, or within less as memory fills.

What comes for a client that rests is parked in its bucket. One delivery of the client is its *leash*: it waits in the
delay queues until the rest ends, and tries the client then. When the client answers, the bucket is drained at its pace.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

from notifier.domain.backoff import EARLY, Rounding
from notifier.domain.client import Client
from notifier.domain.message import Lane
from notifier.domain.outcome import Cause
from notifier.domain.verdict import Place
from notifier.pipeline.drains import CROWDED, Drains
from notifier.pipeline.known_client import SHARE_OF_OUTAGE, SHORTEST, Change, Key, KnownClient, Mark, Side, Ticket
from notifier.pipeline.slots import Slots

LEAST_WAIT = 0.1  # the share of `slot_wait` that is left of it if memory is full
OFF = 16  # deliveries put out of memory at a time: more would hold up the others
FRESH = 4.0  # seconds after which a fresh delivery may try a client that rests; a second a worker if that is more
TIRED = 4  # attempts after which a leash lets another delivery of its client take its place
KEPT = 1800.0  # seconds that a client not heard of is remembered
MOST_KNOWN = 20_000  # clients remembered that have nothing in memory


@dataclass(frozen=True, slots=True)
class Go:
    """Attempt it now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It waits in memory; `ended` or `hand_out` returns it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Put it off. `due`: the moment to come back (the leash), or the next try of its client (a parked delivery)."""

    due: float
    cause: Cause
    place: Place
    rounding: Rounding = "down"


class Admission(Generic[Ticket]):
    """Decides whether a delivery is attempted now, waits in memory, is put off or is parked.

    `workers` says over how many workers a client's limits are shared, `fill` how full memory is (0 to 1). `changed` is
    called when a client went down or recovered, `drained` with the seconds since a client's recovery when its bucket is
    empty.
    """

    def __init__(
        self,
        size: int,
        *,
        slot_wait: float,
        workers: Callable[[], int] = lambda: 1,
        fill: Callable[[], float] = lambda: 0.0,
        changed: Callable[[KnownClient[Ticket], Change], None] = lambda _one, _change: None,
        drained: Callable[[KnownClient[Ticket], float], None] = lambda _one, _seconds: None,
    ) -> None:
        self.slots = Slots(size)
        self._slot_wait = slot_wait
        self._workers = workers
        self._fill = fill
        self._changed = changed
        self._known: OrderedDict[Key, KnownClient[Ticket]] = OrderedDict()  # the one heard of longest ago comes first
        self._busy: dict[Key, KnownClient[Ticket]] = {}  # those with deliveries in memory
        self._ready: dict[Side, OrderedDict[Key, KnownClient[Ticket]]] = {side: OrderedDict() for side in Side}
        self._resting: dict[Key, KnownClient[Ticket]] = {}
        self.drains = Drains(self._known, self._wanted, fill, drained)
        self.waiting = 0

    # ── what a client bears ──

    def _state(self, client: Client, now: float) -> KnownClient[Ticket]:
        workers = max(1, self._workers())
        limit = max(1, client.max_concurrent // workers)
        step = 0.0 if client.per_second is None else workers / client.per_second
        one = self._known.get(key := client.key)
        if one is None:
            one = self._known[key] = KnownClient(key=key, limit=limit, step=step, heard=now)
        one.limit, one.step, one.heard = limit, step, now
        one.cap = min(one.cap, limit)
        self._known.move_to_end(key)
        self.slots.place(one, now)
        return one

    def _stopped(self, one: KnownClient[Ticket], now: float, *, fresh: bool = False) -> bool:
        """Return True if the client is to be left alone."""
        if now < one.paused_until:
            return True
        if one.up:
            return False
        until = one.next_try
        if fresh and self.slots.many_slow_free:
            until = min(until, one.ended + max(FRESH, SHORTEST * self._workers()))
        return now < max(until, one.ended + SHORTEST)

    def _may_start(self, one: KnownClient[Ticket], lane: Lane, now: float, *, fresh: bool = False) -> bool:
        running = len(one.running)
        if running >= (one.cap if one.up else 1) or one.tokens(now) < 1 or self._stopped(one, now, fresh=fresh):
            return False
        return running < self.slots.free(one, lane)

    def _patience(self) -> float:
        """Return for how many seconds a delivery may wait in memory."""
        return self._slot_wait * max(LEAST_WAIT, 1 - self._fill())

    def _pace(self, one: KnownClient[Ticket], now: float) -> float:
        return one.pace(now, one.cap if self.slots.free(one, Lane.EVENTS) > 0 else len(one.running))

    def _may_wait(self, one: KnownClient[Ticket], now: float) -> bool:
        if not one.up and not one.running:  # one of them stands in line for the slot of its next try
            return not one.waiting and self._fill() < CROWDED
        return (one.waiting + 1) * self._pace(one, now) <= self._patience()

    def _wanted(self, one: KnownClient[Ticket], now: float) -> int:
        """Return how many of its parked deliveries the client bears now: half of the slots that are left."""
        if self._stopped(one, now):
            return 0
        running = len(one.running)
        room = min(one.cap - running, (self.slots.free(one, Lane.RETRIES) - running + 1) // 2, one.tokens(now))
        return room - one.waiting - one.fetching

    # ── asking ──

    def ask(
        self,
        client: Client,
        lane: Lane,
        ticket: Ticket,
        now: float,
        *,
        fresh: bool = False,
        was_parked: bool = False,
        leash: float | None = None,
        age: float = math.inf,
    ) -> Go | Wait | Later:
        """Say whether the delivery may be attempted.

        `fresh`: no worker had it in hand before. `was_parked`: it comes from its bucket. `leash`: it is a leash that
        was due then. `age`: seconds since a worker first had it in hand.
        """
        one = self._state(client, now)
        one.parked = one.parked or was_parked  # more may be parked with it, of which this worker did not know
        if leash is not None:
            one.leash_came(leash, now)
        if not one.waiting and self._may_start(one, lane, now, fresh=fresh):
            self._begin(one, ticket, lane, now)
            return Go()
        may_wait = (was_parked and one.up) or self._may_wait(one, now)
        if self._stopped(one, now, fresh=fresh) or not may_wait:
            return self._away(one, now, age)
        one.push(lane, ticket)
        self.waiting += 1
        self._busy[one.key] = self._ready[one.side][one.key] = one
        return Wait()

    def insist(self, client: Client, lane: Lane, ticket: Ticket, now: float, *, was_parked: bool) -> Go:
        """Attempt the delivery whatever its client does."""
        one = self._state(client, now)
        one.parked = one.parked or was_parked
        self._begin(one, ticket, lane, now)
        return Go()

    def _away(self, one: KnownClient[Ticket], now: float, age: float = math.inf) -> Later:
        paused = now < one.paused_until
        if one.up and not paused:
            self.drains.drain(one)
            cause = Cause.RATE if one.step and one.tokens(now) < 1 else Cause.SLOT
            return Later(due=now + self._pace(one, now), cause=cause, place=Place.PARKED)
        cause = Cause.RETRY_AFTER if paused else Cause.CIRCUIT if one.rests else Cause.SLOT  # of its first attempt
        wait = max(SHORTEST, (one.paused_until if paused else one.next_try) - now)
        if one.leash_until > now and one.leash_due <= now + wait + SHORTEST:
            one.parked = True
            return Later(due=now + wait, cause=cause, place=Place.PARKED)
        wait = min(wait, max(SHORTEST, SHARE_OF_OUTAGE * age))  # of a fresh one another worker may know better
        one.leash_sent(now + (wait if paused else wait * EARLY))
        return Later(due=now + wait, cause=cause, place=Place.LEASH, rounding="up" if paused else "down")

    def failed(self, key: Key, now: float, *, braked: bool, attempts: int) -> Later | None:
        """Return where a delivery waits whose attempt failed. None: it waits by itself, for its own backoff."""
        one = self._known[key]
        paced = braked and one.overload.spacing > 0  # its pace is known: it may come again at that
        if one.up and not now < one.paused_until and not paced:
            return None
        if one.rests and attempts % TIRED == 0 and one.parked and one.leash_until <= now:
            self.drains.lacks_leash(one)
            return Later(due=one.next_try, cause=Cause.CIRCUIT, place=Place.PARKED)
        return self._away(one, now)

    def charged(self, key: Key, before: float | None) -> bool:
        """True if a failure is charged to the delivery: another had more luck since the last one (`before`)."""
        return before is None or before < self._known[key].well

    def was_down(self, key: Key, moment: float) -> bool:
        """True if the moment lies in the client's last outage."""
        one = self._known.get(key)
        return one is not None and one.outage[0] <= moment <= one.outage[1]

    # ── beginning and ending ──

    def _begin(self, one: KnownClient[Ticket], ticket: Ticket, lane: Lane, now: float) -> None:
        one.take_token(now)
        one.running[id(ticket)] = (now, lane)
        self._busy[one.key] = one
        self.slots.count(one, lane, +1)

    def ended(self, key: Key, ticket: Ticket, mark: Mark, now: float) -> list[Ticket]:
        """Note how an attempt ended. Returns those that waited for its slot and begin now."""
        one = self._known[key]
        began, lane = one.running.pop(id(ticket))
        self.slots.count(one, lane, -1)
        was_up = one.up
        change = one.learn(mark, now - began, now)
        self.slots.turn(one, was_up=was_up)
        one.heard = now
        self.slots.place(one, now)
        if change is not None:
            self._turn(one, change, now)
        elif one.up and not was_up:  # its first success: another worker may have parked what it had
            self.drains.drain(one)
        self.drains.look_after(one, now)
        if one.waiting:
            self._ready[one.side][key] = one
        elif not one.running:
            self._busy.pop(key, None)
        return self.hand_out(now) if any(self._ready.values()) else []

    def _turn(self, one: KnownClient[Ticket], change: Change, now: float) -> None:
        """Note that the client went down or recovered."""
        if change is Change.RECOVERED:
            self._resting.pop(one.key, None)
            self.drains.watch(one, now)
        else:
            self._resting[one.key] = one
        self._changed(one, change)

    def hand_out(self, now: float) -> list[Ticket]:
        """Give free slots to those that wait, client after client."""
        begun: list[Ticket] = []
        for side, ready in self._ready.items():
            looks = min(len(ready), 8)
            while looks and self.slots.any_free(side):
                looks -= 1
                key, one = ready.popitem(last=False)
                if one.side is not side:
                    self._ready[one.side][key] = one
                    continue
                while one.waiting and self._may_start(one, lane := one.next_lane, now):
                    self.waiting -= 1
                    begun.append(ticket := one.pop())
                    self._begin(one, ticket, lane, now)
                if one.waiting and len(one.running) < one.cap:
                    ready[key] = one
        return begun

    def pause(self, key: Key, until: float) -> None:
        """Leave the client alone until then: it asked for it (`Retry-After`)."""
        one = self._known.get(key)
        if one is not None:
            one.paused_until = max(one.paused_until, until)

    def try_now(self, key: Key, now: float, *, force: bool) -> None:
        """Let the next delivery try the client, and see to it that one is there. A pause stands, unless `force`."""
        one = self._known.get(key)
        if one is None:  # what is parked for it was parked by others
            one = self._known[key] = KnownClient(key=key, limit=1, step=0.0, heard=now)
            self.slots.place(one, now)
        one.heard = now
        self._known.move_to_end(key)
        if force:
            one.paused_until = min(one.paused_until, now)
        if now < one.paused_until:
            return
        one.next_try = min(one.next_try, now)
        one.leash_ends(now)
        one.parked = True
        self.drains.look_after(one, now)

    def busy(self, one: KnownClient[Ticket], now: float) -> bool:
        """Return True if something of the client runs, waits for a slot, or is fetched now."""
        return not one.idle or (self.drains.busy(one.key) and not self._stopped(one, now))

    def known(self, key: Key) -> KnownClient[Ticket] | None:
        """Return what is known of the client."""
        return self._known.get(key)

    # ── those that can wait no longer ──

    def put_off(self, now: float) -> Iterator[tuple[Ticket, Later]]:
        """Return some of those that would wait too long by now. Is called many times a second."""
        for one in list(self._busy.values()):
            self.slots.place(one, now)
            if one.waiting:
                self._ready[one.side][one.key] = one
        self._forget(now)
        return self._put_out(now, OFF, 2 * self._patience())

    def give_way(self, now: float) -> Iterator[tuple[Ticket, Later]]:
        """Return the newest of those that would wait longest: memory is full."""
        return self._put_out(now, 2 * OFF, LEAST_WAIT * self._slot_wait)

    def _put_out(self, now: float, most: int, patience: float) -> Iterator[tuple[Ticket, Later]]:
        for key, one in list(self._busy.items()):
            stopped = self._stopped(one, now)
            one_stays = not one.up and not one.running and not stopped
            while most and one.waiting > one_stays and (stopped or one.waiting * self._pace(one, now) > patience):
                most -= 1
                self.waiting -= 1
                yield one.pop(newest=True), self._away(one, now)
            if not one.waiting:
                self._ready[one.side].pop(key, None)
                if not one.running:
                    self._busy.pop(key, None)

    def abandon(self) -> None:
        """Forget all that wait: a drain gives them back to the queue."""
        for one in self._busy.values():
            while one.waiting:
                one.pop()
        for ready in self._ready.values():
            ready.clear()
        self.waiting = 0

    def _forget(self, now: float) -> None:
        """Forget clients not heard of for long, and the quietest ones if there are very many."""
        while self._known:
            key, one = next(iter(self._known.items()))
            if now - one.heard < KEPT and len(self._known) - len(self._busy) <= MOST_KNOWN:
                return
            if one.idle and one.paused_until <= now:
                del self._known[key]
                self._resting.pop(key, None)
                self.drains.forget(key)
            else:
                one.heard = now
                self._known.move_to_end(key)

    # ── for operators ──

    def resting(self, now: float) -> Iterator[tuple[Key, bool, float]]:
        """Return for each client that rests: is it being tried now, and in how many seconds is its next try?"""
        return (
            (key, bool(one.running), max(0.0, one.next_try - now, one.paused_until - now))
            for key, one in self._resting.items()
        )

    def lines(self) -> Iterator[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return ((*key, one.waiting) for key, one in self._busy.items() if one.waiting)

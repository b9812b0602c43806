"""Decides whether a delivery may be attempted now, waits in memory for a slot of its client's, or is put off.

Pure: the clock is an argument, and nothing here waits. What keeps one client from hurting another:

- a client's cap adapts (see `client_standing`), and groups of clients share the window (see `window`): suspects have slots
  of their own, and what runs at a client when it falls silent is counted there too, so that however many hang at
  once, the window is free again a second later;
- a client in good standing may have deliveries wait in memory while their expected wait is under `slot_wait`, so that
  a flood for it runs at full speed; beyond it they are put off. Where memory is full the largest waiter gives way;
- what is put off gets a reservation: each a little later than the client's last, by its measured pace, so that a
  hundred thousand that wait come back one by one and not all at once; it is kept while they come back early;
- rate, circuit and pause (`Retry-After`) put off likewise, from the moment when they end.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal

from notifier.domain.backoff import deferral_wait
from notifier.domain.client import Client
from notifier.domain.message import Lane
from notifier.domain.outcome import Cause
from notifier.pipeline.client_standing import CircuitChange, Group, Mark, Standing, Ticket
from notifier.pipeline.window import Window

FARTHEST = 900.0  # seconds: no reservation lies further ahead than that after the line begins
KEPT = 1800.0  # seconds that a client not heard of is remembered: as long as it could be left alone
MOST_KNOWN = 20_000  # clients remembered that have nothing in memory
AT_ONCE = 16  # put off together: more would hold up the others, now and again when they come back
LEFT_ALONE = frozenset({Cause.CIRCUIT, Cause.RETRY_AFTER})

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Go:
    """Attempt it now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It waits in memory; `ended` hands it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Put it off until `due`, in seconds of the same clock.

    Rounded up where the client is left alone until then, or more is known of it only then, so that it comes back once;
    but down, by halves, for the first in line: it is the probe, and must come on time.
    """

    due: float
    cause: Cause
    rounding: Literal["down", "up"] = "down"


class Admission(Generic[Ticket]):
    """Decides whether a delivery is attempted now, waits in memory, or is put off.

    `workers` says over how many workers a client's limits are shared. `circuit_changed` is called when a client's
    circuit opens or closes.
    """

    def __init__(
        self,
        window: Window,
        *,
        slot_wait: float,
        workers: Callable[[], int] = lambda: 1,
        circuit_changed: Callable[[Client, CircuitChange], None] = lambda _client, _change: None,
    ) -> None:
        self._window = window
        self._slot_wait = slot_wait
        self._workers = workers
        self._circuit_changed = circuit_changed
        self._known: OrderedDict[Key, Standing[Ticket]] = OrderedDict()  # the one least lately heard of first
        self._busy: dict[Key, Standing[Ticket]] = {}  # those with deliveries in memory
        self._ready: OrderedDict[Key, None] = OrderedDict()  # those who wait and might begin
        self._broken: dict[Key, Standing[Ticket]] = {}  # those whose circuit is not closed
        self.waiting = 0

    # ── asking ──

    def crowded(self, key: Key, lane: Lane) -> bool:
        """Whether a client not proven yet, with nothing in flight, finds as many such as may be before it."""
        one = self._known.get(key)
        if one is not None and (one.running or one.group is not Group.UNPROVEN):
            return False
        return not self._window.room(Group.UNPROVEN, lane)

    def ask(
        self, client: Client, lane: Lane, ticket: Ticket, now: float, reserved: float | None = None
    ) -> Go | Wait | Later:
        """May this delivery be attempted? `reserved` is when it was told to come, if it was put off before."""
        one = self._standing(client, now)
        stopped = self._stopped(one, now)
        if stopped is not None:
            return self._later(one, *stopped, now, reserved)
        may_start = not one.waiting and self._may_start(one, lane, now)
        if not may_start and not self._may_wait(one, now):
            return self._later(one, now + one.watch, Cause.SLOT, now, reserved)
        if not one.take_token(now):
            return self._later(one, one.token_at, Cause.RATE, now, reserved)
        if may_start:
            self._begin(one, ticket, lane, now)
            return Go()
        one.push(lane, ticket)
        self.waiting += 1
        self._busy[client.key] = one
        self._ready[client.key] = None
        return Wait()

    def _standing(self, client: Client, now: float) -> Standing[Ticket]:
        workers = max(1, self._workers())
        limit = max(1, min(client.max_concurrent // workers, self._window.most_for_one))
        step = 0.0 if client.per_second is None else workers / client.per_second
        one = self._known.get(key := client.key)
        if one is None:
            one = self._known[key] = Standing(client=client, limit=limit, step=step, heard=now)
        one.client, one.limit, one.step, one.heard = client, limit, step, now
        one.cap = min(one.cap, limit)
        self._known.move_to_end(key)
        if one.hangs(now):
            self._doubt(one)
        return one

    def _stopped(self, one: Standing[Ticket], now: float) -> tuple[float, Cause] | None:
        """Until when the client is to be left alone, and why."""
        if now < one.paused_until:
            return one.paused_until, Cause.RETRY_AFTER
        if one.circuit.blocks(now):
            probed = now + one.client.timeout if one.circuit.probing else now
            return max(probed, one.circuit.open_until or now), Cause.CIRCUIT
        return None

    def _may_wait(self, one: Standing[Ticket], now: float) -> bool:
        """Whether it may wait in memory: at a client in good standing, for a short time; at a silent one very few.

        Nothing is known of the pace of a client that never answered: a flood for it waits for its first answers.
        """
        if one.tardy(now) and not one.suspect:
            return one.waiting < one.cap
        if one.suspect and not one.brisk:
            return False
        if not one.proven:
            return bool(one.running)
        return (one.waiting + 1) * one.pace <= self._slot_wait

    def _may_start(self, one: Standing[Ticket], lane: Lane, now: float) -> bool:
        """Whether the client has a slot free, and its part of the window one for it."""
        if len(one.running) >= one.cap or one.tardy(now):
            return False
        return self._window.room(one.group, lane)

    def _later(
        self, one: Standing[Ticket], since: float, cause: Cause, now: float, reserved: float | None = None
    ) -> Later:
        """A place in line: `since` itself for the first, or the one it has, where that still lies ahead."""
        if reserved is not None and reserved > now and reserved >= since:
            due = min(reserved, max(since, now) + FARTHEST)  # the wall clock may have stepped back since
        elif one.reserved < since:
            due = one.reserved = since
        else:
            due = one.reserved = min(one.reserved + one.pace, max(since, now) + FARTHEST)
        early = cause in LEFT_ALONE or (one.suspect and cause is Cause.SLOT and now + deferral_wait(due - now) < since)
        return Later(due=due, cause=cause, rounding="up" if early and due > since else "down")

    # ── beginning and ending ──

    def _begin(self, one: Standing[Ticket], ticket: Ticket, lane: Lane, now: float) -> None:
        one.circuit.begin()
        one.running[id(ticket)] = (now, lane)
        self._busy[one.client.key] = one
        self._window.count(one.group, lane, +1)

    def _regroup(self, one: Standing[Ticket], before: Group) -> None:
        """What runs at it is counted where it belongs by now."""
        if one.group is not before:
            for _, lane in one.running.values():
                self._window.count(before, lane, -1)
                self._window.count(one.group, lane, +1)

    def _doubt(self, one: Standing[Ticket]) -> None:
        before = one.group
        one.doubt()
        self._regroup(one, before)

    def ended(self, client: Client, ticket: Ticket, mark: Mark, now: float) -> list[Ticket]:
        """An attempt ended so. Returns those who waited for it and begin now."""
        one = self._known[key := client.key]
        before = one.group
        began, lane = one.running.pop(id(ticket))
        self._window.count(before, lane, -1)
        change = one.learn(mark, now - began, now)
        self._regroup(one, before)
        if before is Group.SUSPECT and not one.suspect:
            # It is well again, and the line begins anew. Else one that fails now and then is left idle: whoever comes
            # back while it fails goes to the end, and the end moves away by minutes (1,200 waited 128 s for nothing).
            one.reserved = min(one.reserved, now)
        one.heard = now
        self._known.move_to_end(key)
        if change is not None:
            self._circuit_changed(one.client, change)
        if one.circuit.open_until is None:
            self._broken.pop(key, None)
        else:
            self._broken[key] = one
        if one.waiting:
            self._ready[key] = None
        elif not one.running:
            del self._busy[key]
        return self.hand_out(now) if self._ready else []

    def hand_out(self, now: float) -> list[Ticket]:
        """Slots that are free go to those who wait, client after client. To be called after `put_off`, too."""
        begun: list[Ticket] = []
        while self._ready and not self._window.full():
            key, _ = self._ready.popitem(last=False)
            one = self._known[key]
            while one.waiting and self._may_start(one, one.next_lane, now) and self._stopped(one, now) is None:
                self.waiting -= 1
                lane = one.next_lane
                begun.append(ticket := one.pop())
                self._begin(one, ticket, lane, now)
            if one.waiting and len(one.running) < one.cap and self._window.full():
                self._ready[key] = None
        return begun

    def pause(self, client: Client, until: float) -> None:
        """The client asked to be left alone until then (`Retry-After`)."""
        one = self._known.get(client.key)
        if one is not None:
            one.paused_until = max(one.paused_until, until)

    # ── those who can wait no more ──

    def put_off(self, now: float) -> Iterator[tuple[Ticket, Later]]:
        """Some of those who wait at a client that is suspect, stopped or hanging by now.

        To be called many times a second.
        """
        left = AT_ONCE
        for key, one in list(self._busy.items()):
            if one.hangs(now):
                self._doubt(one)
            stopped = self._stopped(one, now)
            stranded = not one.running and key not in self._ready
            if (one.suspect and not one.brisk) or stranded or stopped is not None:
                since, cause = stopped or (now + one.watch, Cause.SLOT)
                while one.waiting and left:
                    self.waiting -= 1
                    left -= 1
                    yield one.pop(), self._later(one, since, cause, now)
                if not one.waiting:
                    self._ready.pop(key, None)
                if one.idle:
                    del self._busy[key]
        self._forget(now)

    def give_way(self, key: Key, now: float) -> tuple[Ticket, Later] | None:
        """Memory is full and a delivery for `key` comes: the newest of the largest waiter makes room for it."""
        largest = max(self._busy.values(), key=lambda one: one.waiting, default=None)
        mine = self._busy.get(key)
        if largest is None or largest is mine or largest.waiting <= (0 if mine is None else mine.waiting) + 1:
            return None
        self.waiting -= 1
        return largest.pop(newest=True), self._later(largest, now, Cause.SLOT, now)

    def abandon(self) -> None:
        """Forget all who wait: a drain gives them back to the queue."""
        for one in self._busy.values():
            while one.waiting:
                one.pop()
        self._ready.clear()
        self.waiting = 0

    def _forget(self, now: float) -> None:
        """Let go of clients not heard of lately, and of the quietest where there are very many."""
        while self._known:
            key, one = next(iter(self._known.items()))
            if now - one.heard < KEPT and len(self._known) - len(self._busy) <= MOST_KNOWN:
                return
            if one.idle:
                del self._known[key]
                self._broken.pop(key, None)
            else:
                one.heard = now
                self._known.move_to_end(key)

    def circuits(self) -> Iterator[tuple[str, str, int]]:
        """(iss, client_id, 1 half-open | 2 open) of those not closed."""
        return ((*key, 1 if one.circuit.probing else 2) for key, one in self._broken.items())

    def lines(self) -> Iterator[tuple[str, str, int]]:
        """(iss, client_id, deliveries that wait in memory) of those who have any."""
        return ((*key, one.waiting) for key, one in self._busy.items() if one.waiting)

"""Decides whether a delivery may be attempted now, waits in memory for its client, or is put off.

Pure: the clock is an argument, and nothing here waits. This keeps one client from hurting another:

- A client's cap adapts (see `client_standing`), and groups of clients share the window (see `window`). Suspects have
  slots of their own. What runs at a client when it falls silent moves there too. So however many hang at once, the
  window is free again a second later.
- Deliveries wait in memory for a client in good standing while their expected wait is under `slot_wait`, so that a
  flood for it runs at full speed. Further ones are put off. If memory is full, the client that waits most gives way.
- What is put off gets a reservation: each a little later than the client's last, by its measured pace. So a hundred
  thousand that wait come back one by one and not all at once. A delivery that comes back early keeps its reservation.
- Rate, circuit and pause (`Retry-After`) put off in the same way, from the moment when they end.
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
KEPT = 1800.0  # seconds that a client is remembered after it was last heard of: the longest time it is left alone
MOST_KNOWN = 20_000  # clients remembered that have nothing in memory
AT_ONCE = 16  # put off together: more would delay the others, now and when they come back
LEFT_ALONE = frozenset({Cause.CIRCUIT, Cause.RETRY_AFTER})

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Go:
    """Attempt it now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It waits in memory; `ended` or `hand_out` returns it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Put it off until `due`, in seconds of the same clock.

    The delay is rounded up if the client is left alone until then, or if nothing new is known of it before, so that the
    delivery comes back once. It is rounded down for the first in line, which is the probe and must come on time.
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
        self._known: OrderedDict[Key, Standing[Ticket]] = OrderedDict()  # the one heard of longest ago comes first
        self._busy: dict[Key, Standing[Ticket]] = {}  # those with deliveries in memory
        self._ready: OrderedDict[Key, None] = OrderedDict()  # those that wait and might begin
        self._broken: dict[Key, Standing[Ticket]] = {}  # those whose circuit is not closed
        self.waiting = 0

    # ── asking ──

    def crowded(self, key: Key, lane: Lane) -> bool:
        """True if the client is not proven, has nothing in flight, and all places of such clients are taken."""
        one = self._known.get(key)
        if one is not None and (one.running or one.group is not Group.UNPROVEN):
            return False
        return not self._window.room(Group.UNPROVEN, lane)

    def ask(
        self, client: Client, lane: Lane, ticket: Ticket, now: float, reserved: float | None = None
    ) -> Go | Wait | Later:
        """Say whether the delivery may be attempted. `reserved` is its reservation, if it was put off before."""
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
        """Return until when the client is left alone, and why; None if it is not."""
        if now < one.paused_until:
            return one.paused_until, Cause.RETRY_AFTER
        if one.circuit.blocks(now):
            probed = now + one.client.timeout if one.circuit.probing else now
            return max(probed, one.circuit.open_until or now), Cause.CIRCUIT
        return None

    def _may_wait(self, one: Standing[Ticket], now: float) -> bool:
        """True if one more may wait in memory: briefly at a client in good standing, very few at a silent one.

        The pace of a client that never answered is not known. A flood for it waits for its first answers.
        """
        if one.tardy(now) and not one.suspect:
            return one.waiting < one.cap
        if one.suspect and not one.brisk:
            return False
        if not one.proven:
            return bool(one.running)
        return (one.waiting + 1) * one.pace <= self._slot_wait

    def _may_start(self, one: Standing[Ticket], lane: Lane, now: float) -> bool:
        """True if the client has a free slot, and its group's part of the window has one too."""
        if len(one.running) >= one.cap or one.tardy(now):
            return False
        return self._window.room(one.group, lane)

    def _later(
        self, one: Standing[Ticket], since: float, cause: Cause, now: float, reserved: float | None = None
    ) -> Later:
        """Give it a place in line: its reservation, if that lies ahead; otherwise `since` if it is the first."""
        if reserved is not None and reserved > now and reserved >= since:
            due = min(reserved, max(since, now) + FARTHEST)  # the wall clock may have stepped back meanwhile
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
        """Count what runs at the client in the group that it belongs to now."""
        if one.group is not before:
            for _, lane in one.running.values():
                self._window.count(before, lane, -1)
                self._window.count(one.group, lane, +1)

    def _doubt(self, one: Standing[Ticket]) -> None:
        before = one.group
        one.doubt()
        self._regroup(one, before)

    def ended(self, client: Client, ticket: Ticket, mark: Mark, now: float) -> list[Ticket]:
        """Note how an attempt ended. Returns those that waited for its slot and begin now."""
        one = self._known[key := client.key]
        before = one.group
        began, lane = one.running.pop(id(ticket))
        self._window.count(before, lane, -1)
        change = one.learn(mark, now - began, now)
        self._regroup(one, before)
        if before is Group.SUSPECT and not one.suspect:
            # The client is well again, and its line begins anew. Otherwise a client that fails now and then is left
            # idle: what comes back while it fails goes to the end of the line, and the end moves away by minutes (1,200
            # deliveries waited 128 s for nothing).
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
        """Give free slots to those that wait, client after client. Call it after `put_off`, too."""
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
        """Leave the client alone until then: it asked for it (`Retry-After`)."""
        one = self._known.get(client.key)
        if one is not None:
            one.paused_until = max(one.paused_until, until)

    # ── those that can wait no longer ──

    def put_off(self, now: float) -> Iterator[tuple[Ticket, Later]]:
        """Return some of those that wait at a client that is suspect, left alone or hangs. Is called often."""
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
        """Make room for a delivery for `key`: return the newest that waits for the client that most wait for."""
        largest = max(self._busy.values(), key=lambda one: one.waiting, default=None)
        mine = self._busy.get(key)
        if largest is None or largest is mine or largest.waiting <= (0 if mine is None else mine.waiting) + 1:
            return None
        self.waiting -= 1
        return largest.pop(newest=True), self._later(largest, now, Cause.SLOT, now)

    def abandon(self) -> None:
        """Forget all that wait: a drain gives them back to the queue."""
        for one in self._busy.values():
            while one.waiting:
                one.pop()
        self._ready.clear()
        self.waiting = 0

    def _forget(self, now: float) -> None:
        """Forget clients not heard of for long, and the quietest ones if there are very many."""
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
        """Return (iss, client_id, 1 half-open | 2 open) for each circuit that is not closed."""
        return ((*key, 1 if one.circuit.probing else 2) for key, one in self._broken.items())

    def lines(self) -> Iterator[tuple[str, str, int]]:
        """Return (iss, client_id, deliveries that wait in memory) for each client that has any."""
        return ((*key, one.waiting) for key, one in self._busy.items() if one.waiting)

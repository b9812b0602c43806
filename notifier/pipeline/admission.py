"""Decides whether a delivery may be attempted now, waits in memory for a slot of its client's, or is put off.

Pure: the clock is an argument, and nothing here waits. What keeps one client from hurting another:

- a client's cap adapts (see `standing`). All suspects together hold at most a quarter of the window; with those not
  proven yet half of it, or three quarters for fresh events: the rest belongs to clients known to be well, however many
  others hang;
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

from notifier.domain.client import Client
from notifier.domain.message import Lane
from notifier.domain.outcome import Cause
from notifier.pipeline.standing import Mark, Standing, Ticket, Turn

SUSPECTS_SHARE = 0.25  # of the window
DOUBTFUL_SHARE = {Lane.EVENTS: 0.75, Lane.RETRIES: 0.5, Lane.BULK: 0.5}  # suspects and those not proven yet
FARTHEST = 900.0  # seconds: no reservation lies further ahead
EARLY = 1.0  # seconds before its reservation that a delivery counts as on time
KEPT = 600.0  # seconds that a client not heard of is remembered

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Go:
    """Attempt it now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It waits in memory; `ended` hands it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Put it off until `due`, in seconds of the same clock."""

    due: float
    cause: Cause
    rounding: Literal["down", "up"] = "down"


class Admission(Generic[Ticket]):
    """See the module. `workers` tells over how many workers a client's limits are shared out.

    `turned` is told when a client's circuit opens or closes.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        slot_wait: float,
        workers: Callable[[], int] = lambda: 1,
        turned: Callable[[Client, Turn], None] = lambda _client, _turn: None,
    ) -> None:
        self._window = max_in_flight
        self._slot_wait = slot_wait
        self._workers = workers
        self._turned = turned
        self._known: OrderedDict[Key, Standing[Ticket]] = OrderedDict()  # the one least lately heard of first
        self._busy: dict[Key, Standing[Ticket]] = {}  # those with deliveries in memory
        self._ready: OrderedDict[Key, None] = OrderedDict()  # those who wait and might begin
        self._broken: dict[Key, Standing[Ticket]] = {}  # those whose circuit is not closed
        self._in_flight = 0
        self._suspects = 0  # attempts in flight at suspects
        self._unproven = 0  # and at other clients that never answered
        self.waiting = 0

    # ── asking ──

    def ask(
        self, client: Client, lane: Lane, ticket: Ticket, now: float, reserved: float | None = None
    ) -> Go | Wait | Later:
        """May this delivery be attempted? `reserved` is when it was told to come, if it was put off before."""
        one = self._standing(client, now)
        stopped = self._stopped(one, now)
        if stopped is not None:
            return self._later(one, *stopped, now, reserved)
        if not self._may_wait(one, now, reserved) and (one.waiting or not self._may_start(one, lane)):
            return self._later(one, now + one.watch, Cause.SLOT, now, reserved)
        if not one.take_token(now):
            return self._later(one, one.token_at, Cause.RATE, now, reserved)
        if not one.waiting and self._may_start(one, lane):
            self._begin(one, ticket, now)
            return Go()
        one.push(lane, ticket)
        self.waiting += 1
        self._busy[client.key] = one
        self._ready[client.key] = None
        return Wait()

    def _standing(self, client: Client, now: float) -> Standing[Ticket]:
        workers = max(1, self._workers())
        limit = max(1, client.max_concurrent // workers)
        step = 0.0 if client.per_second is None else workers / client.per_second
        one = self._known.get(client.key)
        if one is None:
            one = self._known[client.key] = Standing(client=client, limit=limit, step=step, heard=now)
        one.client, one.limit, one.step, one.heard = client, limit, step, now
        one.cap = min(one.cap, limit)
        self._known.move_to_end(client.key)
        if one.hangs(now):
            self._doubt(one)
        return one

    def _stopped(self, one: Standing[Ticket], now: float) -> tuple[float, Cause] | None:
        """Until when the client is to be left alone, and why."""
        if now < one.paused_until:
            return one.paused_until, Cause.RETRY_AFTER
        if one.circuit.blocks(now):
            return max(now + one.watch if one.circuit.probing else now, one.circuit.open_until or now), Cause.CIRCUIT
        return None

    def _may_wait(self, one: Standing[Ticket], now: float, reserved: float | None) -> bool:
        """Whether it may wait in memory: a client in good standing, for a short time, and not before its turn.

        Nothing is known of the pace of a client that never answered: a flood for it may wait as long as there is room,
        and is put off if it hangs.
        """
        if one.suspect or (reserved is not None and reserved - now > EARLY):
            return False
        if not one.proven:
            return bool(one.running)
        return (one.waiting + 1) * one.pace <= self._slot_wait

    def _may_start(self, one: Standing[Ticket], lane: Lane) -> bool:
        """Whether the client has a slot free, and the window one for it."""
        if len(one.running) >= one.cap or self._in_flight >= self._window:
            return False
        if one.proven and not one.suspect:
            return True
        if one.suspect and self._suspects >= max(1.0, self._window * SUSPECTS_SHARE):
            return False
        return self._suspects + self._unproven < max(1.0, self._window * DOUBTFUL_SHARE[lane])

    def _later(
        self, one: Standing[Ticket], since: float, cause: Cause, now: float, reserved: float | None = None
    ) -> Later:
        """A reservation after `since`; or the one it has, where that still lies ahead."""
        if reserved is not None and reserved - max(now, since) > EARLY:
            return Later(due=reserved, cause=cause)
        one.reserved = min(max(one.reserved, since) + one.pace, max(since, now) + FARTHEST)
        return Later(due=one.reserved, cause=cause)

    # ── beginning and ending ──

    def _begin(self, one: Standing[Ticket], ticket: Ticket, now: float) -> None:
        one.circuit.begin()
        one.running[id(ticket)] = now
        self._busy[one.client.key] = one
        self._in_flight += 1
        self._regroup(one, +1)

    def _regroup(self, one: Standing[Ticket], change: int) -> None:
        if one.suspect:
            self._suspects += change
        elif not one.proven:
            self._unproven += change

    def _doubt(self, one: Standing[Ticket]) -> None:
        self._regroup(one, -len(one.running))
        one.doubt()
        self._regroup(one, len(one.running))

    def ended(self, client: Client, ticket: Ticket, mark: Mark, now: float) -> list[Ticket]:
        """An attempt ended so. Returns those who waited for it and begin now."""
        one = self._known[client.key]
        self._regroup(one, -len(one.running))
        seconds = now - one.running.pop(id(ticket))
        turn = one.learn(mark, seconds, now)
        self._regroup(one, len(one.running))
        self._in_flight -= 1
        one.heard = now
        self._known.move_to_end(client.key)
        if turn is not None:
            self._turned(one.client, turn)
        if one.circuit.open_until is None:
            self._broken.pop(client.key, None)
        else:
            self._broken[client.key] = one
        if one.waiting:
            self._ready[client.key] = None
        elif not one.running:
            del self._busy[client.key]
        return self._hand_out(now)

    def _hand_out(self, now: float) -> list[Ticket]:
        """Slots that are free go to those who wait, client after client."""
        begun: list[Ticket] = []
        while self._ready and self._in_flight < self._window:
            key, _ = self._ready.popitem(last=False)
            one = self._known[key]
            while one.waiting and self._may_start(one, one.next_lane) and self._stopped(one, now) is None:
                self.waiting -= 1
                begun.append(ticket := one.pop())
                self._begin(one, ticket, now)
            if one.waiting and len(one.running) < one.cap and self._in_flight >= self._window:
                self._ready[key] = None
        return begun

    def pause(self, client: Client, until: float) -> None:
        """The client asked to be left alone until then (`Retry-After`)."""
        one = self._known.get(client.key)
        if one is not None:
            one.paused_until = max(one.paused_until, until)

    # ── those who can wait no more ──

    def put_off(self, now: float) -> Iterator[tuple[Ticket, Later]]:
        """Those who wait at a client that is suspect, stopped or hanging by now. To be called again and again."""
        for key, one in list(self._busy.items()):
            if one.hangs(now):
                self._doubt(one)
            stopped = self._stopped(one, now)
            stranded = not one.running and key not in self._ready
            if one.suspect or stranded or stopped is not None:
                since, cause = stopped or (now + one.watch, Cause.SLOT)
                while one.waiting:
                    self.waiting -= 1
                    yield one.pop(), self._later(one, since, cause, now)
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

    # ── what is remembered ──

    def _forget(self, now: float) -> None:
        """Let go of clients not heard of lately; of one in trouble when it could have been left alone no longer."""
        while self._known:
            key, one = next(iter(self._known.items()))
            if now - one.heard < KEPT:
                return
            if one.idle and (key not in self._broken or now - one.heard > FARTHEST + KEPT):
                del self._known[key]
                self._broken.pop(key, None)
            elif one.idle:
                return  # those behind it wait a little longer; no more than FARTHEST
            else:
                one.heard = now
                self._known.move_to_end(key)

    def circuits(self) -> Iterator[tuple[str, str, int]]:
        """(iss, client_id, 1 half-open | 2 open) of those not closed."""
        return ((*key, 1 if one.circuit.probing else 2) for key, one in self._broken.items())

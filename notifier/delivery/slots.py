"""Counts the slots: those of the window, and those beside it for slow clients and for tries. Pure.

- `size` attempts may run in the window. A lane may hold all of them but a tenth for each other lane, so that a fresh
  logout finds a free slot at once, however much bulk there is.
- Attempts at slow and silent clients have slots of their own, a quarter of the window's size. However many clients
  hang, the window is free.
- Tries of clients that are down have slots of their own, too: fewer than the retries that a worker may hold, so that
  the retry of a client that is well finds its way past any number of tries that hang.
"""

from notifier.delivery.circuit import State
from notifier.delivery.known_client import KnownClient, Side, TicketT
from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane

SLOW_SHARE = 0.25  # slots for slow and silent clients, beside the window: a share of its size
PROBES = PREFETCH[Lane.RETRIES] * 5 // 8  # slots for tries
TRIED = 4  # times the window's size: attempts at clients that are not up
KEPT_FREE = 10  # a tenth of the window is kept free for each other lane


class Slots:
    """Counts the attempts that run, by side and lane."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._most_of_lane = most_of_lane(size)
        self._slots = {Side.QUICK: size, Side.SLOW: max(1, int(size * SLOW_SHARE)), Side.PROBE: PROBES}
        self._used = dict.fromkeys(Side, 0)
        self._trying = 0  # attempts at clients that are not up
        self._in_flight = dict.fromkeys(Lane, 0)  # of the window

    @property
    def hanging(self) -> int:
        """How many attempts run at slow clients and at those that are down. They do not count as memory."""
        return self._used[Side.SLOW] + self._used[Side.PROBE]

    @property
    def many_probes_free(self) -> bool:
        """True if more than half of the slots for tries are free."""
        return 2 * self._used[Side.PROBE] < self._slots[Side.PROBE]

    def has_slot(self, lane: Lane) -> bool:
        """True if a slot of the window is free for the lane."""
        return self._in_flight[lane] < self._most_of_lane and self._used[Side.QUICK] < self._size

    def any_free(self, side: Side) -> bool:
        """True if a slot of this side is free."""
        return self._slots[side] > self._used[side]

    def free(self, known: KnownClient[TicketT], lane: Lane) -> int:
        """Return how many slots are free for the client."""
        state = known.circuit.state  # by itself: each property costs a call, and this is asked for each delivery
        side = Side.PROBE if state is State.OPEN else known.side
        free = self._slots[side] - self._used[side]
        if side is Side.QUICK:
            free = min(free, self._most_of_lane - self._in_flight[lane])
        return free if state is State.CLOSED else min(free, TRIED * self._size - self._trying)

    def count(self, known: KnownClient[TicketT], lane: Lane, side: Side, change: int) -> None:
        """Note that an attempt at the client began (+1) or ended (-1)."""
        self._used[side] += change
        if known.circuit.state is not State.CLOSED:
            self._trying += change
        if side is Side.QUICK:
            self._in_flight[lane] += change

    def turn(self, known: KnownClient[TicketT], *, was_up: bool) -> None:
        """Note that what runs at the client runs at one that is up now, or is not up any more."""
        if known.up is not was_up:
            self._trying += -len(known.running) if known.up else len(known.running)

    def place(self, known: KnownClient[TicketT], now: float) -> None:
        """Count what runs at the client on the side where it belongs by now. A try stays what it is."""
        side = known.side_at(now)
        if side is not known.side:
            for lane, before in known.move_to(side):
                self.count(known, lane, before, -1)
                self.count(known, lane, side, +1)


def most_of_lane(size: int) -> int:
    """Return how many one lane may hold. A window under ten is too small to divide."""
    return size - size // KEPT_FREE * (len(Lane) - 1)

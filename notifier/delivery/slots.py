"""Counts the slots that the clients of a worker share, and protects the clients from each other. Pure.

- `size` attempts may run in the window. A lane may use all slots of the window but a tenth for each other lane, so that
  a fresh logout finds a free slot at once, however much bulk is pending.
- A client with a closed circuit may take as many slots as stay free, up to its limit. So one client alone takes half of
  the slots, the next a quarter, and another client always finds one.
- Attempts at slow and silent clients use separate slots, a quarter of the window's size. However many clients hang, the
  window stays free.
- Probes use separate slots, too: fewer than the retries that a worker may hold, so that the retry of a client with a
  closed circuit is not delayed by probes that hang. Slow clients leave a quarter of them to others.
- An untried client starts only while fewer than four windows of attempts, and a quarter of the open files, hang in
  slots for slow clients. If that or the slots for probes refuse a client, attempts that hang for over 5 s end early
  (`Scheduler.attempts_to_end`), and so do what clients with closed circuits use beyond the limit, and attempts whose
  large messages use up the prefetch of events.
- A delivery waits in memory only if its slot is expected within `SLOT_WAIT`, or within less as memory fills. Otherwise
  it waits in a queue (`deferrals.py`).

Two clocks are kept apart. All decisions use a monotonic clock, so that a jump of the wall clock opens no circuit and
starts no delivery. Messages and operators get moments of the wall clock, since other workers read them.
"""

import math
from collections.abc import Callable, Mapping
from enum import Enum

from notifier.delivery.ports import Peers, Tools
from notifier.model.defaults import PREFETCH, SLOT_WAIT
from notifier.model.message import Lane
from notifier.model.shared_resources import shared_bound

ASSUMED_WORKERS = 1024  # while their number is unknown, in the 2 s after a start: a client's share is the smallest
SLOW_SHARE = shared_bound(0.25)  # slots for slow and silent clients, beside the window: a share of its size
MAX_HANGING_WINDOWS = shared_bound(4)  # × `size` attempts may hang before an untried client must wait …
MAX_HANGING_FILES = shared_bound(0.25)  # … or this share of the open files, if that is less: each has a connection
LANE_RESERVES = 10  # a tenth of the window is kept free for each other lane
MIN_WAIT_SHARE = 0.1  # the share of `SLOT_WAIT` that remains if memory is full
PROBE_SLOTS = shared_bound(PREFETCH[Lane.RETRIES] * 5 // 8)  # slots for probes
PROBE_RESERVE = PROBE_SLOTS // 4  # of them, which slow clients leave free: the probes of others end soon
MAX_YIELDING_SECONDS = 0.1  # if deliveries yield for longer, the processor has no time for probes by fresh ones
MAX_ENDED_PER_TICK = 64  # attempts of each kind that end early
MAX_STARTED_SHARE = 0.9  # of the prefetch of events, from which very many attempts that hang end early


class SlotPool(Enum):
    """The three pools of slots: the window (QUICK), the slots for slow clients, and the slots for probes."""

    QUICK = "quick"
    SLOW = "slow"
    PROBE = "probe"

    __hash__ = object.__hash__  # the hash of Enum is a slow Python function


class Slots:
    """The running attempts by pool and lane, the limit of deliveries in memory, and the offset of the clocks.

    `size`: the number of slots of the window. At most twice as many deliveries are in memory, beside attempts at slow
    clients and probes. `in_memory` counts all deliveries in memory by lane. `started_share` returns which share of the
    prefetch of events is used by messages that are started and not acked. `yielding_seconds` returns for how long the
    first delivery has yielded to other clients, for lack of processor time. `max_open_files`: the limit of the process.
    """

    def __init__(
        self,
        tools: Tools,
        peers: Peers,
        size: int,
        in_memory: Mapping[Lane, int],
        started_share: Callable[[], float],
        yielding_seconds: Callable[[], float],
        max_open_files: float = math.inf,
    ) -> None:
        self._clock = tools.clock
        self._monotonic = tools.monotonic
        self._peers = peers
        self._size = size
        self._in_memory = in_memory
        self._started_share = started_share
        self.yielding_seconds = yielding_seconds
        self._pool_sizes = {
            SlotPool.QUICK: size,
            SlotPool.SLOW: max(1, int(size * SLOW_SHARE)),
            SlotPool.PROBE: PROBE_SLOTS,
        }
        self._lane_limit, self._lane_memory_limit = lane_limit(size), lane_limit(2 * size)
        self._used_slots = dict.fromkeys(SlotPool, 0)
        self._window_slots_of = dict.fromkeys(Lane, 0)  # used slots of the window
        self._attempts_outside = 0  # attempts at slow clients and probes, which do not count as memory
        self._max_hanging = int(min(MAX_HANGING_WINDOWS * size, MAX_HANGING_FILES * max_open_files))
        self._refused = set[SlotPool]()

    def has_spare_probe_slots(self) -> bool:
        """Return True if more than half of the slots for probes are free, and the processor has time for probes."""
        return 2 * self._used_slots[SlotPool.PROBE] < PROBE_SLOTS and self.yielding_seconds() < MAX_YIELDING_SECONDS

    def worker_count(self, assumed: int = ASSUMED_WORKERS) -> int:
        """Return the number of workers, including this one; the assumed number while it is unknown."""
        return self._peers.count() or assumed

    def wall_offset(self) -> float:
        """Return the seconds to add to a moment of the monotonic clock to get the wall clock's moment."""
        return self._clock() - self._monotonic()

    def has_room(self, lane: Lane) -> bool:
        """Return True if another delivery of the lane may start."""
        has_slot = self._window_slots_of[lane] < self._lane_limit and self._used_slots[SlotPool.QUICK] < self._size
        return has_slot and self.has_memory(lane)

    def has_slot(self, lane: Lane) -> bool:
        """Return True if the window has a free slot for another delivery of the lane."""
        return self._window_slots_of[lane] < self._lane_limit and self._used_slots[SlotPool.QUICK] < self._size

    def has_memory(self, lane: Lane) -> bool:
        """Return True if there is memory for another delivery of the lane."""
        count, max_count = self._in_memory[lane], self._lane_memory_limit + self._attempts_outside
        return count < max_count and sum(self._in_memory.values()) - self._attempts_outside < 2 * self._size

    def used_share(self) -> float:
        """Return the used share of memory, or of the prefetch of events if that is more."""
        return max((sum(self._in_memory.values()) - self._attempts_outside) / (2 * self._size), self._started_share())

    def max_wait_seconds(self) -> float:
        """Return for how many seconds a delivery may wait in memory: `SLOT_WAIT`, less as memory fills."""
        return SLOT_WAIT * max(MIN_WAIT_SHARE, 1 - self.used_share())

    def has_free_slot(self, pool: SlotPool) -> bool:
        """Return True if a slot of this pool is free."""
        return self._pool_sizes[pool] > self._used_slots[pool]

    def free_slots(self, pool: SlotPool, lane: Lane, *, circuit_closed: bool) -> int:
        """Return how many slots of this pool a client may take. `circuit_closed`: the client's circuit is closed."""
        count = self._pool_sizes[pool] - self._used_slots[pool]
        if pool is SlotPool.QUICK:
            count = min(count, self._lane_limit - self._window_slots_of[lane])
        if circuit_closed or pool is SlotPool.PROBE:
            return count
        return min(count, self._max_hanging - self._used_slots[SlotPool.SLOW])  # an untried client may hang

    def on_refused(self, pool: SlotPool) -> None:
        """Record that a client whose circuit is not closed found no slot of this pool."""
        self._refused.add(pool)

    def take_needs(self) -> tuple[int, int]:
        """Return how many probes, and how many other attempts that hang, should end.

        If clients were refused, that leaves MAX_ENDED_PER_TICK slots free for the next. As many should end while large
        messages, which are not set aside, use up the prefetch: no event of others arrives then. Forgets the refusals.
        """
        probes = MAX_ENDED_PER_TICK if SlotPool.PROBE in self._refused else 0
        excess = self._used_slots[SlotPool.SLOW] - self._max_hanging
        if self._refused - {SlotPool.PROBE}:
            excess += MAX_ENDED_PER_TICK
        if self._used_slots[SlotPool.SLOW] > PREFETCH[Lane.EVENTS] // 2 and self._started_share() > MAX_STARTED_SHARE:
            excess = MAX_ENDED_PER_TICK
        others = max(0, min(excess, MAX_ENDED_PER_TICK))
        self._refused.clear()
        return probes, others

    def count_attempt(self, lane: Lane, pool: SlotPool, change: int) -> None:
        """Count an attempt that began (`change` +1) or ended (-1) in a slot of this pool."""
        self._used_slots[pool] += change
        if pool is SlotPool.QUICK:
            self._window_slots_of[lane] += change
        else:
            self._attempts_outside += change


def lane_limit(size: int) -> int:
    """Return how many of `size` slots one lane may use: all but a tenth for each other lane. Below ten, all."""
    return size - size // LANE_RESERVES * (len(Lane) - 1)

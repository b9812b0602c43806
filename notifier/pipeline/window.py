"""Counts what runs and what is in memory, and says where there is room for one more.

- `size` attempts may run, and twice as many deliveries may be in memory (running, or waiting for their client).
- A lane may hold no more than the window less a tenth for each other lane, so that a fresh logout finds a free slot at
  once, however much bulk there is.
- Suspects have slots of their own, a quarter of the window's size: however many of them hang, the window is free.
- Clients not proven yet hold at most half of the window, or three quarters of it for fresh events.
"""

from collections.abc import Mapping

from notifier.domain.message import Lane
from notifier.pipeline.client_standing import Group

SUSPECTS_SHARE = 0.25
UNPROVEN_SHARE = {Lane.EVENTS: 0.75, Lane.RETRIES: 0.5, Lane.BULK: 0.5}
KEPT_FREE = 10  # a tenth is kept free for each other lane


class Window:
    """Counts the attempts that run, by group of clients and by lane. `in_flight` is without those at suspects."""

    def __init__(self, size: int) -> None:
        self.in_flight = dict.fromkeys(Lane, 0)
        self.most_for_one = max(1, int(size * SUSPECTS_SHARE))
        self._size = size
        self._most_in_memory = 2 * size
        self._most_of_lane = _most_of_lane(size)
        self._most_of_lane_in_memory = _most_of_lane(2 * size)
        self._running = dict.fromkeys(Group, 0)
        self._in_window = 0  # the sum of `in_flight`, which is asked for several times a delivery

    def full(self) -> bool:
        """True if an attempt may begin only at a suspect."""
        return self._in_window >= self._size

    def room(self, group: Group, lane: Lane) -> bool:
        """True if one more attempt may begin at a client of the group."""
        if group is Group.SUSPECT:
            return self._running[group] < max(1.0, self._size * SUSPECTS_SHARE)
        if group is Group.WELL:
            return not self.full()
        return not self.full() and self._running[group] < max(1.0, self._size * UNPROVEN_SHARE[lane])

    def has_slot(self, lane: Lane) -> bool:
        """True if a slot is free for the lane."""
        return self.in_flight[lane] < self._most_of_lane and not self.full()

    def has_memory(self, lane: Lane, in_memory: Mapping[Lane, int]) -> bool:
        """True if one more delivery of the lane may exist; `in_memory` counts those that do, by lane."""
        return in_memory[lane] < self._most_of_lane_in_memory and sum(in_memory.values()) < self._most_in_memory

    def count(self, group: Group, lane: Lane, change: int) -> None:
        """Note that an attempt began (+1) or ended (-1)."""
        self._running[group] += change
        if group is not Group.SUSPECT:
            self.in_flight[lane] += change
            self._in_window += change


def _most_of_lane(size: int) -> int:
    """Return how many one lane may hold. A window under ten is too small to divide."""
    return size - size // KEPT_FREE * (len(Lane) - 1)

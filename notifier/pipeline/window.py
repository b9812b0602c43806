"""The window: how many attempts run, by group of clients and by lane, and which group still has room in it.

Suspects get slots of their own, a quarter of the window's size, so that however many hang at once, the window is free.
Those not proven yet hold at most half of it, or three quarters for fresh events.
"""

from notifier.domain.message import Lane
from notifier.pipeline.standing import Group

SUSPECTS_SHARE = 0.25
UNPROVEN_SHARE = {Lane.EVENTS: 0.75, Lane.RETRIES: 0.5, Lane.BULK: 0.5}


class Window:
    """Counts the attempts that run, by group of clients and by lane.

    `size` attempts may run, and those at suspects besides. `in_flight` is without the latter.
    """

    def __init__(self, size: int) -> None:
        self.in_flight = dict.fromkeys(Lane, 0)
        self.most_for_one = max(1, int(size * SUSPECTS_SHARE))
        self._size = size
        self._running = dict.fromkeys(Group, 0)

    def full(self) -> bool:
        """Whether none may begin but at a suspect."""
        return sum(self.in_flight.values()) >= self._size

    def room(self, group: Group, lane: Lane) -> bool:
        """Whether one more of the group may begin."""
        if group is Group.SUSPECT:
            return self._running[group] < max(1.0, self._size * SUSPECTS_SHARE)
        if group is Group.WELL:
            return not self.full()
        return not self.full() and self._running[group] < max(1.0, self._size * UNPROVEN_SHARE[lane])

    def count(self, group: Group, lane: Lane, change: int) -> None:
        """One began (+1) or ended (-1)."""
        self._running[group] += change
        if group is not Group.SUSPECT:
            self.in_flight[lane] += change

"""Which lane may begin its next delivery: fresh events before retries before bulk, and none of them starved.

Pure: counts in, a lane out. Two rules make it fair. A lane may hold no more than the window less a tenth for each of
the other lanes, so that a fresh logout finds a free slot at once however much bulk there is. And a lane that waits
gets at least every tenth turn, so that bulk and retries move on however many fresh events there are.
"""

from collections.abc import Collection, Mapping

from notifier.domain.message import Lane

SHARE = 10  # a tenth
# What is begun, or put off, between two turns of the loop: eight fresh deliveries, or two others. Thousands that come
# due at once take a little longer for it; a fresh logout beside them waits a fraction of a millisecond at each turn.
A_TURN = 8
EFFORT = {Lane.EVENTS: 1, Lane.RETRIES: 4, Lane.BULK: 4}


class Turns:
    """Hands out the turns. `max_in_flight` attempts may run, and as many deliveries again may wait for their client."""

    def __init__(self, max_in_flight: int) -> None:
        self._most_in_flight = max_in_flight
        self._most_held = 2 * max_in_flight
        self._limit_in_flight = _limit(max_in_flight)
        self._limit_held = _limit(2 * max_in_flight)
        self._passed_over = dict.fromkeys(Lane, 0)

    def next(self, waiting: Collection[Lane], in_flight: Mapping[Lane, int], held: Mapping[Lane, int]) -> Lane | None:
        """The lane whose turn it is, of those with something waiting; None where there is no room.

        `in_flight` counts the attempts that run, `held` all deliveries that exist (running, or waiting in memory).
        """
        if sum(in_flight.values()) >= self._most_in_flight or sum(held.values()) >= self._most_held:
            return None
        if len(waiting) == 1:  # what is almost always so
            (alone,) = waiting
            self._passed_over[alone] = 0
            return alone if self._may(alone, in_flight, held) else None
        may = [lane for lane in Lane if lane in waiting and self._may(lane, in_flight, held)]
        if not may:
            return None
        chosen = next((lane for lane in may if self._passed_over[lane] >= SHARE - 1), may[0])
        for lane in may:
            self._passed_over[lane] += 1
        self._passed_over[chosen] = 0
        return chosen

    def _may(self, lane: Lane, in_flight: Mapping[Lane, int], held: Mapping[Lane, int]) -> bool:
        return in_flight[lane] < self._limit_in_flight and held[lane] < self._limit_held

    def cramped(self, lane: Lane, in_flight: Mapping[Lane, int], held: Mapping[Lane, int]) -> bool:
        """Whether it is only memory that keeps a lane from its turn: there are slots free."""
        slots = sum(in_flight.values()) < self._most_in_flight and in_flight[lane] < self._limit_in_flight
        return slots and (sum(held.values()) >= self._most_held or held[lane] >= self._limit_held)


def _limit(window: int) -> int:
    """The most that one lane may hold; a window under ten is too small to divide."""
    return window - window // SHARE * (len(Lane) - 1)

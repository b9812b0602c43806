"""Keeps what the writer's thread knows of the three lanes: their room, how far each was taken, what may wait."""

from collections.abc import Mapping
from dataclasses import dataclass

from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane, Message
from notifier.queues.sqlite.store import Store

TAKE_AT_ONCE = 128  # messages a lane and round: 16 MiB of bodies at the largest event
LanePages = Mapping[Lane, list[tuple[int, Message]]]


@dataclass(slots=True, kw_only=True)
class _Lane:
    """`hungry`: there may be messages beyond `taken_to`."""

    room: int
    taken_to: int = 0
    hungry: bool = True


class Lanes:
    """The lanes of one worker. A lane that `prefetch` leaves out gets its default."""

    def __init__(self, prefetch: Mapping[Lane, int]) -> None:
        self._lanes = {lane: _Lane(room=prefetch.get(lane, PREFETCH[lane])) for lane in Lane}

    def acked(self, lane: Lane) -> None:
        """Make room for another message."""
        self._lanes[lane].room += 1

    def look_again(self, *lanes: Lane) -> None:
        """Look for more messages in these lanes; if none is named, in all."""
        for lane in lanes or Lane:
            self._lanes[lane].hungry = True

    def takers(self) -> dict[Lane, int]:
        """How many messages each lane can take now. Lanes without room or messages are left out."""
        return {name: min(lane.room, TAKE_AT_ONCE) for name, lane in self._lanes.items() if lane.hungry and lane.room}

    def take(self, store: Store, takers: Mapping[Lane, int]) -> LanePages:
        """Read so many messages for each lane, and mark them as taken. Call `committed` after the commit."""
        pages = {lane: store.read(lane, self._lanes[lane].taken_to, limit) for lane, limit in takers.items()}
        for lane, page in pages.items():
            if page:
                store.take_to(lane, page[-1][0])
        return pages

    def committed(self, pages: LanePages, takers: Mapping[Lane, int]) -> None:
        """Remember what was taken."""
        for name, page in pages.items():
            lane = self._lanes[name]
            lane.hungry = len(page) == takers[name]
            lane.room -= len(page)
            if page:
                lane.taken_to = page[-1][0]

"""The pending events in order of time, and the limits of their number. No I/O, no threads."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from logout_notifier_publisher.lane import Lane

MAX_IN_MEMORY = 10_000
BULK_SHARE_ON_DISK = 0.9  # the rest is reserved for sign-outs
BULK_SHARE_IN_MEMORY = 0.5


class EventState(Enum):
    """The state of a pending event."""

    PREPARED = auto()  # its session may still exist
    READY = auto()  # to be published
    DEFERRED = auto()  # to be published: sent alone in rotation, because an intermediary responded in place of notifier
    REMOVED = auto()  # published, dropped or set aside


@dataclass(slots=True, eq=False, kw_only=True)
class PendingEvent:
    """A pending event. `content` is set until the event is in the file `path`.

    `name`: the name of its file, without the suffix. `stored_at`: epoch seconds.
    """

    id: str
    name: str
    lane: Lane
    stored_at: float
    size: int
    state: EventState
    content: bytes | None = None
    path: Path | None = None
    writing: bool = False
    aside_suffix: str = ""  # the new suffix of its file, if the event is set aside

    def __lt__(self, other: "PendingEvent") -> bool:
        """Compare by age."""
        return self.name < other.name


@dataclass(slots=True)
class PendingEvents:
    """All pending events. `take` removes events from a lane's queue: pass each to `requeue`, `defer` or `remove`."""

    max_events: int
    max_bytes: int
    by_name: dict[str, PendingEvent] = field(default_factory=dict)
    bytes: int = 0
    in_memory: int = 0
    bulk_in_memory: int = 0
    _queues: dict[Lane, list[PendingEvent]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    _deferred: dict[str, PendingEvent] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of all pending events."""
        return len(self.by_name)

    def has_room_on_disk(self, size: int, lane: Lane) -> bool:
        """Return whether the limits permit another file of the lane."""
        share = BULK_SHARE_ON_DISK if lane is Lane.BULK else 1.0
        on_disk = len(self.by_name) - self.in_memory
        return on_disk < share * self.max_events and self.bytes + size <= share * self.max_bytes

    def has_room_in_memory(self, lane: Lane) -> bool:
        """Return whether the limits permit another event of the lane. Each event is in memory until it is on disk."""
        bulk_fits = lane is not Lane.BULK or self.bulk_in_memory < BULK_SHARE_IN_MEMORY * MAX_IN_MEMORY
        return self.in_memory < MAX_IN_MEMORY and bulk_fits

    def add(self, event: PendingEvent) -> None:
        """Add an event, and queue it if it is ready."""
        self.by_name[event.name] = event
        if event.path is None:
            self._count_in_memory(event, 1)
        else:
            self.bytes += event.size
        if event.state is EventState.READY:
            heapq.heappush(self._queues[event.lane], event)

    def on_written(self, event: PendingEvent, path: Path) -> None:
        """Record that the event was written to this file."""
        event.path, event.content = path, None
        if event.state is not EventState.REMOVED:
            self._count_in_memory(event, -1)
            self.bytes += event.size

    def _count_in_memory(self, event: PendingEvent, change: int) -> None:
        self.in_memory += change
        if event.lane is Lane.BULK:
            self.bulk_in_memory += change

    def enqueue_as_ready(self, event: PendingEvent) -> None:
        """Queue a prepared or deferred event."""
        event.state = EventState.READY
        heapq.heappush(self._queues[event.lane], event)

    def take(self, lane: Lane, max_count: int) -> list[PendingEvent]:
        """Remove and return the oldest ready events of the lane."""
        queue, found = self._queues[lane], list[PendingEvent]()
        while queue and len(found) < max_count:
            event = heapq.heappop(queue)
            if event.state is EventState.READY:
                found.append(event)
        return found

    def has_ready(self, lane: Lane) -> bool:
        """Return whether events of the lane are queued. Events in flight and deferred events do not count."""
        return any(event.state is EventState.READY for event in self._queues[lane])

    def requeue(self, events: Iterable[PendingEvent]) -> None:
        """Return the taken events to their queues, unless they were removed or deferred."""
        for event in events:
            if event.state is EventState.READY:
                heapq.heappush(self._queues[event.lane], event)

    def defer(self, event: PendingEvent) -> None:
        """Keep a ready event out of its lane's queue until `restore_deferred`."""
        event.state = EventState.DEFERRED
        self._deferred[event.name] = event

    def list_deferred(self, lane: Lane) -> list[PendingEvent]:
        """Return the deferred events of the lane, oldest first."""
        return sorted(event for event in self._deferred.values() if event.lane is lane)

    def restore_deferred(self, lane: Lane) -> None:
        """Queue the deferred events of the lane again."""
        for event in self.list_deferred(lane):
            del self._deferred[event.name]
            self.enqueue_as_ready(event)

    def remove(self, event: PendingEvent) -> None:
        """Forget the event. The caller deletes its file."""
        if event.state is EventState.REMOVED:
            return
        event.state = EventState.REMOVED
        del self.by_name[event.name]
        self._deferred.pop(event.name, None)
        if event.path is None:
            self._count_in_memory(event, -1)
        else:
            self.bytes -= event.size

    def oldest_stored_at(self) -> float | None:
        """Return the time of the oldest event, in epoch seconds."""
        return min((event.stored_at for event in self.by_name.values()), default=None)

    def list_unwritten(self) -> list[PendingEvent]:
        """Return the events that are neither in a file nor being written, oldest first."""
        return sorted(event for event in self.by_name.values() if event.path is None and not event.writing)

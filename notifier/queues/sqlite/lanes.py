"""Holds the writer thread's state of the three lanes and of parked rows: which are in hand, and which to wake.

- A parked row is a delayed row with its bucket in `parked`. It leaves the bucket when it is fetched and acked, when it
  is due, or when a worker starts.
- A fetch writes nothing. A row in hand is neither fetched again nor due until the commit that deletes it. When a
  process dies, its rows in hand are still parked.
- A new worker has no state of its clients: it wakes the rows parked before its start as retries, oldest first.
- A queue that closes counts its rows in hand as returned; a death does not. But the next worker gets a row that kills
  its worker as a retry, and then each further death counts as for any retry.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane, Message
from notifier.queues.sqlite.rows import RowTag
from notifier.queues.sqlite.store import MAX_DUE_PER_ROUND, Store

MAX_TAKEN_PER_ROUND = 128  # messages per lane and round: 16 MiB of the largest bodies
LanePages = Mapping[Lane, list[tuple[int, Message]]]


@dataclass(slots=True, kw_only=True)
class _Lane:
    """`room`: messages that it can take. `hungry`: there may be messages beyond `taken_to`."""

    room: int
    taken_to: int = 0
    hungry: bool = True


class Lanes:
    """The lanes of one worker. A lane missing from `prefetch` gets its default."""

    def __init__(self, prefetch: Mapping[Lane, int]) -> None:
        self._lanes = {lane: _Lane(room=prefetch.get(lane, PREFETCH[lane])) for lane in Lane}

    def on_acked(self, lane: Lane) -> None:
        """Make room for another message."""
        self._lanes[lane].room += 1

    def mark_hungry(self, *lanes: Lane) -> None:
        """Check these lanes for more messages; without arguments, all lanes."""
        for lane in lanes or Lane:
            self._lanes[lane].hungry = True

    def find_takers(self) -> dict[Lane, int]:
        """Return the number of messages that each lane can take now, without full or empty lanes."""
        return {
            name: min(lane.room, MAX_TAKEN_PER_ROUND) for name, lane in self._lanes.items() if lane.hungry and lane.room
        }

    def take(self, store: Store, find_takers: Mapping[Lane, int]) -> LanePages:
        """Read this number of messages per lane, and mark them as taken. Call `on_committed` after the commit."""
        pages = {lane: store.read(lane, self._lanes[lane].taken_to, limit) for lane, limit in find_takers.items()}
        for lane, page in pages.items():
            if page:
                store.take_to(lane, page[-1][0])
        return pages

    def on_committed(self, pages: LanePages, find_takers: Mapping[Lane, int]) -> None:
        """Update room and position after the commit of `pages`."""
        for name, page in pages.items():
            lane = self._lanes[name]
            lane.hungry = len(page) == find_takers[name]
            lane.room -= len(page)
            if page:
                lane.taken_to = page[-1][0]


class ParkedRows:
    """The parked rows of an open file. Call `on_committed` after each successful transaction."""

    def __init__(self) -> None:
        self._in_hand: dict[str, set[int]] = {}
        self._acked: list[tuple[str, int]] = []
        self._inherited = array("q")  # ids, 8 bytes each; there may be a million
        self._woken = self._waking = 0  # number of woken ids, now and after this commit

    @property
    def in_hand(self) -> set[int]:
        """Return the ids of the rows in hand."""
        return set().union(*self._in_hand.values())

    @property
    def has_inherited(self) -> bool:
        """Return True while rows from before the start are still parked."""
        return bool(self._inherited)

    def start(self, store: Store) -> None:
        """Schedule the waking of all rows that are parked when a worker starts."""
        self._inherited = array("q", store.read_parked_ids())

    def wake_inherited(self, store: Store) -> None:
        """Move the next rows that were parked before the start to `retries`."""
        self._waking = min(self._woken + MAX_DUE_PER_ROUND, len(self._inherited))
        store.wake(set(self._inherited[self._woken : self._waking]) - self.in_hand)

    def fetch(self, store: Store, bucket: str, most: int, fetched: list[Message]) -> None:
        """Take the oldest rows of the bucket that are not in hand. Raises QueueUnavailable."""
        fetched += store.read_parked(bucket, self._in_hand.get(bucket, ()), most)
        if fetched:
            self._in_hand.setdefault(bucket, set()).update(_ids(fetched))

    def put_back(self, bucket: str, fetched: Iterable[Message]) -> None:
        """Release rows that did not reach their caller, so that they can be fetched again."""
        self._release(bucket, _ids(fetched))

    def on_acked(self, bucket: str, id_: int) -> None:
        """Record that the next commit deletes a row in hand."""
        self._acked.append((bucket, id_))

    def on_committed(self) -> None:
        """Forget the rows that the commit has deleted or woken."""
        for bucket, id_ in self._acked:
            self._release(bucket, [id_])
        self._acked.clear()
        self._woken = self._waking
        if self._woken == len(self._inherited):
            self._inherited, self._woken, self._waking = array("q"), 0, 0

    def count(self, store: Store, buckets: Collection[str] | None) -> Mapping[str, int]:
        """Return the number of rows per bucket that are not in hand. Raises QueueUnavailable."""
        counted = store.count_parked(buckets)
        waiting = {bucket: rows - len(self._in_hand.get(bucket, ())) for bucket, rows in counted.items()}
        return {bucket: rows for bucket, rows in waiting.items() if rows}

    def _release(self, bucket: str, ids: Iterable[int]) -> None:
        if (in_hand := self._in_hand.get(bucket)) is not None:
            in_hand.difference_update(ids)
            if not in_hand:
                del self._in_hand[bucket]


def _ids(messages: Iterable[Message]) -> list[int]:
    return [message.tag.id for message in messages if isinstance(message.tag, RowTag)]

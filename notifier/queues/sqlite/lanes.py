"""Holds the writer thread's state of the three lanes and of the parked rows.

- A *parked row* is a delayed row with a bucket in its column `parked`. It leaves the bucket when it is fetched and
  acked, when it is due, or when a worker starts.
- A fetched row is *in hand* until the commit that deletes it: it is neither fetched again nor due. A fetch writes
  nothing, so if the process dies, its rows in hand are still parked.
- A worker that starts has no state of its clients. So it *wakes* all parked rows: it moves them to `retries`.
- A queue that closes increments the `delivery_count` of its rows in hand. A process that dies cannot, but the next
  worker receives these rows as retries, whose returns are counted.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane, Message
from notifier.model.shared_resources import shared_bound
from notifier.queues.sqlite.rows import RowTag
from notifier.queues.sqlite.store import MAX_DUE_PER_ROUND, Store

MAX_TAKEN_PER_ROUND = shared_bound(128)  # messages per lane and round: 16 MiB of the largest bodies
LanePages = Mapping[Lane, list[tuple[int, Message]]]


@dataclass(slots=True, kw_only=True)
class _Lane:
    """The state of one lane. `free`: how many more messages it may take. `may_have_more`: beyond the id `taken_to`."""

    free: int
    taken_to: int = 0
    may_have_more: bool = True


class Lanes:
    """The lanes of one worker. A lane missing from `prefetch` gets its default."""

    def __init__(self, prefetch: Mapping[Lane, int]) -> None:
        self._set_aside = set[int]()  # the ids of messages in whose place the lane may have taken another
        self._lanes = {lane: _Lane(free=prefetch.get(lane, PREFETCH[lane])) for lane in Lane}

    def on_set_aside(self, lane: Lane, id_: int) -> None:
        """Record that the lane may take another message in place of this one, which will be acked late."""
        self._set_aside.add(id_)
        self._lanes[lane].free += 1

    def on_acked(self, lane: Lane, id_: int) -> None:
        """Record that the lane may take another message, unless the acked one was set aside."""
        if id_ in self._set_aside:
            self._set_aside.remove(id_)
        else:
            self._lanes[lane].free += 1

    def on_inserted(self, *lanes: Lane) -> None:
        """Record that these lanes, or without arguments all lanes, may have new messages."""
        for lane in lanes or Lane:
            self._lanes[lane].may_have_more = True

    def count_takeable(self) -> dict[Lane, int]:
        """Return how many messages each lane may take now. Lanes that are full or have no messages are left out."""
        return {
            name: min(lane.free, MAX_TAKEN_PER_ROUND)
            for name, lane in self._lanes.items()
            if lane.may_have_more and lane.free
        }

    def take(self, store: Store, limits: Mapping[Lane, int]) -> LanePages:
        """Read the next messages per lane, up to its limit, and mark them as taken. Call `on_committed` afterwards."""
        pages = {lane: store.read(lane, self._lanes[lane].taken_to, limit) for lane, limit in limits.items()}
        for lane, page in pages.items():
            if page:
                store.take_to(lane, page[-1][0])
        return pages

    def on_committed(self, pages: LanePages, limits: Mapping[Lane, int]) -> None:
        """Update the lanes after the commit in which `take` returned `pages` for these limits."""
        for name, page in pages.items():
            lane = self._lanes[name]
            lane.may_have_more = len(page) == limits[name]
            lane.free -= len(page)
            if page:
                lane.taken_to = page[-1][0]


class ParkedRows:
    """The parked rows of an open file. Call `on_committed` after each successful transaction.

    `_inherited`: the ids of the rows that were parked when the worker started, of which `_woken_count` are woken.
    """

    def __init__(self) -> None:
        self._in_hand: dict[str, set[int]] = {}
        self._acked: list[tuple[str, int]] = []
        self._inherited = array("q")  # 8 bytes for each id, since there may be a million
        self._woken_count = self._next_woken_count = 0  # now, and after this commit

    @property
    def in_hand(self) -> set[int]:
        """The ids of the fetched rows that are not deleted yet."""
        return set().union(*self._in_hand.values())

    @property
    def has_inherited(self) -> bool:
        """True while rows that were parked before the start are not woken yet."""
        return bool(self._inherited)

    def start(self, store: Store) -> None:
        """Schedule the waking of all rows that are parked when a worker starts."""
        self._inherited = array("q", store.read_parked_ids())

    def wake_inherited(self, store: Store) -> None:
        """Move the next rows that were parked before the start to `retries`."""
        self._next_woken_count = min(self._woken_count + MAX_DUE_PER_ROUND, len(self._inherited))
        store.wake(set(self._inherited[self._woken_count : self._next_woken_count]) - self.in_hand)

    def fetch(self, store: Store, bucket: str, most: int, fetched: list[Message]) -> None:
        """Append the oldest rows of the bucket that are not in hand to `fetched`. Raises QueueUnavailable."""
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
        self._woken_count = self._next_woken_count
        if self._woken_count == len(self._inherited):
            self._inherited, self._woken_count, self._next_woken_count = array("q"), 0, 0

    def count(self, store: Store, buckets: Collection[str] | None) -> Mapping[str, int]:
        """Return the number of rows per bucket that are not in hand. Raises QueueUnavailable."""
        parked = store.count_parked(buckets)
        counts = {bucket: count - len(self._in_hand.get(bucket, ())) for bucket, count in parked.items()}
        return {bucket: count for bucket, count in counts.items() if count}

    def _release(self, bucket: str, ids: Iterable[int]) -> None:
        if (in_hand := self._in_hand.get(bucket)) is not None:
            in_hand.difference_update(ids)
            if not in_hand:
                del self._in_hand[bucket]


def _ids(messages: Iterable[Message]) -> list[int]:
    return [message.tag.id for message in messages if isinstance(message.tag, RowTag)]

"""Decides which entries of the spool are written, which are published next, and which are refused for good. Pure.

Each sender (a relay, an upstream or a source) has its share of the folder. The entries of a sender are published in the
order of their receipt, the senders by turns. Entries in files of other living workers are only counted and recognised.

| event | method |
|---|---|
| sign-outs are to be written | `admit` |
| an entry was written | `add` |
| lines of a file were read, or a file is gone | `on_look` |
| an entry is published, or became a dead letter | `on_done` |
| a queue took a message of any kind | `on_taken` |
| the queue of an entry's lane did not take it | `on_refused` |

A *moment* is a time of a clock that never jumps. Times in files are of the system's clock, which may have been set back
since, also by years: they are converted to moments when they are read, and those in the future count as now. So each
entry gets too old, and each published id is forgotten.

A queue refuses an entry for good if it refuses messages, rather than being full or silent, at MAX_REFUSALS attempts to
publish this one, and takes another before each. While it takes nothing, all entries stay. The entries of a lane whose
queue takes nothing wait for those of the other lane, so that its timeouts delay none of them.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TypeAlias

from notifier.features.spool.spool_entries import DoneNote, Place
from notifier.model.errors import MessageRefused, QueueError
from notifier.model.message import Lane
from notifier.model.record import record
from notifier.model.shared_resources import shared_bound

MAX_FOLDER_BYTES = shared_bound(256 * 1024 * 1024)
MIN_COUNTED_BYTES = 2048  # of an entry: so the folder has at most 131,072 entries, whose places take 50 MB of memory
RECENT_SECONDS = 600.0  # for which the ids of published entries are known
MAX_RECENT = shared_bound(MAX_FOLDER_BYTES // MIN_COUNTED_BYTES)
MAX_REFUSALS = 5
MAX_REFUSAL_PAUSE_SECONDS = 60.0
MAX_PER_SECOND = 500  # published from the files
ITEMS_PER_STEP = 500  # some milliseconds of the event loop
_NEVER = float("-inf")
_Line: TypeAlias = tuple[str, Lane]
"""Entries that are published in order: of a sender in a lane."""


@record
class FileLines:
    """What a file has, since the last look or in whole; nothing if it is gone. `is_ours`: this worker has its lock.

    `is_new_look`: the items are all of the file, and replace those of earlier looks.
    """

    file: str
    is_ours: bool = False
    is_new_look: bool = True
    items: tuple[Place | DoneNote, ...] = ()


class SpoolState:
    """The entries of a folder."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}  # all, by the id of the entry
        self._ours: dict[_Line, dict[str, float]] = {}  # the receipts of those to publish, by id, in order
        self._unsorted: set[_Line] = set()  # those whose entries are not in the order of receipt now
        self._files: dict[str, set[str]] = {}  # the ids of the entries by file
        self._bytes = Counter[str]()  # by sender
        self._recent: OrderedDict[str, tuple[float, str]] = OrderedDict()  # when it was published, and the file
        self._refusals: dict[str, tuple[int, float]] = {}  # how many count, and when the last was
        self._refused_at: dict[str, float] = {}  # when a queue last did not take an entry
        self._taken_at: dict[str, float] = {}  # when a queue last took anything
        self._turns: list[_Line] = []

    # ── questions ──

    def is_known(self, entry_id: str, moment: float) -> bool:
        """Return whether the entry is in the folder, or was published from it recently."""
        published_at, _ = self._recent.get(entry_id, (_NEVER, ""))
        return entry_id in self._places or moment - published_at < RECENT_SECONDS

    def admit(
        self, lines: Iterable[tuple[str, str, int]], sender_count: int, moment: float
    ) -> tuple[Sequence[str], Collection[str]]:
        """Return the ids of the entries to write, and of those beyond the share of their sender; known ones in neither.

        `lines`: id, sender and size. `sender_count`: how many senders share the folder.
        """
        admitted, full, used = list[str](), set[str](), Counter(self._bytes)
        for entry_id, sender, size in lines:
            counted = max(size, MIN_COUNTED_BYTES)
            if self.is_known(entry_id, moment):
                continue
            if counted > _room(used, sender, sender_count):
                full.add(entry_id)
            else:
                admitted.append(entry_id)
                used[sender] += counted
        return admitted, full

    def full_senders(self, senders: Collection[str]) -> list[str]:
        """Return those of all senders which have no room for another sign-out."""
        return [sender for sender in senders if _room(self._bytes, sender, len(senders)) < MIN_COUNTED_BYTES]

    def counts(self) -> Counter[str]:
        """Return the number of entries of each sender in the files of this worker."""
        counts = Counter[str]()
        for (sender, _), receipts in self._ours.items():
            counts[sender] += len(receipts)
        return counts

    def count(self) -> int:
        """Return the number of entries in the files of this worker."""
        return self.counts().total()

    def oldest_age(self, moment: float) -> float:
        """Return for how many seconds the oldest entry in the files of this worker has been kept; 0 without one."""
        return moment - min((next(iter(self._in_order(line).values())) for line in self._ours), default=moment)

    def age(self, place: Place, moment: float) -> float:
        """Return for how many seconds an entry in the files of this worker has been kept."""
        return moment - self._ours.get((place.sender, place.lane), {}).get(place.id, moment)

    def busy_files(self) -> frozenset[str]:
        """Return the files that have entries."""
        return frozenset(file for file, ids in self._files.items() if ids)

    def notes(self, moment: float, now: float) -> Iterator[tuple[str, DoneNote]]:
        """Return the entries that were published recently, each with the file that it was in. Any thread may read it.

        Made by the event loop, a full set of notes would delay everything else by 0.2 s, each minute.
        """
        recent = tuple(self._recent.items())
        return (
            (file, DoneNote(id=entry_id, at=now - (moment - at)))
            for entry_id, (at, file) in recent
            if moment - at < RECENT_SECONDS
        )

    def taken_at(self, queue: str) -> float:
        """Return when a queue last took anything."""
        return self._taken_at.get(queue, _NEVER)

    def next_batch(self, most: int, moment: float, held: Collection[str] = ()) -> list[Place]:
        """Return entries to publish now: the oldest of each sender, by turns. `held`: ids to leave out.

        Those of a lane whose queue takes nothing are returned if there are no others.
        """
        turns = [line for line in (*self._turns[1:], *self._turns[:1]) if line in self._ours]
        self._turns = [*turns, *(line for line in self._ours if line not in turns)]
        batch: list[Place] = []
        for is_stuck in (False, True):
            lines = [line for line in self._turns if is_stuck == self._is_stuck(line[1], self._refused_at.get(line[1]))]
            ready = [self._ready(line, moment, held) for line in lines]
            while ready and len(batch) < most:
                for of_line in ready.copy():
                    entry_id = next(of_line, None)
                    if entry_id is None:
                        ready.remove(of_line)
                    elif len(batch) < most:
                        batch.append(self._places[entry_id])
            if batch:
                break
        return batch

    def _is_stuck(self, queue: str, refused_at: float | None) -> bool:
        """Return whether a queue has taken nothing since that moment, if there is one."""
        return refused_at is not None and refused_at >= self.taken_at(queue)

    def _in_order(self, line: _Line) -> dict[str, float]:
        """Return the receipts of entries in order. Sorted here: once for many added ones."""
        if line in self._unsorted:
            self._unsorted.remove(line)
            self._ours[line] = dict(sorted(self._ours[line].items(), key=itemgetter(1)))
        return self._ours[line]

    def _ready(self, line: _Line, moment: float, held: Collection[str]) -> Iterator[str]:
        """Yield the entries that do not wait. Those refused since the queue took anything come last, to block none."""
        refused: list[str] = []
        for entry_id in self._in_order(line):
            if entry_id in held:
                continue
            count, refused_at = self._refusals.get(entry_id, (0, None))
            if self._is_stuck(line[1], refused_at):
                refused.append(entry_id)
            elif refused_at is None or count <= 1 or moment - refused_at >= min(2.0**count, MAX_REFUSAL_PAUSE_SECONDS):
                yield entry_id
        yield from refused

    # ── events ──

    def add(self, place: Place, received_at: float, moment: float, *, is_ours: bool) -> None:
        """Record an entry, unless it is a copy of a known one, which must not be published again.

        `is_ours`: this worker publishes it.
        """
        known = self._places.get(place.id)
        if known is None and not self.is_known(place.id, moment):
            self._files.setdefault(place.file, set()).add(place.id)
            self._bytes[place.sender] += max(place.size, MIN_COUNTED_BYTES)
        elif known is None or known.file != place.file:
            return
        self._places[place.id] = place
        if is_ours:
            receipts = self._ours.setdefault(line := (place.sender, place.lane), {})
            if receipts and next(reversed(receipts.values())) > received_at:
                self._unsorted.add(line)
            receipts.setdefault(place.id, received_at)

    def on_look(self, files: Iterable[FileLines], moment: float, now: float) -> Iterator[None]:
        """Record what the files have. Yields after each ITEMS_PER_STEP, for the caller to let others run."""
        for lines in files:
            if lines.is_new_look:
                self._drop(lines.file, frozenset(each.id for each in lines.items if isinstance(each, Place)))
            for nth, item in enumerate(lines.items, 1):
                at = moment - max(0.0, now - item.at)
                if isinstance(item, Place):
                    self.add(item, at, moment, is_ours=lines.is_ours)
                else:
                    self._remove(item.id)
                    if moment - at < RECENT_SECONDS:
                        self._remember(item.id, at, lines.file)
                if nth % ITEMS_PER_STEP == 0:
                    yield

    def on_done(self, entry_id: str, moment: float) -> Place | None:
        """Record that a message was published. If it is that of an entry, return where the entry was."""
        if (place := self._places.get(entry_id)) is not None:
            self._remove(entry_id)
            self._remember(entry_id, moment, place.file)
        return place

    def on_taken(self, queue: str, moment: float) -> None:
        """Record that a queue took a message of any kind."""
        self._taken_at[queue] = moment

    def on_refused(self, place: Place, moment: float, error: QueueError | None = None) -> bool:
        """Record that an entry was not published. Return True if the broker refuses it for good.

        It waits ever longer while its queue takes others, unless `error` shows that the cause is the queue.
        """
        count, refused_at = self._refusals.get(place.id, (0, None))
        is_refused = isinstance(error, MessageRefused)
        if (is_refused or error is None) and not (count and self._is_stuck(place.lane, refused_at)):
            count += 1
        self._refusals[place.id] = count, moment
        self._refused_at[place.lane] = moment
        return is_refused and count >= MAX_REFUSALS

    def _drop(self, file: str, kept: Collection[str]) -> None:
        """Forget the entries of a file, which is gone or was read again, except the kept ones."""
        for entry_id in self._files.get(file, set()) - set(kept):
            self._remove(entry_id)
        if not kept:
            self._files.pop(file, None)

    def _remember(self, entry_id: str, published_at: float, file: str) -> None:
        self._recent[entry_id] = published_at, file
        self._recent.move_to_end(entry_id)
        while len(self._recent) > MAX_RECENT or published_at - next(iter(self._recent.values()))[0] >= RECENT_SECONDS:
            self._recent.popitem(last=False)

    def _remove(self, entry_id: str) -> None:
        self._refusals.pop(entry_id, None)
        if (place := self._places.pop(entry_id, None)) is None:
            return
        self._files[place.file].remove(entry_id)
        self._bytes[place.sender] -= max(place.size, MIN_COUNTED_BYTES)
        receipts = self._ours.get(line := (place.sender, place.lane), {})
        if receipts.pop(entry_id, None) is not None and not receipts:
            del self._ours[line]
            self._unsorted.discard(line)


def _room(used: Counter[str], sender: str, sender_count: int) -> int:
    """Return how many bytes a sender may still use, if all have used so many."""
    return min(MAX_FOLDER_BYTES // max(1, sender_count) - used[sender], MAX_FOLDER_BYTES - used.total())


def rest_seconds(count: int, took: float) -> float:
    """Return the rest after `count` entries that took so many seconds: zero beyond what MAX_PER_SECOND needs.

    Measured: to rest as long as a batch takes halves the rate at slow confirms, without a better p99 of fresh events.
    """
    return max(0.0, count / MAX_PER_SECOND - took)

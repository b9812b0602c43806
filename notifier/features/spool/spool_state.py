"""Decides which entries of the spool are written, which are published next, and which are refused for good. Pure.

Each sender (a relay, an upstream or a source) has its share of the folder. The entries of a sender are published in the
order of their receipt, the senders by turns. Entries in files of other living workers are only counted and recognised.

| event | method |
|---|---|
| sign-outs are to be written | `admit` |
| an entry was written | `add` |
| lines of a file were read, or a file is gone | `on_look` |
| an entry is published, or became a dead letter | `on_done` |
| the queue did not take an entry | `on_refused` |

The queue refuses an entry for good if it refuses it MAX_REFUSALS times, and takes something else before each time.
While it takes nothing, all entries stay.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator

from notifier.features.spool.spool_entries import DoneNote, ScannedEntry
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


@record
class Place:
    """Where an entry is: its file, and whether this worker has the file."""

    entry: ScannedEntry
    file: str
    is_ours: bool


@record
class _Refusals:
    count: int
    last_at: float
    due: float


@record
class FileLines:
    """What a file has, since the last look or in whole. `is_ours`: this worker has its lock.

    `is_new_look`: the items are all of the file, and replace those of earlier looks.
    """

    file: str
    is_ours: bool
    is_new_look: bool
    items: tuple[ScannedEntry | DoneNote, ...]


@record
class FolderFault:
    """A file that is not read: `newer`, `damaged` (and set aside) or `foreign`; or `unreadable`."""

    kind: str
    text: str


@record
class FolderLook:
    """The result of a look at the folder. `gone`: files that are no longer there."""

    lines: tuple[FileLines, ...]
    gone: tuple[str, ...]
    faults: tuple[FolderFault, ...]


class SpoolState:
    """The entries of a folder. Times are epoch seconds of the caller's clock, which may jump, so only ages use them."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}  # all, by the id of the entry
        self._ours: dict[str, dict[str, Place]] = {}  # those to publish, by sender, in the order of receipt
        self._unsorted: set[str] = set()  # senders whose entries are not in that order now
        self._files: dict[str, set[str]] = {}  # the ids of the entries by file
        self._bytes = Counter[str]()  # by sender
        self._recent: OrderedDict[str, tuple[float, str]] = OrderedDict()  # when it was published, and the file
        self._refusals: dict[str, _Refusals] = {}
        self._turns: list[str] = []
        self.taken_at = float("-inf")  # when the queue last took anything

    # ── questions ──

    def is_known(self, entry_id: str, now: float) -> bool:
        """Return whether the entry is in the folder, or was published from it recently."""
        published_at, _ = self._recent.get(entry_id, (float("-inf"), ""))
        return entry_id in self._places or now - published_at < RECENT_SECONDS

    def admit(
        self, lines: Iterable[tuple[str, str, int]], sender_count: int, now: float
    ) -> tuple[Collection[str], Collection[str]]:
        """Return the ids of the entries to write, and of those beyond the share of their sender; known ones in neither.

        `lines`: id, sender and size. `sender_count`: how many senders share the folder.
        """
        admitted, full = dict[str, None](), set[str]()
        used, share = Counter(self._bytes), MAX_FOLDER_BYTES // max(1, sender_count)
        total = used.total()
        for entry_id, sender, size in lines:
            counted = max(size, MIN_COUNTED_BYTES)
            if entry_id in admitted or self.is_known(entry_id, now):
                continue
            if used[sender] + counted > share or total + counted > MAX_FOLDER_BYTES:
                full.add(entry_id)
                continue
            admitted[entry_id] = None
            used[sender] += counted
            total += counted
        return admitted.keys(), full

    def full_senders(self, senders: Collection[str]) -> list[str]:
        """Return those of all senders which have no room for another sign-out."""
        most = MAX_FOLDER_BYTES - MIN_COUNTED_BYTES
        share = -1 if self._bytes.total() > most else MAX_FOLDER_BYTES // max(1, len(senders)) - MIN_COUNTED_BYTES
        return [sender for sender in senders if self._bytes[sender] > share]

    def counts(self) -> dict[str, int]:
        """Return the number of entries of each sender in the files of this worker."""
        return {sender: len(places) for sender, places in self._ours.items()}

    def count(self) -> int:
        """Return the number of entries in the files of this worker."""
        return sum(map(len, self._ours.values()))

    def oldest_at(self) -> float | None:
        """Return when the oldest entry in the files of this worker was received; None without one."""
        return min((next(iter(self._in_order(sender))).entry.at for sender in self._ours), default=None)

    def place_of(self, entry_id: str) -> Place | None:
        """Return where the entry is; None if it is not in the folder."""
        return self._places.get(entry_id)

    def busy_files(self) -> frozenset[str]:
        """Return the files that have entries."""
        return frozenset(file for file, ids in self._files.items() if ids)

    def notes(self, now: float) -> Iterator[tuple[str, DoneNote]]:
        """Return the entries that were published recently, each with the file that it was in. Any thread may read it.

        Made by the event loop, a full set of notes would delay everything else by 0.2 s, each minute.
        """
        recent = tuple(self._recent.items())
        return ((file, DoneNote(id=entry_id, at=at)) for entry_id, (at, file) in recent if now - at < RECENT_SECONDS)

    def next_batch(self, most: int, now: float, held: Collection[str] = ()) -> list[Place]:
        """Return entries to publish now: the oldest of each sender, by turns. `held`: ids to leave out."""
        turns = [sender for sender in (*self._turns[1:], *self._turns[:1]) if sender in self._ours]
        self._turns = [*turns, *(sender for sender in self._ours if sender not in turns)]
        ready = [self._ready(sender, now, held) for sender in self._turns]
        batch: list[Place] = []
        while ready and len(batch) < most:
            for of_sender in ready.copy():
                place = next(of_sender, None)
                if place is None:
                    ready.remove(of_sender)
                elif len(batch) < most:
                    batch.append(place)
        return batch

    def _in_order(self, sender: str) -> Iterable[Place]:
        """Return the entries of a sender in the order of receipt. Sorted here: once for many added ones."""
        if sender in self._unsorted:
            self._unsorted.remove(sender)
            self._ours[sender] = dict(sorted(self._ours[sender].items(), key=lambda item: item[1].entry.at))
        return self._ours[sender].values()

    def _ready(self, sender: str, now: float, held: Collection[str]) -> Iterator[Place]:
        """Yield the entries that do not wait. Those refused since the queue took anything come last, to block none."""
        refused: list[Place] = []
        for place in self._in_order(sender):
            if place.entry.id in held:
                continue
            refusals = self._refusals.get(place.entry.id)
            if refusals is not None and refusals.last_at >= self.taken_at:
                refused.append(place)
            elif refusals is None or not 0 < refusals.due - now <= MAX_REFUSAL_PAUSE_SECONDS:
                yield place
        yield from refused

    # ── events ──

    def add(self, place: Place, now: float) -> None:
        """Record an entry, unless it is a copy of a known one, which must not be published again."""
        entry, known = place.entry, self._places.get(place.entry.id)
        if known is not None and known.file == place.file:
            self._remove(entry.id, keep_refusals=True)  # its file was read again
        if self.is_known(entry.id, now):
            return
        self._places[entry.id] = place
        self._files.setdefault(place.file, set()).add(entry.id)
        self._bytes[entry.sender] += max(entry.size, MIN_COUNTED_BYTES)
        if place.is_ours:
            ours = self._ours.setdefault(entry.sender, {})
            if ours and next(reversed(ours.values())).entry.at > entry.at:
                self._unsorted.add(entry.sender)
            ours[entry.id] = place

    def on_look(self, look: FolderLook, now: float) -> Iterator[None]:
        """Record what the files have. Yields after each ITEMS_PER_STEP, for the caller to let others run."""
        for file in look.gone:
            self._drop(file, frozenset())
        for lines in look.lines:
            if lines.is_new_look:
                self._drop(lines.file, frozenset(each.id for each in lines.items if isinstance(each, ScannedEntry)))
            for nth, item in enumerate(lines.items, 1):
                if isinstance(item, DoneNote):
                    self._remove(item.id)
                    if now - item.at < RECENT_SECONDS:
                        self._remember(item.id, item.at, lines.file)
                else:
                    self.add(Place(entry=item, file=lines.file, is_ours=lines.is_ours), now)
                if nth % ITEMS_PER_STEP == 0:
                    yield

    def on_done(self, entry_id: str, now: float) -> None:
        """Record that an entry was published now."""
        if (place := self._places.get(entry_id)) is not None:
            self._remove(entry_id)
            self._remember(entry_id, now, place.file)
        self.on_taken(now)

    def on_taken(self, now: float) -> None:
        """Record that the queue took a message of any kind."""
        self.taken_at = now

    def on_refused(self, entry_id: str, now: float) -> bool:
        """Record that the queue did not take the entry. Return True if that is for good."""
        former = self._refusals.get(entry_id)
        if former is None:
            self._refusals[entry_id] = _Refusals(count=1, last_at=now, due=now)
            return False
        if self.taken_at <= former.last_at:
            return False
        count = former.count + 1
        pause = min(2.0**count, MAX_REFUSAL_PAUSE_SECONDS)
        self._refusals[entry_id] = _Refusals(count=count, last_at=now, due=now + pause)
        return count >= MAX_REFUSALS

    def on_notes_moved(self, file: str) -> None:
        """Record that this file has the notes of all files without entries."""
        busy = self.busy_files()
        for entry_id, (at, of) in self._recent.items():
            if of not in busy:
                self._recent[entry_id] = at, file

    def _drop(self, file: str, kept: Collection[str]) -> None:
        """Forget the entries of a file, which is gone or was read again, except the kept ones."""
        for entry_id in self._files.get(file, set()) - set(kept):
            self._remove(entry_id)
        if not kept:
            self._files.pop(file, None)

    def _remember(self, entry_id: str, at: float, file: str) -> None:
        self._recent[entry_id] = at, file
        self._recent.move_to_end(entry_id)
        while len(self._recent) > MAX_RECENT or at - next(iter(self._recent.values()))[0] >= RECENT_SECONDS:
            self._recent.popitem(last=False)

    def _remove(self, entry_id: str, *, keep_refusals: bool = False) -> None:
        if not keep_refusals:
            self._refusals.pop(entry_id, None)
        if (place := self._places.pop(entry_id, None)) is None:
            return
        sender = place.entry.sender
        self._files[place.file].remove(entry_id)
        self._bytes[sender] -= max(place.entry.size, MIN_COUNTED_BYTES)
        ours = self._ours.get(sender, {})
        if ours.pop(entry_id, None) is not None and not ours:
            del self._ours[sender]
            self._unsorted.discard(sender)


def rest_seconds(count: int, took: float) -> float:
    """Return the rest after `count` entries that took so many seconds: zero beyond what MAX_PER_SECOND needs.

    Measured: to rest as long as a batch takes halves the rate at slow confirms, without a better p99 of fresh events.
    """
    return max(0.0, count / MAX_PER_SECOND - took)

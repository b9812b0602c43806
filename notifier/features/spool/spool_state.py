"""Decides about the entries of the spool: which are published next, and which are refused for good. Pure.

Each sender (a relay, an upstream or a source) has its share of the folder, and its entries are published in the order
of their receipt, the senders by turns. An entry leaves when it is published, here or by its original publish, whose
confirm may come late. Entries in files of other living workers are only counted and recognised.

| event | method |
|---|---|
| an entry was written | `add`, with `is_held` while its original publish is under way |
| that publish failed | `release` |
| lines of a file were read, or it is gone | `on_look`, which calls `add`, `on_note` and `drop_file` |
| an entry is published, or became a dead letter | `on_done` |
| the queue did not take an entry | `on_refused` |

The queue refuses an entry for good if it refuses it MAX_REFUSALS times, and takes something else before each time.
While it takes nothing, all entries stay.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from notifier.features.spool.spool_entries import DoneNote, ScannedEntry
from notifier.model.record import copy_record, record
from notifier.model.shared_resources import shared_bound

MAX_FOLDER_BYTES = shared_bound(256 * 1024 * 1024)
MIN_COUNTED_BYTES = 2048  # of an entry: so the folder has at most 131,072 entries, whose places take 50 MB of memory
RECENT_SECONDS = 600.0  # for which the ids of published entries are known
MAX_RECENT = shared_bound(MAX_FOLDER_BYTES // MIN_COUNTED_BYTES)
MAX_REFUSALS = 5
MAX_REFUSAL_PAUSE_SECONDS = 60.0


@record
class Place:
    """Where an entry is: its file, and whether this worker has the file."""

    entry: ScannedEntry
    file: str
    is_ours: bool
    is_held: bool = False


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
        self._places: dict[str, dict[str, Place]] = {}  # by sender, then by id, in the order of receipt
        self._unsorted: set[str] = set()  # senders whose entries are not in that order now
        self._senders: dict[str, str] = {}  # by the id of an entry
        self._bytes: dict[str, int] = {}  # by sender
        self._counts: dict[str, int] = {}  # of entries in the files of this worker, by sender
        self._live: dict[str, int] = {}  # entries by file
        self._recent: OrderedDict[str, tuple[float, str]] = OrderedDict()  # when it was published, and the file
        self._refusals: dict[str, _Refusals] = {}
        self._turns: list[str] = []
        self._taken_at = float("-inf")  # when the queue last took anything

    # ── questions ──

    def is_known(self, entry_id: str, now: float) -> bool:
        """Return whether the entry is in the folder, or was published from it recently."""
        published_at, _ = self._recent.get(entry_id, (float("-inf"), ""))
        return entry_id in self._senders or now - published_at < RECENT_SECONDS

    def has_room(self, sender: str, size: int, senders: int) -> bool:
        """Return whether the sender's share has room for so many bytes. `senders`: how many share the folder."""
        share = MAX_FOLDER_BYTES // max(1, senders)
        counted = max(size, MIN_COUNTED_BYTES)
        total = sum(self._bytes.values())
        return self._bytes.get(sender, 0) + counted <= share and total + counted <= MAX_FOLDER_BYTES

    def counts(self) -> Mapping[str, int]:
        """Return the number of entries of each sender in the files of this worker."""
        return self._counts

    def count(self) -> int:
        """Return the number of entries in the files of this worker."""
        return sum(self._counts.values())

    def oldest_at(self) -> float | None:
        """Return when the oldest entry in the files of this worker was received; None without one."""
        firsts = (next((each.entry.at for each in self._in_order(of) if each.is_ours), None) for of in self._places)
        return min((at for at in firsts if at is not None), default=None)

    def place_of(self, entry_id: str) -> Place | None:
        """Return where the entry is; None if it is not in the folder."""
        sender = self._senders.get(entry_id)
        return None if sender is None else self._places[sender][entry_id]

    def busy_files(self) -> frozenset[str]:
        """Return the files that have entries."""
        return frozenset(file for file, count in self._live.items() if count)

    def notes(self, now: float) -> Mapping[str, Sequence[DoneNote]]:
        """Return the entries that were published recently, by the file that they were in."""
        notes: dict[str, list[DoneNote]] = {}
        for entry_id, (at, file) in self._recent.items():
            if now - at < RECENT_SECONDS:
                notes.setdefault(file, []).append(DoneNote(id=entry_id, at=at))
        return notes

    def next_batch(self, most: int, now: float) -> list[Place]:
        """Return entries to publish now: the oldest of each sender, by turns, without the waiting ones."""
        turns = [sender for sender in (*self._turns[1:], *self._turns[:1]) if sender in self._places]
        self._turns = [*turns, *(sender for sender in self._places if sender not in turns)]
        ready = [self._ready(sender, now) for sender in self._turns]
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
            self._places[sender] = dict(sorted(self._places[sender].items(), key=lambda item: item[1].entry.at))
        return self._places[sender].values()

    def _ready(self, sender: str, now: float) -> Iterator[Place]:
        """Yield the entries that do not wait. Those refused since the queue took anything come last, to block none."""
        refused: list[Place] = []
        for place in self._in_order(sender):
            if not place.is_ours or place.is_held:
                continue
            refusals = self._refusals.get(place.entry.id)
            if refusals is None or refusals.last_at < self._taken_at:
                if refusals is None or not 0 < refusals.due - now <= MAX_REFUSAL_PAUSE_SECONDS:
                    yield place
            else:
                refused.append(place)
        yield from refused

    # ── events ──

    def add(self, place: Place, now: float) -> bool:
        """Record an entry. Return False for a copy of a known one, which must not be published again."""
        entry = place.entry
        if self.is_known(entry.id, now):
            return False
        places = self._places.setdefault(entry.sender, {})
        if places and next(reversed(places.values())).entry.at > entry.at:
            self._unsorted.add(entry.sender)
        places[entry.id] = place
        self._senders[entry.id] = entry.sender
        self._bytes[entry.sender] = self._bytes.get(entry.sender, 0) + max(entry.size, MIN_COUNTED_BYTES)
        self._counts[entry.sender] = self._counts.get(entry.sender, 0) + place.is_ours
        self._live[place.file] = self._live.get(place.file, 0) + 1
        return True

    def release(self, entry_id: str) -> None:
        """Record that the original publish of the entry failed, so that the entry is to be published."""
        place = self.place_of(entry_id)
        if place is not None:
            self._places[place.entry.sender][entry_id] = copy_record(place, is_held=False)

    def on_note(self, note: DoneNote, file: str, now: float) -> None:
        """Record a note in a file: its entry was published."""
        self._remove(note.id)
        if now - note.at < RECENT_SECONDS:
            self._remember(note.id, note.at, file)

    def on_done(self, entry_id: str, now: float) -> None:
        """Record that an entry was published now."""
        if (place := self.place_of(entry_id)) is not None:
            self._remove(entry_id)
            self._remember(entry_id, now, place.file)
        self.on_taken(now)

    def on_taken(self, now: float) -> None:
        """Record that the queue took a message of any kind."""
        self._taken_at = now

    def on_refused(self, entry_id: str, now: float) -> bool:
        """Record that the queue did not take the entry. Return True if that is for good."""
        former = self._refusals.get(entry_id)
        if former is None:
            self._refusals[entry_id] = _Refusals(count=1, last_at=now, due=now)
            return False
        if self._taken_at <= former.last_at:
            return False
        count = former.count + 1
        pause = min(2.0**count, MAX_REFUSAL_PAUSE_SECONDS)
        self._refusals[entry_id] = _Refusals(count=count, last_at=now, due=now + pause)
        return count >= MAX_REFUSALS

    def drop_file(self, file: str) -> frozenset[str]:
        """Forget the entries of a file, which is gone or was read again. Return the ids of the held ones."""
        dropped = [place for places in self._places.values() for place in places.values() if place.file == file]
        for place in dropped:
            self._remove(place.entry.id)
        self._live.pop(file, None)
        return frozenset(place.entry.id for place in dropped if place.is_held)

    def on_look(self, look: FolderLook, now: float) -> None:
        """Record what the files have. Entries of an original publish that is under way stay held."""
        for file in look.gone:
            self.drop_file(file)
        for lines in look.lines:
            held = self.drop_file(lines.file) if lines.is_new_look else frozenset[str]()
            for item in lines.items:
                if isinstance(item, DoneNote):
                    self.on_note(item, lines.file, now)
                else:
                    is_held = item.id in held
                    self.add(Place(entry=item, file=lines.file, is_ours=lines.is_ours, is_held=is_held), now)

    def on_notes_moved(self, file: str) -> None:
        """Record that this file has the notes of all files without entries."""
        for entry_id, (at, of) in self._recent.items():
            if not self._live.get(of):
                self._recent[entry_id] = at, file

    def _remember(self, entry_id: str, at: float, file: str) -> None:
        self._recent[entry_id] = at, file
        self._recent.move_to_end(entry_id)
        while len(self._recent) > MAX_RECENT or at - next(iter(self._recent.values()))[0] >= RECENT_SECONDS:
            self._recent.popitem(last=False)

    def _remove(self, entry_id: str) -> None:
        self._refusals.pop(entry_id, None)
        sender = self._senders.pop(entry_id, None)
        if sender is None:
            return
        place = self._places[sender].pop(entry_id)
        self._bytes[sender] -= max(place.entry.size, MIN_COUNTED_BYTES)
        self._counts[sender] -= place.is_ours
        self._live[place.file] -= 1
        if not self._places[sender]:
            del self._places[sender], self._bytes[sender], self._counts[sender]
            self._unsorted.discard(sender)

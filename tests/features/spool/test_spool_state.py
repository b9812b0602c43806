"""The entries of the spool: the order in which they are published, shares, copies, and refusals."""

from notifier.features.spool.spool_entries import DoneNote, Place
from notifier.features.spool.spool_state import (
    MAX_FOLDER_BYTES,
    MAX_REFUSALS,
    MIN_COUNTED_BYTES,
    FileLines,
    SpoolState,
)
from notifier.model.errors import MessageRefused, QueueUnavailable
from notifier.model.message import DEAD, Lane
from notifier.model.record import copy_record
from tests.features.spool.sign_outs import NOW, batch


def place(entry_id: str, sender: str = "op", at: float = NOW, size: int = 500) -> Place:
    """The place of an entry in this worker's file."""
    return Place(id=entry_id, sender=sender, at=at, lane=Lane.EVENTS, file="own", offset=0, size=size)


def add(
    state: SpoolState, entry_id: str, sender: str = "op", at: float = 0.0, size: int = 500, *, ours: bool = True
) -> None:
    """Add an entry."""
    state.add(place(entry_id, sender, NOW + at, size), NOW + at, NOW, is_ours=ours)


def look(state: SpoolState, *lines: FileLines, now: float = NOW) -> int:
    """Record a look at the folder. Return how many times others could run meanwhile."""
    return sum(1 for _ in state.on_look(lines, NOW, now))


def test_senders_take_turns_each_in_the_order_of_receipt() -> None:
    """Also entries that were taken over later and received earlier. The next batch begins with the next sender."""
    state = SpoolState()
    for entry_id, sender, at in (("a2", "a", 2), ("a3", "a", 3), ("b1", "b", 9), ("a1", "a", 1), ("c1", "c", 0)):
        add(state, entry_id, sender, at)
    assert batch(state, 4) == ["a1", "b1", "c1", "a2"]
    assert batch(state, 4) == ["b1", "c1", "a1", "a2"]
    assert batch(state, 2) == ["c1", "a1"]
    state.on_done("c1", NOW)  # its sender has no other
    assert batch(state, 2) == ["a1", "b1"]


class Moment(float):
    """A time that counts comparisons."""

    compared = 0

    def __lt__(self, other: float) -> bool:
        Moment.compared += 1
        return float(self) < other

    def __gt__(self, other: float) -> bool:
        Moment.compared += 1
        return float(self) > other


def test_many_entries_that_were_received_earlier_are_sorted_once() -> None:
    """Such as those of a second file that is taken over, or after the clock was set back."""
    state = SpoolState()
    for nth in range(2000):
        state.add(place(f"e{nth}"), Moment(NOW - nth), NOW, is_ours=True)
    assert batch(state, 2) == ["e1999", "e1998"]
    assert state.oldest_age(NOW) == 1999
    assert Moment.compared < 50 * 2000


def test_an_entry_waits_for_its_original_publish() -> None:
    """Otherwise it would be published twice."""
    state = SpoolState()
    add(state, "e1")
    add(state, "e2", at=1)
    assert [each.id for each in state.next_batch(9, NOW, {"e1"})] == ["e2"]
    assert batch(state) == ["e1", "e2"]


def test_a_copy_is_known_until_ten_minutes_after_its_publication() -> None:
    """It is neither written nor published again."""
    state = SpoolState()
    for _ in range(2):
        add(state, "e1")
        assert batch(state) == ["e1"]
    state.on_done("e1", NOW)
    assert (state.is_known("e1", NOW + 599), state.is_known("e1", NOW + 601), batch(state)) == (True, False, [])
    add(state, "e1")
    assert batch(state) == []


def has_room(state: SpoolState, sender: str, size: int) -> bool:
    """Whether an entry of this size has room, in a folder of two senders."""
    admitted, full = state.admit([("new", sender, size)], 2, NOW)
    assert {*admitted, *full} == {"new"}
    return "new" in admitted


def test_each_sender_has_its_share() -> None:
    """One that fills its own leaves the others theirs, and gets room again. Each entry counts 2 KiB at least."""
    state = SpoolState()
    share = MAX_FOLDER_BYTES // 2
    add(state, "e1", "a", size=share - MIN_COUNTED_BYTES)
    assert (has_room(state, "a", 1), has_room(state, "a", MIN_COUNTED_BYTES + 1)) == (True, False)
    add(state, "e2", "a", size=1)
    assert (has_room(state, "a", 1), has_room(state, "b", share), has_room(state, "b", share + 1)) == (
        False, True, False,
    )  # fmt: skip
    state.on_done("e1", NOW)
    assert has_room(state, "a", 1)
    add(state, "e3", "former", size=share, ours=False)
    assert not has_room(state, "b", share)  # what others wrote counts


def test_entries_that_are_written_together_share_the_room() -> None:
    """Otherwise 600 tokens of 128 KiB at a time would exceed it by 75 MiB. Copies need none."""
    state = SpoolState()
    add(state, "e1", "a")
    size = MAX_FOLDER_BYTES // 8  # a quarter of a share
    lines = [(f"a{nth}", "a", size) for nth in range(4)]
    admitted, full = state.admit([("e1", "a", size), *lines, ("b1", "b", size)], 2, NOW)
    assert (list(admitted), set(full)) == (["a0", "a1", "a2", "b1"], {"a3"})


def refuse(state: SpoolState, times: int, *, others: str = "", now: float = NOW) -> list[bool]:
    """Refuse an entry so often. `others`: the queue that takes something in between."""
    results = []
    for _ in range(times):
        now += 100
        results.append(state.on_refused(place("e1"), now, MessageRefused()))
        if others:
            state.on_taken(others, now + 1)
    return results


def test_an_entry_is_refused_for_good_only_while_others_are_taken() -> None:
    """While its queue takes nothing, all entries stay, however long that lasts, and whatever other queues take."""
    state = SpoolState()
    add(state, "e1")
    assert not any(refuse(state, 1000))
    assert not any(refuse(state, 1000, others=DEAD))
    assert batch(state, moment=NOW + 200_000) == ["e1"]
    assert not any(state.on_refused(place("e1"), NOW + 200_000 + nth, QueueUnavailable()) for nth in range(1000))
    assert refuse(state, MAX_REFUSALS, others=Lane.EVENTS, now=NOW + 300_000)[-1]


def test_a_refused_entry_blocks_no_other() -> None:
    """It is tried again later than those behind it."""
    state = SpoolState()
    add(state, "e1")
    add(state, "e2", at=1)
    state.on_refused(place("e1"), NOW, MessageRefused())
    assert batch(state) == ["e2", "e1"]
    state.on_done("e2", NOW + 1)
    state.on_taken(Lane.EVENTS, NOW + 1)
    add(state, "e3", at=2)
    assert not state.on_refused(place("e1"), NOW + 2, MessageRefused())
    state.on_taken(Lane.EVENTS, NOW + 3)
    assert (batch(state, moment=NOW + 3), batch(state, moment=NOW + 7)) == (["e3"], ["e1", "e3"])


def test_a_file_that_is_read_again_replaces_its_entries() -> None:
    """What it lacks is forgotten, and so are the entries of a file that is gone. The others are known all the time."""
    state = SpoolState()
    add(state, "e1")
    add(state, "e2")
    items = [copy_record(place(each), offset=9) for each in ("e1", "e3")]
    whole = FileLines(file="own", is_ours=True, items=(*items, DoneNote(id="e4", at=NOW)))
    assert look(state, whole) == 0
    assert (batch(state), state.is_known("e2", NOW), state.is_known("e4", NOW)) == (["e1", "e3"], False, True)
    assert [each.offset for each in state.next_batch(9, NOW)] == [9, 9]
    look(state, FileLines(file="own"))
    assert (state.count(), state.oldest_age(NOW), [*state.notes(NOW, NOW)]) == (
        0, 0.0, [("own", DoneNote(id="e4", at=NOW))],
    )  # fmt: skip


def test_a_large_file_that_is_taken_over_lets_others_run() -> None:
    """All its entries take a second. Those of the other worker are known meanwhile, and published by this one then."""
    state = SpoolState()
    items = tuple(place(f"e{nth}", at=NOW - 5000 + nth) for nth in range(5000))
    look(state, FileLines(file="own", items=items))
    assert (state.count(), state.oldest_age(NOW), batch(state)) == (0, 0.0, [])
    taken_over = FileLines(file="own", is_ours=True, items=items)
    steps = [state.is_known("e4999", NOW) and state.is_known("e0", NOW) for _ in state.on_look([taken_over], NOW, NOW)]
    assert (len(steps), all(steps), state.count()) == (10, True, 5000)


def test_a_time_in_the_future_counts_as_now() -> None:
    """After the clock was set back by a day: an entry of a file gets too old, and a published id is forgotten."""
    state = SpoolState()
    items = (place("e1", at=NOW), place("e2", at=NOW - 90_000), DoneNote(id="e3", at=NOW))
    look(state, FileLines(file="own", is_ours=True, items=items), now=NOW - 86_400)
    assert batch(state) == ["e2", "e1"]
    assert state.age(place("e1"), NOW + 60) == 60
    assert (state.is_known("e3", NOW + 599), state.is_known("e3", NOW + 601)) == (True, False)
    [(_, note)] = state.notes(NOW + 60, NOW - 86_340)
    assert note == DoneNote(id="e3", at=NOW - 86_400)

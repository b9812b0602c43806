"""The indexes behind pages: when one is made anew, and how many summaries a worker keeps."""

import asyncio
import weakref
from dataclasses import dataclass, field

import pytest

from notifier.operators.letters import message_index
from notifier.operators.letters.message_index import AskedPage, Indexes, MessageIndex, Shown
from tests.operators.letters.test_audit import ROW


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """As a steady clock."""
        return self.now


class Maker:
    """Makes indexes of so many rows, each of which takes a pass of three seconds."""

    def __init__(self, clock: Clock, size: int = 1) -> None:
        self._clock, self._size = clock, size
        self.made = 0

    async def __call__(self) -> MessageIndex:
        """As `Indexes` wants it."""
        index = MessageIndex(self._clock, self._clock)
        for _ in range(self._size):
            index.add(ROW)
        await asyncio.sleep(0)
        self._clock.now += 3
        self.made += 1
        return index


async def test_who_asks_meanwhile_is_served_by_the_same_pass() -> None:
    """Unless it began before they asked, and they want none that is older."""
    clock = Clock()
    indexes, make = Indexes(clock), Maker(clock)
    one, two = await asyncio.gather(*(indexes.index("letters", 0, make) for _ in range(2)))
    assert (one is two, make.made) == (True, 1)
    assert await indexes.index("letters", 3, make) is one
    assert await indexes.index("letters", 2, make) is not one
    indexes.forget("letters")
    await indexes.index("letters", 600, make)
    assert make.made == 3


async def test_a_large_index_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old one before its successor is made, and one of others; a small one stays."""
    monkeypatch.setattr(message_index, "SMALL", 2)
    clock = Clock()
    indexes, large, small = Indexes(clock), Maker(clock, 3), Maker(clock, 2)
    kept = await indexes.index("waiting", 0, small)
    old = weakref.ref(await indexes.index("letters", 0, large))

    async def make() -> MessageIndex:
        assert old() is None
        return await large()

    clock.now += 10
    await indexes.index("letters", 0, make)
    assert await indexes.index("waiting", 600, small) is kept
    await indexes.index("waiting", 0, small)
    await indexes.index("letters", 600, large)
    assert (large.made, small.made) == (3, 2)


@dataclass(frozen=True)
class Meant:
    """Means everything, and notes that it was asked."""

    name: str
    log: list[str] = field(compare=False)

    def means(self, _summary: object) -> bool:
        """As a filter."""
        self.log.append(self.name)
        return True


async def test_pages_are_selected_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at a time: each would hold the loop for two milliseconds a turn, and copy the index."""
    monkeypatch.setattr(message_index, "AT_ONCE", 2)
    clock, log = Clock(), list[str]()
    index = await Maker(clock, 6)()

    async def page(name: str) -> object:
        selection = Shown(chosen=Meant(name, log), reasons=frozenset(), newest_first=True)
        return (await index.page(AskedPage(selection=selection, rows=1, skip=0, groups=1), "letters"))["total"]

    assert await asyncio.gather(*map(page, "aab")) == [6, 6, 6]
    assert log == [*"a" * 6, *"b" * 6]

"""Reads a list page by page while it may change: no client that stays in the list is left out.

A list that is read by offset moves under its reader. If an earlier client is deleted, the next page begins one too
late. So each page overlaps the one before by one client. If its first client is not known yet, clients may have been
left out, and the reader goes back until a page begins with a client that is known.
"""

from collections.abc import Sequence

_VAIN = 20  # pages in a row that tell nothing new, until the reading is given up


class ShiftingPages:
    """Where to read on, for pages of `size`. `first` is the offset to ask for, None at the end."""

    def __init__(self, size: int) -> None:
        self.first: int | None = 0
        self._size = size
        self._seen: set[str] = set()
        self._vain = 0

    @property
    def stuck(self) -> bool:
        """True if the list never ends: it changes faster than it is read, or the same page comes again and again."""
        return self._vain > _VAIN

    def take(self, names: Sequence[str]) -> bool:
        """Take note of the page at `first`. False if it does not join what is known: it is not to be used."""
        first = self.first or 0
        new = len(self._seen.union(names)) - len(self._seen)
        self._vain = 0 if new else self._vain + 1
        if first and (not names or names[0] not in self._seen):
            self._vain = max(self._vain, 1)
            self.first = max(0, first - self._size * self._vain)
            return False
        self._seen.update(names)
        self.first = first + len(names) - 1 if len(names) > 1 else None
        return True

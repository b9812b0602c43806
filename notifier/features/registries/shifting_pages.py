"""Reads a list page by page while it may change: no client that stays in the list is left out.

A list that is read by offset moves under its reader. If an earlier client is deleted, the next page begins one too
late. So each page overlaps the one before by one client. If its first client is not known yet, clients may have been
left out, and the reader goes back until a page begins with a client that is known.
"""

from collections.abc import Sequence

from notifier.features.registries.page_requests import PageLimit


class ShiftingPages:
    """Where to read on, for pages of `size`. `first` is the offset to ask for, None at the end."""

    def __init__(self, size: int) -> None:
        self.first: int | None = 0
        self._size = size
        self._seen: set[str] = set()
        self._vain = 0
        self._limit = PageLimit()

    def take(self, names: Sequence[str]) -> bool:
        """Take note of the page at `first`. False if it does not join what is known: it is not to be used.

        Raises EndlessList if the list changes faster than it is read, or the same page comes again and again.
        """
        first = self.first or 0
        new = sum(name not in self._seen for name in set(names))
        self._vain = 0 if new else self._vain + 1
        if first and (not names or names[0] not in self._seen):
            self._vain = max(self._vain, 1)
            self.first = max(0, first - self._size * self._vain)
            self._limit.before_next(len(self._seen))
            return False
        self._seen.update(names)
        self.first = first + len(names) - 1 if len(names) > 1 else None
        if self.first is not None:
            self._limit.before_next(len(self._seen))
        return True

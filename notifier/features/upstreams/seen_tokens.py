"""Remembers which tokens were taken, so that one that comes again is not published again (RFC 7519 §4.1.7)."""

from collections import OrderedDict

MOST = 10_000  # tokens; of more, the oldest are forgotten. Taken again, such a token makes the same event


class SeenTokens:
    """The tokens of a worker by what identifies each, until it is refused for its age."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._until: OrderedDict[str, float] = OrderedDict()

    def seen(self, token: str, now: float) -> bool:
        """True if it was taken before, and could still be accepted by its age. `now` is in epoch seconds."""
        return self._until.get(token, 0.0) >= now

    def take(self, token: str, until: float) -> None:
        """Note that it was taken. After `until` (epoch seconds) it is refused anyway."""
        self._until[token] = until
        self._until.move_to_end(token)
        while len(self._until) > self._most:
            self._until.popitem(last=False)

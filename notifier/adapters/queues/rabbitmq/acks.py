"""Which acks to send. Pure: tags in, frames out.

Delivery tags of a channel count up from 1. `multiple` acks every tag up to the one it names, so it may go only as far
as everything below is settled; and RabbitMQ closes the channel over a tag acked before, so each is named once.
"""


class AckLedger:
    """The settled tags of one channel that the broker has yet to hear of."""

    __slots__ = ("_ahead", "_fresh", "_next")

    def __init__(self) -> None:
        self._next = 1  # the lowest tag that is not settled
        self._ahead: set[int] = set()  # settled tags above it
        self._fresh: list[int] = []  # settled tags not yet sent

    def settle(self, tag: int) -> bool:
        """Note that `tag` found its fate. False where it had before."""
        if tag < self._next or tag in self._ahead:
            return False
        self._ahead.add(tag)
        self._fresh.append(tag)
        return True

    def take(self) -> list[tuple[int, bool]]:
        """What is to be sent now, as (tag, multiple): one frame for the contiguous run, one each for the rest."""
        first = self._next
        while self._next in self._ahead:
            self._ahead.remove(self._next)
            self._next += 1
        fresh, self._fresh = self._fresh, []
        if first == self._next:
            return [(tag, False) for tag in fresh]
        # The last of the run that was not sent before; `first` itself is one, so there is one.
        end = max(tag for tag in fresh if tag < self._next)
        return [(end, True), *((tag, False) for tag in fresh if tag > end)]

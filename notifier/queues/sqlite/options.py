"""The options with which an embedded queue is opened."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane


def from_now_on() -> Callable[[], float]:
    """Return a monotonic clock in epoch seconds: it starts at the wall clock's time, and ignores later changes."""
    ahead = time.time() - time.monotonic()
    return lambda: ahead + time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """The path of the file, the unacked messages that each lane may have, and two clocks.

    A lane missing from `prefetch` gets its default. `clock` returns the publication time of messages. Delays use
    `delay_clock` (epoch seconds), since another process continues them. With the wall clock, all delays would end at
    once when it is set an hour ahead, and last an hour longer when it is set back.
    """

    path: Path
    prefetch: Mapping[Lane, int] = field(default_factory=lambda: PREFETCH)
    clock: Callable[[], float] = time.time
    delay_clock: Callable[[], float] = field(default_factory=from_now_on)

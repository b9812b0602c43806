"""Announces this worker to the others over the side channel, and detects workers that vanished.

Each worker publishes an announcement every ten seconds, and a last one when it stops. A worker that is silent for 30 s
without a last announcement has vanished: it hangs, was killed or lost the broker. It is listed for an hour, or until a
worker that starts on the same host replaces it.

Silence is measured in rounds: a round begins when this worker receives its own announcement. During a broker alarm
nothing is received, so nobody seems silent. Announcements contain the sender's time, which shows whose clock differs.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.durations import format_in_words
from notifier.model.moment import Clock
from notifier.model.trouble import Trouble, TroubleKind

ANNOUNCE_SECONDS = 10.0  # between two announcements
MIN_INTERVAL_SECONDS = 1.0  # between two announcements while other workers start
MISSED_ROUNDS = 3  # after which a worker is silent
SILENT_SECONDS = 29.0  # after which a worker is silent: three rounds, less the jitter of timers
KEPT_SECONDS = 3600.0  # for which a vanished worker is listed
MAX_WORKERS = 1000
MAX_BYTES = 1024  # of an announcement
MAX_CLOCK_SAMPLES = 6  # a late announcement makes a clock seem behind, so the greatest of several offsets counts
MAX_OFFSET_SECONDS = 5.0  # of a clock that is not reported
LEAVE_SECONDS = 1.0  # for the last announcement


class _Presence(TypedDict):
    v: Literal[1]
    worker: Annotated[str, Field(min_length=1, max_length=300)]
    at: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
    leaving: bool


_PRESENCE = TypeAdapter(_Presence)


@dataclass(slots=True, kw_only=True, eq=False)
class _OtherWorker:
    """Another worker. `first_seen` and `last_seen` are in monotonic seconds, `last_at` is in epoch seconds.

    `round` is this worker's round at the last announcement. `replaces`: it has replaced a worker that stopped or
    vanished. `clock_offsets` are the seconds by which its clock seemed ahead.
    """

    first_seen: float
    last_seen: float
    last_at: float
    round: int
    replaces: bool
    clock_offsets: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_CLOCK_SAMPLES))


class WorkerPresence:
    """The presence of this worker (`name`) and of the others. `clock` is the wall clock, `monotonic` never jumps."""

    def __init__(self, name: str, clock: Clock, monotonic: Clock) -> None:
        self._name = name
        self._clock = clock
        self._monotonic = monotonic
        self._others: dict[str, _OtherWorker] = {}
        self._stopped = Counter[str]()  # by host: workers that announced a stop and are not replaced yet
        self._round = 0  # number of own announcements received
        self._round_began_at: float | None = None  # None before the first announcement
        self._announce_soon, self._leaving, self._last_sent = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_last = False  # whether the previous announcement was the last

    # ── this worker ──

    async def next_announcement(self) -> bytes:
        """Wait until the next announcement is due, and return it. A call confirms that the previous one was sent."""
        if self._round_began_at is None:
            self._round_began_at = self._monotonic()
        elif self._is_last:
            self._last_sent.set()
            await asyncio.Event().wait()  # forever
        else:
            await _wait_for(MIN_INTERVAL_SECONDS, self._leaving)
            await _wait_for(ANNOUNCE_SECONDS - MIN_INTERVAL_SECONDS, self._announce_soon)
        self._announce_soon.clear()
        self._is_last = self._leaving.is_set()
        return self.document()

    def document(self) -> bytes:
        """Return an announcement of this worker."""
        return _PRESENCE.dump_json(
            {"v": 1, "worker": self._name, "at": self._clock(), "leaving": self._leaving.is_set()}
        )

    async def leave(self) -> None:
        """Announce that this worker stops. Return once the announcement was sent, after LEAVE_SECONDS at most."""
        self._leaving.set()
        self._announce_soon.set()
        if self._round_began_at is not None:
            await _wait_for(LEAVE_SECONDS, self._last_sent)

    # ── the others ──

    def on_announcement(self, document: bytes) -> None:
        """Record an announcement of any worker. Ignore an announcement that this release cannot read."""
        try:
            presence = _PRESENCE.validate_json(document if len(document) <= MAX_BYTES else b"")
        except ValidationError:
            return
        now, name = self._monotonic(), presence["worker"]
        if name == self._name:
            self._begin_round(now)
        elif presence["leaving"]:
            self._forget_vanished(now)  # while the worker that leaves still counts as a replacement
            if self._others.pop(name, None) is not None:
                self._stopped[_host_of(name)] += 1
                if len(self._stopped) > MAX_WORKERS:  # pods are replaced under new host names
                    del self._stopped[next(iter(self._stopped))]
        else:
            self._on_presence(name, presence["at"] - self._clock(), now)

    def _begin_round(self, now: float) -> None:
        """Begin a round. After a gap without announcements, forget all workers that had not vanished before."""
        if self._round_began_at is not None and now - self._round_began_at > MISSED_ROUNDS * ANNOUNCE_SECONDS:
            vanished = {name for name, _ in self.list_vanished()}
            self._others = {name: other for name, other in self._others.items() if name in vanished}
        self._round, self._round_began_at = self._round + 1, now
        self._forget_vanished(now)

    def _on_presence(self, name: str, clock_offset: float, now: float) -> None:
        """Record that another worker is present. A new worker may replace a worker that stopped on its host."""
        other = self._others.get(name)
        if other is None:
            if len(self._others) >= MAX_WORKERS:
                longest_silent = min(self._others, key=lambda other_name: self._others[other_name].last_seen)
                if not self._is_silent(self._others[longest_silent], now):
                    return
                del self._others[longest_silent]
            host = _host_of(name)
            replaces = host in self._stopped
            if replaces:
                self._stopped[host] -= 1
                if not self._stopped[host]:
                    del self._stopped[host]
            other = _OtherWorker(first_seen=now, last_seen=now, last_at=0.0, round=0, replaces=replaces)
            self._others[name] = other
            self._announce_soon.set()  # so that the new worker soon lists this one
        other.last_seen, other.last_at, other.round = now, self._clock(), self._round
        other.clock_offsets.append(clock_offset)

    def _is_silent(self, other: _OtherWorker, now: float) -> bool:
        return self._round - other.round >= MISSED_ROUNDS and now - other.last_seen >= SILENT_SECONDS

    def list_vanished(self) -> list[tuple[str, float]]:
        """Return the workers that vanished, and the epoch seconds of their last announcements.

        Workers that are silent for over an hour, or that have a replacement on their host, are not included.
        """
        now = self._monotonic()
        replacements = self._find_replacements(now)
        return [(name, other.last_at) for name, other in self._find_silent(now).items() if name not in replacements]

    def _find_silent(self, now: float) -> dict[str, _OtherWorker]:
        """Return the workers that are silent, but not for over an hour."""
        return {
            name: other
            for name, other in self._others.items()
            if self._is_silent(other, now) and now - other.last_seen <= KEPT_SECONDS
        }

    def _find_replacements(self, now: float) -> dict[str, _OtherWorker]:
        """Return, by silent worker, a worker that started on its host after its last announcement.

        A worker replaces only one.
        """
        silent = self._find_silent(now)
        candidates: dict[str, list[_OtherWorker]] = {}  # by host: workers that may be a replacement
        if silent:
            for name, other in self._others.items():
                if not other.replaces:
                    candidates.setdefault(_host_of(name), []).append(other)
        replacements: dict[str, _OtherWorker] = {}
        for name, other in silent.items():
            on_host = candidates.get(_host_of(name), [])
            replacement = next((each for each in on_host if each.first_seen > other.last_seen), None)
            if replacement is not None:
                on_host.remove(replacement)
                replacements[name] = replacement
        return replacements

    def _forget_vanished(self, now: float) -> None:
        """Forget the workers that are silent for over an hour, or that have a replacement on their host."""
        for name, replacement in self._find_replacements(now).items():
            replacement.replaces = True
            del self._others[name]
        self._others = {
            name: other
            for name, other in self._others.items()
            if not self._is_silent(other, now) or now - other.last_seen <= KEPT_SECONDS
        }

    @property
    def clock_offset(self) -> float:
        """Return the seconds by which this worker's clock is ahead of the median of all clocks.

        With only one other worker, it is compared with that worker's clock. 0 if no other clock is known well enough.
        """
        vanished = {name for name, _ in self.list_vanished()}
        present = (other for name, other in self._others.items() if name not in vanished)
        offsets = [max(other.clock_offsets) for other in present if len(other.clock_offsets) > 1]
        if not offsets:
            return 0.0
        return -median(offsets if len(offsets) == 1 else [0.0, *offsets])

    def troubles(self) -> Iterator[Trouble]:
        """Yield a trouble for each worker that vanished, and one if this worker's clock differs."""
        for name, last_at in self.list_vanished():
            text = "it announced no stop, and is silent: it hangs, was killed, or lost the broker"
            yield Trouble(kind=TroubleKind.WORKER_VANISHED, text=text, since=last_at, subject=name)
        offset = self.clock_offset
        if abs(offset) > MAX_OFFSET_SECONDS:
            direction = "ahead of" if offset > 0 else "behind"
            text = f"the clock of {self._name} is {format_in_words(abs(offset))} {direction} those of the other workers"
            yield Trouble(kind=TroubleKind.CLOCK, text=text, subject=self._name)


async def _wait_for(seconds: float, event: asyncio.Event) -> None:
    """Wait for the event, but not longer than these seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _host_of(name: str) -> str:
    return name.rpartition(":")[0]

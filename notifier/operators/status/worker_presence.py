"""Announces this worker to the others over the side channel, counts the workers, and detects workers that vanished.

Each worker publishes an announcement when it starts, before it is ready, and then every five seconds. While it drains,
it announces its stop every second. A worker counts from its first announcement on, until it has been silent for 15 s,
or for 3 s after it announced its stop: then its messages are in the queue again. The number of workers divides the
clients' limits, and is unknown until a starting worker has received one round of announcements, which takes 1.5 s.

A worker that is silent for 30 s without an announced stop has vanished: it hangs, was killed or lost the broker. It is
listed for an hour, or until a worker that starts on the same host replaces it.

Silence is measured in rounds: a round begins when this worker receives its own announcement. During a broker alarm
nothing is received, so nobody seems silent. Announcements contain the sender's time, which shows whose clock differs.

Any program that may publish to the side channel can forge announcements. Invented workers only reduce the shares of the
real ones, and at most `MAX_WORKERS` are counted. Those that do not count give way, one a second, to workers that start.
Forged announcements of a worker do not shorten its first round, and it contradicts a forged stop within a second: so
no worker counts less. Silent workers are examined once a second at most, so a flood costs no search each.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Literal, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.durations import format_in_words
from notifier.model.moment import Clock, wait_for_event
from notifier.model.shared_resources import shared_bound, shared_ring
from notifier.model.trouble import Trouble, TroubleKind

ANNOUNCE_SECONDS = 5.0  # between two announcements
MIN_INTERVAL_SECONDS = 1.0  # between two announcements while other workers start, and while this one drains
FIRST_ROUND_SECONDS = 1.5  # from the first announcement to the second: all others announce themselves meanwhile
EXAMINE_SECONDS = 1.0  # between two examinations of all workers
MISSED_ROUNDS = 3  # after which a worker may be silent
UNCOUNTED_SECONDS = 14.0  # after which a silent worker no longer counts: three rounds, less the jitter of timers
STOPPED_SECONDS = 3.0  # after which a worker no longer counts that announced its stop
SILENT_SECONDS = 29.0  # after which a silent worker has vanished
KEPT_SECONDS = 3600.0  # for which a vanished worker is listed
MAX_WORKERS = shared_bound(1000)
MAX_BYTES = 1024  # of an announcement
MAX_CLOCK_SAMPLES = 6  # a late announcement makes a clock seem behind, so the greatest of several offsets counts
MAX_OFFSET_SECONDS = 5.0  # of a clock that is not reported
LEAVE_SECONDS = 1.0  # for the last announcement


class _Presence(TypedDict):
    v: Literal[1]
    id: NotRequired[Annotated[str, Field(min_length=1, max_length=64)]]  # older workers announce a name only
    worker: Annotated[str, Field(min_length=1, max_length=300)]
    at: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
    leaving: bool


_PRESENCE = TypeAdapter(_Presence)


@dataclass(slots=True, kw_only=True, eq=False)
class _OtherWorker:
    """Another worker. `first_seen` and `last_seen` are in monotonic seconds, `last_at` is in epoch seconds.

    `round` is this worker's round at the last announcement. `replaces`: it has replaced a worker that stopped or
    vanished. `stopped`: it announced its stop, or may have done so while this worker received nothing, so it never
    counts as vanished. `clock_offsets` are the seconds by which its clock seemed ahead.
    """

    name: str
    first_seen: float
    last_seen: float
    last_at: float
    round: int
    replaces: bool
    stopped: bool = False
    clock_offsets: deque[float] = field(default_factory=lambda: shared_ring(MAX_CLOCK_SAMPLES))


class WorkerPresence:
    """The presence of this worker and of the others. `clock` is the wall clock, `monotonic` never jumps.

    `own_id` is unique, unlike `name`: containers may share a host name. `count`: the number of workers, including this
    one; 0 while unknown.
    """

    def __init__(self, name: str, own_id: str, clock: Clock, monotonic: Clock) -> None:
        self._name = name
        self._id = own_id
        self._clock = clock
        self._monotonic = monotonic
        self.count, self._no_count_before = 0, -math.inf
        self._others: dict[str, _OtherWorker] = {}  # by id
        self._counted: set[str] = set()  # the ids of workers that count
        self._examined_at = self._room_searched_at = -math.inf
        self._stopped = Counter[str]()  # by host: workers that announced a stop and are not replaced yet
        self._round = 0  # number of own announcements received
        self._round_began_at: float | None = None  # None before the first announcement
        self._announce_soon, self._leaving, self._stop_sent = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._announced_stop = False  # whether the previous announcement announced the stop

    # ── this worker ──

    async def next_announcement(self) -> bytes:
        """Wait until the next announcement is due, and return it. A call confirms that the previous one was sent."""
        if self._round_began_at is None:
            self._round_began_at = self._monotonic()
            self._no_count_before = self._round_began_at + FIRST_ROUND_SECONDS
        elif self._announced_stop:
            self._stop_sent.set()
            await asyncio.sleep(MIN_INTERVAL_SECONDS)
        elif not self.count:
            await wait_for_event(self._leaving, FIRST_ROUND_SECONDS)
        else:
            await wait_for_event(self._leaving, MIN_INTERVAL_SECONDS)
            await wait_for_event(self._announce_soon, ANNOUNCE_SECONDS - MIN_INTERVAL_SECONDS)
        self._announce_soon.clear()
        self._announced_stop = self._leaving.is_set()
        return self.document()

    def document(self) -> bytes:
        """Return an announcement of this worker."""
        leaving = self._leaving.is_set()
        return _PRESENCE.dump_json(
            {"v": 1, "id": self._id, "worker": self._name, "at": self._clock(), "leaving": leaving}
        )

    async def leave(self) -> None:
        """Announce that this worker stops. Return once that was sent, after LEAVE_SECONDS at most."""
        self._leaving.set()
        self._announce_soon.set()
        if self._round_began_at is not None:
            await wait_for_event(self._stop_sent, LEAVE_SECONDS)

    # ── the others ──

    def on_announcement(self, document: bytes) -> None:
        """Record an announcement of any worker. Ignore an announcement that this release cannot read."""
        try:
            presence = _PRESENCE.validate_json(document if len(document) <= MAX_BYTES else b"")
        except ValidationError:
            return
        now, name = self._monotonic(), presence["worker"]
        key = presence.get("id", name)
        if key == self._id:
            if presence["leaving"] and not self._leaving.is_set():
                self._announce_soon.set()
            self._begin_round(now)
        elif presence["leaving"]:
            self._on_stop(key, now)
        else:
            self._on_presence(key, name, presence["at"] - self._clock(), now)
        if now >= self._examined_at + EXAMINE_SECONDS:
            self._examine(now)
        self.count = 1 + len(self._counted) if self._round > 1 and now >= self._no_count_before else 0

    def _begin_round(self, now: float) -> None:
        """Begin a round. After a gap without announcements, all workers that had not vanished may have stopped."""
        if self._round_began_at is not None and now - self._round_began_at > MISSED_ROUNDS * ANNOUNCE_SECONDS:
            for other in self._others.values():
                if other.stopped or not self._is_silent(other, now, SILENT_SECONDS):
                    other.stopped, other.last_seen, other.round = True, now, self._round
        self._round, self._round_began_at = self._round + 1, now

    def _on_stop(self, key: str, now: float) -> None:
        """Record that another worker stops. It counts for another STOPPED_SECONDS."""
        if (other := self._others.get(key)) is None:
            return
        if not other.stopped:
            self._stopped[_host_of(other.name)] += 1
            if len(self._stopped) > MAX_WORKERS:  # pods are replaced under new host names
                del self._stopped[next(iter(self._stopped))]
        other.stopped, other.round = True, self._round - MISSED_ROUNDS
        other.last_seen = now - UNCOUNTED_SECONDS + STOPPED_SECONDS

    def _on_presence(self, key: str, name: str, clock_offset: float, now: float) -> None:
        """Record that another worker is present. A new worker may replace a worker that stopped on its host."""
        other = self._others.get(key)
        if other is None or other.stopped:
            if other is None and len(self._others) >= MAX_WORKERS and not self._make_room(now):
                return
            host = _host_of(name)
            replaces = host in self._stopped
            if replaces:
                self._stopped[host] -= 1
                if not self._stopped[host]:
                    del self._stopped[host]
            other = _OtherWorker(name=name, first_seen=now, last_seen=now, last_at=0.0, round=0, replaces=replaces)
            self._others[key] = other
            self._announce_soon.set()  # so that the new worker soon counts this one
        other.last_seen, other.last_at, other.round = now, self._clock(), self._round
        other.clock_offsets.append(clock_offset)
        self._counted.add(key)

    def _make_room(self, now: float) -> bool:
        """Forget the worker that has been silent for longest. Return False if all count."""
        if now < self._room_searched_at + EXAMINE_SECONDS:
            return False
        self._room_searched_at = now
        uncounted = self._others.keys() - self._counted
        if uncounted:
            del self._others[min(uncounted, key=lambda key: self._others[key].last_seen)]
        return bool(uncounted)

    def _is_silent(self, other: _OtherWorker, now: float, seconds: float) -> bool:
        return self._round - other.round >= MISSED_ROUNDS and now - other.last_seen >= seconds

    def _examine(self, now: float) -> None:
        """Forget stopped workers, and vanished workers with a replacement or over an hour of silence. Count."""
        self._examined_at = now
        for key, replacement in self._find_replacements(now).items():
            replacement.replaces = True
            del self._others[key]
        self._counted = {
            key for key, other in self._others.items() if not self._is_silent(other, now, UNCOUNTED_SECONDS)
        }
        self._others = {
            key: other
            for key, other in self._others.items()
            if key in self._counted or (not other.stopped and now - other.last_seen <= KEPT_SECONDS)
        }

    def list_vanished(self) -> list[tuple[str, float]]:
        """Return the workers that vanished, and the epoch seconds of their last announcements.

        Workers that are silent for over an hour, or that have a replacement on their host, are not included.
        """
        now = self._monotonic()
        return [(other.name, other.last_at) for other in self._find_vanished(now).values()]

    def _find_vanished(self, now: float) -> dict[str, _OtherWorker]:
        replacements = self._find_replacements(now)
        return {key: other for key, other in self._find_silent(now).items() if key not in replacements}

    def _find_silent(self, now: float) -> dict[str, _OtherWorker]:
        """Return the workers that are silent without an announced stop, but not for over an hour."""
        return {
            key: other
            for key, other in self._others.items()
            if self._is_silent(other, now, SILENT_SECONDS)
            and not other.stopped
            and now - other.last_seen <= KEPT_SECONDS
        }

    def _find_replacements(self, now: float) -> dict[str, _OtherWorker]:
        """Return, by silent worker, a worker that started on its host after its last announcement.

        A worker replaces only one.
        """
        silent = self._find_silent(now)
        candidates: dict[str, list[_OtherWorker]] = {}  # by host, the newest last: workers that may be a replacement
        if silent:
            for other in sorted(self._others.values(), key=lambda other: other.first_seen):
                if not other.replaces:
                    candidates.setdefault(_host_of(other.name), []).append(other)
        replacements: dict[str, _OtherWorker] = {}
        for key, other in sorted(silent.items(), key=lambda item: -item[1].last_seen):
            on_host = candidates.get(_host_of(other.name))
            if on_host and on_host[-1].first_seen > other.last_seen:
                replacements[key] = on_host.pop()
        return replacements

    @property
    def clock_offset(self) -> float:
        """Return the seconds by which this worker's clock is ahead of the median of all clocks.

        With only one other worker, it is compared with that worker's clock. 0 if no other clock is known well enough.
        """
        vanished = self._find_vanished(self._monotonic())
        present = (other for key, other in self._others.items() if key not in vanished)
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


def _host_of(name: str) -> str:
    return name.rpartition(":")[0]

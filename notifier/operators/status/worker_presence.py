"""Announces this worker to the others over the side channel, and detects workers that vanished.

Each worker publishes its presence every ten seconds, and once more when it stops. A worker that is silent for 30 s
without announcing a stop has vanished: it hangs, was killed or lost the broker. It is listed for an hour, unless a
worker replaces it on the same host.

Silence counts only while this worker receives its own announcements. During a broker alarm nothing is received; after
such a gap the count restarts. Announcements contain the sender's time, so they show which clock differs.

"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.model.durations import format_in_words
from notifier.model.moment import Clock
from notifier.model.trouble import Trouble, TroubleKind

ANNOUNCE_SECONDS = 10.0
MIN_INTERVAL_SECONDS = 1.0  # between two announcements, however many workers start
MISSED_ROUNDS = 3
SILENT_SECONDS = 29.0  # with the rounds: 30 s, less the jitter of a timer
KEPT_SECONDS = 3600.0
MAX_WORKERS = 1000
MAX_BYTES = 1024
MAX_CLOCK_SAMPLES = 6  # announcements: a late one makes a clock seem behind, so the greatest offset counts
MAX_OFFSET_SECONDS = 5.0
LEAVE_SECONDS = 1.0


class _Presence(TypedDict):
    v: Literal[1]
    worker: Annotated[str, Field(min_length=1, max_length=300)]
    at: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
    leaving: bool


_PRESENCE = TypeAdapter(_Presence)


@dataclass(slots=True, kw_only=True)
class _OtherWorker:
    """Another worker. `replaces`: it replaced a worker that stopped or vanished."""

    first_seen: float
    last_seen: float
    last_at: float
    round: int
    replaces: bool
    clocks: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_CLOCK_SAMPLES))


class WorkerPresence:
    """The presence of this worker (`name`) and of the others. `clock` is the wall clock, `steady` is monotonic."""

    def __init__(self, name: str, clock: Clock, steady: Clock) -> None:
        self._name = name
        self._clock = clock
        self._steady = steady
        self._others: dict[str, _OtherWorker] = {}
        self._stopped = Counter[str]()  # by host: workers that announced a stop and are not replaced yet
        self._round = 0  # own announcements received
        self._round_began_at: float | None = None  # None where nothing is announced
        self._soon, self._leaving, self._farewell_sent = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._farewell = False

    # ── this worker ──

    async def next_announcement(self) -> bytes:
        """Return the next announcement when it is due. A call confirms that the previous one was sent."""
        if self._round_began_at is None:
            self._round_began_at = self._steady()
        elif self._farewell:
            self._farewell_sent.set()
            await asyncio.Event().wait()  # forever: nothing follows the farewell
        else:
            await _wait_for(MIN_INTERVAL_SECONDS, self._leaving)
            await _wait_for(ANNOUNCE_SECONDS - MIN_INTERVAL_SECONDS, self._soon)
        self._soon.clear()
        self._farewell = self._leaving.is_set()
        return self.document()

    def document(self) -> bytes:
        """Return an announcement."""
        return _PRESENCE.dump_json(
            {"v": 1, "worker": self._name, "at": self._clock(), "leaving": self._leaving.is_set()}
        )

    async def leave(self) -> None:
        """Announce the stop. Return when that was sent, after one second at most."""
        self._leaving.set()
        self._soon.set()
        if self._round_began_at is not None:
            await _wait_for(LEAVE_SECONDS, self._farewell_sent)

    # ── the others ──

    def on_announcement(self, document: bytes) -> None:
        """Record a worker's announcement. Ignore one that this release cannot read."""
        try:
            presence = _PRESENCE.validate_json(document if len(document) <= MAX_BYTES else b"")
        except ValidationError:
            return
        now, name = self._steady(), presence["worker"]
        if name == self._name:
            self._begin_round(now)
        elif presence["leaving"]:
            if self._others.pop(name, None) is not None:
                self._stopped[_host_of(name)] += 1
                if len(self._stopped) > MAX_WORKERS:  # the host names of pods do not return
                    del self._stopped[next(iter(self._stopped))]
        else:
            self._on_presence(name, presence["at"] - self._clock(), now)

    def _begin_round(self, now: float) -> None:
        """Record that this worker received its own announcement. After a gap, forget workers that had not vanished."""
        if self._round_began_at is not None and now - self._round_began_at > MISSED_ROUNDS * ANNOUNCE_SECONDS:
            gone = {name for name, _ in self.list_vanished()}
            self._others = {name: other for name, other in self._others.items() if name in gone}
        self._round, self._round_began_at = self._round + 1, now

    def _on_presence(self, name: str, offset: float, now: float) -> None:
        other = self._others.get(name)
        if other is None:
            if len(self._others) >= MAX_WORKERS and not self._forget_silent(now):
                return
            replaces = (host := _host_of(name)) in self._stopped
            if replaces:
                self._stopped[host] -= 1
                if not self._stopped[host]:
                    del self._stopped[host]
            other = _OtherWorker(first_seen=now, last_seen=now, last_at=0.0, round=0, replaces=replaces)
            self._others[name] = other
            self._soon.set()  # so that a worker that has just started sees this one
        other.last_seen, other.last_at, other.round = now, self._clock(), self._round
        other.clocks.append(offset)

    def _forget_silent(self, now: float) -> bool:
        """Forget the worker that is silent for longest. Return False if none is silent."""
        name, oldest = min(self._others.items(), key=lambda item: item[1].last_seen)
        if self._is_silent(oldest, now):
            del self._others[name]
        return name not in self._others

    def _is_silent(self, other: _OtherWorker, now: float) -> bool:
        return self._round - other.round >= MISSED_ROUNDS and now - other.last_seen >= SILENT_SECONDS

    def list_vanished(self) -> list[tuple[str, float]]:
        """Return the workers that vanished within the last hour, and when each was last seen (epoch seconds)."""
        now = self._steady()
        silent = {name: other for name, other in self._others.items() if self._is_silent(other, now)}
        started: dict[str, list[_OtherWorker]] = {}  # by host: workers that may replace another
        if silent:
            for name, other in self._others.items():
                if not other.replaces:
                    started.setdefault(_host_of(name), []).append(other)
        for name, other in list(silent.items()):
            if now - other.last_seen > KEPT_SECONDS or _take_replacement(other, started.get(_host_of(name), ())):
                del self._others[name], silent[name]
        return [(name, other.last_at) for name, other in silent.items()]

    @property
    def clock_offset(self) -> float:
        """Return the seconds that this worker's clock is ahead of the median, or of the only other worker."""
        gone = {name for name, _ in self.list_vanished()}
        theirs = [
            max(other.clocks) for name, other in self._others.items() if len(other.clocks) > 1 and name not in gone
        ]
        return -median(theirs if len(theirs) < 2 else [0.0, *theirs]) if theirs else 0.0

    def troubles(self) -> Iterator[Trouble]:
        """Yield the workers that vanished, and whether this worker's clock differs."""
        for name, last_at in self.list_vanished():
            text = "it announced no stop, and is silent: it hangs, was killed, or lost the broker"
            yield Trouble(kind=TroubleKind.WORKER_VANISHED, text=text, since=last_at, subject=name)
        offset = self.clock_offset
        if abs(offset) > MAX_OFFSET_SECONDS:
            direction = "ahead of" if offset > 0 else "behind"
            text = f"the clock of {self._name} is {format_in_words(abs(offset))} {direction} those of the other workers"
            yield Trouble(kind=TroubleKind.CLOCK, text=text, subject=self._name)


def _take_replacement(silent: _OtherWorker, others: Iterable[_OtherWorker]) -> bool:
    """Return True if a worker of the host was started since; mark it, as it replaces only one."""
    for other in others:
        if not other.replaces and other.first_seen > silent.last_seen:
            other.replaces = True
            return True
    return False


async def _wait_for(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _host_of(name: str) -> str:
    return name.rpartition(":")[0]

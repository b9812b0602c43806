"""Keeps the registry as its sources are: reads each again and again, and keeps the last good answer of one that fails.

A source is read every so often (± 10 %), when somebody asks, and when a delivery is for a client that nobody knows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Protocol

import structlog

from notifier.configuration.clients.client_rows import SourceAnswer, Taken
from notifier.model.errors import SourceFault
from notifier.model.frozen import frozen
from notifier.model.moment import Clock
from notifier.model.trouble import Trouble, TroubleKind

SPREAD = 0.1  # share by which a pause is changed at random, so that workers do not ask together
FIRST_PAUSE = 1.0  # seconds after a failure; it doubles up to the source's own pause
APART = 5.0  # seconds between two readings for unknown clients
SUDDEN = 3600.0  # seconds for which a sudden change is told


class Reading(Protocol):
    """Reads one source."""

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return what the source holds; `rows` is that of `last` if no row has changed. Raises SourceFault."""

    async def settle(self, answer: SourceAnswer, replaced: SourceAnswer | None) -> None:
        """Keep the answer for the next start, and free the one that it replaces. Never raises."""

    async def forget(self) -> None:
        """Drop all that is kept of the source, for the next start too. Never raises."""


Take = Callable[[str, SourceAnswer | None, str | None], Awaitable[Taken]]
"""Puts a source's answer into the registry, or takes it out (None). The last says who accepts a loss of clients."""


@frozen
class RefreshedSource:
    """A source, how often it is read (seconds), whose clients it has (None: of any issuer), and its last answer."""

    name: str
    kind: str
    every: float
    issuer: str | None
    reading: Reading
    last: SourceAnswer | None


@frozen
class SourceState:
    """How a source fares. `age`: seconds since it last confirmed what is in force; without an answer, since asked.

    `changed`: within the last hour many of its clients came or moved at once.
    """

    name: str
    kind: str
    up: bool
    age: float
    clients: int = 0
    problem: str | None = None
    changed: bool = False

    def document(self, *, whole: bool) -> dict[str, object]:
        """As JSON. Unless `whole`, without what may be of any issuer: the number of clients, and `problem`."""
        return asdict(self) | ({} if whole else {"clients": None, "problem": None})


@dataclass(slots=True)
class _Kept:
    source: RefreshedSource
    last: SourceAnswer | None
    since: float
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    accepted_by: str | None = None
    dropped_by: str | None = None
    sudden: str | None = None
    sudden_at: float = float("-inf")
    begun: float = float("-inf")
    problem: str | None = None
    holds_back: bool = False
    failures: int = 0
    waiters: list[asyncio.Event] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    later: asyncio.TimerHandle | None = None


class RegistryRefresh:
    """Reads the sources. `take` is called for each answer with another row."""

    def __init__(self, take: Take, *, clock: Clock, steady: Clock, jitter: Callable[[], float]) -> None:
        self._take = take
        self._clock = clock
        self._steady = steady
        self._jitter = jitter
        self._kept: dict[str, _Kept] = {}
        self._running = False
        self._complete = asyncio.Event()
        self._log = structlog.get_logger()

    def watch(self, sources: Sequence[RefreshedSource]) -> None:
        """Read these sources from now on, and no others."""
        old, self._kept = self._kept, {}
        for source in sources:
            before = old.pop(source.name, None)
            if before is not None and before.source.reading is source.reading:
                before.source = source
                self._kept[source.name] = before
            else:
                self._stop(before)
                self._kept[source.name] = kept = _Kept(source=source, last=source.last, since=self._clock())
                self._begin(kept)
        for gone in old.values():
            self._stop(gone)
        self._note_completeness()

    async def run(self) -> None:
        """Read until cancelled."""
        self._running = True
        for kept in self._kept.values():
            self._begin(kept)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._running = False
            for kept in self._kept.values():
                self._stop(kept)

    async def complete(self) -> None:
        """Return once each source has an answer, of now or of an earlier worker."""
        await self._complete.wait()

    async def refresh(self, *, accepted_by: str | None) -> Sequence[SourceState]:
        """Read all sources now, and return how they fare then. `accepted_by`: who accepts a much shorter answer."""
        done = []
        for kept in self._kept.values():
            kept.waiters.append(asyncio.Event())
            kept.accepted_by = accepted_by or kept.accepted_by
            kept.wake.set()
            done.append(kept.waiters[-1])
        for each in done:
            await each.wait()
        return self.states()

    def drop(self, name: str, *, dropped_by: str) -> str | None:
        """Have the next reading of the source begin anew, without anything it said before; say if there is none."""
        kept = self._kept.get(name)
        if kept is None:
            return (
                f"no registry source that is read again is called {name!r}; there is {', '.join(self._kept) or 'none'}"
            )
        kept.dropped_by = dropped_by
        return None

    def unknown(self, iss: str) -> None:
        """A delivery is for a client that nobody knows. Read the sources that may know it, at most every 5 s."""
        for kept in self._kept.values():
            if kept.source.issuer not in (None, iss) or kept.later is not None:
                continue
            wait = kept.begun + APART - self._steady()
            if wait <= 0:
                kept.wake.set()
            else:
                kept.later = asyncio.get_running_loop().call_later(wait, self._wake_late, kept)

    def problem(self) -> str | None:
        """Why the worker cannot begin; None if it can."""
        for kept in self._kept.values():
            if kept.last is None:
                return f"registry source {kept.source.name} was never read: {kept.problem or 'it is being read'}"
        return None

    def states(self) -> Sequence[SourceState]:
        """How each source fares."""
        now = self._clock()
        return [
            SourceState(
                name=kept.source.name,
                kind=kept.source.kind,
                up=kept.problem is None and kept.last is not None,
                age=max(0.0, now - (kept.since if kept.last is None else kept.last.at)),
                clients=0 if kept.last is None else len(kept.last.rows),
                problem=kept.problem,
                changed=now - kept.sudden_at < SUDDEN,
            )
            for kept in self._kept.values()
        ]

    def troubles(self) -> Iterator[Trouble]:
        """What is wrong with the sources."""
        for kept in self._kept.values():
            name = kept.source.name
            if kept.problem is not None:
                known = "; it was never read" if kept.last is None else "; its last good answer is in force"
                since = kept.since if kept.last is None else kept.last.at
                text = kept.problem + ("" if kept.holds_back else known)
                yield Trouble(kind=TroubleKind.SOURCE_FAILED, subject=name, text=text, since=since)
            if kept.sudden is not None and self._clock() - kept.sudden_at < SUDDEN:
                text, since = kept.sudden, kept.sudden_at
                yield Trouble(kind=TroubleKind.SOURCE_CHANGED, subject=name, text=text, since=since)

    def _begin(self, kept: _Kept) -> None:
        if self._running and kept.task is None:
            kept.task = asyncio.create_task(self._keep(kept))

    def _stop(self, kept: _Kept | None) -> None:
        if kept is None:
            return
        if kept.task is not None:
            kept.task.cancel()
        if kept.later is not None:
            kept.later.cancel()
        for waiter in kept.waiters:
            waiter.set()

    def _wake_late(self, kept: _Kept) -> None:
        kept.later = None
        kept.wake.set()

    def _note_completeness(self) -> None:
        if self.problem() is None:
            self._complete.set()

    async def _keep(self, kept: _Kept) -> None:
        waiters: list[asyncio.Event] = []
        try:
            while True:
                kept.wake.clear()
                waiters, kept.waiters = kept.waiters, []
                accepted_by, kept.accepted_by = kept.accepted_by, None
                dropped_by, kept.dropped_by = kept.dropped_by, None
                kept.begun = self._steady()
                if dropped_by is None:
                    self._judge(kept, await self._read(kept, kept.last, accepted_by))
                else:
                    self._judge(kept, await self._read_anew(kept, dropped_by))
                while waiters:
                    waiters.pop().set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause(kept)):
                        await kept.wake.wait()
        finally:
            for waiter in waiters:
                waiter.set()

    async def _read_anew(self, kept: _Kept, dropped_by: str) -> str | None:
        """Read the source as if it had never answered. If it does not answer, it has no clients until it does."""
        source = kept.source
        await source.reading.forget()
        problem = await self._read(kept, None, dropped_by)
        if problem is not None:
            await self._take(source.name, None, dropped_by)
            kept.last, kept.since = None, self._clock()
        return problem

    async def _read(self, kept: _Kept, last: SourceAnswer | None, accepted_by: str | None) -> str | None:
        """Read the source, and have its answer taken. Return what is wrong, None if nothing is."""
        source, problem = kept.source, None
        kept.holds_back = False
        try:
            answer = await source.reading.read(last)
            if last is None or answer.rows is not last.rows or answer.faults != last.faults:
                taken = await self._take(source.name, answer, accepted_by)
                assert taken.answer is not None
                answer, problem = taken.answer, taken.held_back
                kept.holds_back = problem is not None
                self._note_sudden(kept, taken.sudden)
                if last is None or answer.rows is not last.rows or answer.faults != last.faults:
                    replaced, kept.last = kept.last, answer
                    self._note_completeness()
                    await source.reading.settle(answer, replaced)
                    self._log.info("registry_refreshed", source=source.name, clients=len(answer.rows))
        except SourceFault as fault:
            return str(fault)
        except Exception as error:  # noqa: BLE001  one source must not end the worker
            return f"taking its answer failed with {type(error).__name__}"
        kept.last = answer
        self._note_completeness()
        return problem

    def _note_sudden(self, kept: _Kept, sudden: str | None) -> None:
        if sudden is not None:
            kept.sudden, kept.sudden_at = sudden, self._clock()
            self._log.warning("registry_source_changed", source=kept.source.name, change=sudden)

    def _judge(self, kept: _Kept, problem: str | None) -> None:
        """Note how the reading went, and log it if that is news."""
        before, kept.problem = kept.problem, problem
        kept.failures = 0 if problem is None else kept.failures + 1
        if problem is None and before is not None:
            self._log.info("registry_source_well", source=kept.source.name)
        elif problem is not None and problem != before:
            kept_list = (
                "nothing yet" if kept.last is None else "these clients" if kept.holds_back else "its last good answer"
            )
            self._log.error("registry_source_failed", source=kept.source.name, reason=problem, kept=kept_list)

    def _pause(self, kept: _Kept) -> float:
        every = kept.source.every
        pause = min(every, FIRST_PAUSE * 2.0 ** min(kept.failures - 1, 16)) if kept.failures else every
        return pause * (1 + SPREAD * (2 * self._jitter() - 1))

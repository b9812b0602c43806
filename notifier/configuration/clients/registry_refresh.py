"""Keeps the registry up to date with its sources. If a source fails, its last good answer stays in force.

A source is read at an interval (± 10 %), on request, and when a delivery is for an unknown client.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer, SourceState
from notifier.model.errors import SourceFault, describe_error
from notifier.model.moment import Clock, wait_for_event
from notifier.model.record import record
from notifier.model.shared_resources import shared_event
from notifier.model.trouble import Trouble, TroubleKind

JITTER_SHARE = 0.1  # share of a pause that is random, so that workers do not read a source at the same time
FIRST_PAUSE_SECONDS = 1.0  # after a failure, doubled up to the source's interval
MIN_INTERVAL_SECONDS = 5.0  # between two readings for unknown clients
SUDDEN_CHANGE_SECONDS = 3600.0  # a sudden change is reported for so long
MAX_DOUBLINGS = 16  # of the pause, so that the power of two stays finite


class Reading(Protocol):
    """Reads one source."""

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        """Return the current clients; `rows` is the object of `last` if no row has changed. Raises SourceFault."""

    async def settle(self, answer: SourceAnswer, replaced: SourceAnswer | None) -> None:
        """Cache the answer for the next start, and free the replaced answer. Never raises."""

    async def forget(self) -> None:
        """Discard all state of the source, including the cache. Never raises."""


ApplyAnswer = Callable[[str, SourceAnswer | None, str | None], Awaitable[AnswerResult]]
"""Applies the answer of a source to the registry, or removes the source's clients if the answer is None.

The arguments are the source's name, the answer, and the operator who accepts a loss of clients.
"""


@record
class RefreshedSource:
    """A source to refresh every `every` seconds. `issuer`: the issuer of all its clients, None if there are several.

    `last`: the last answer.
    """

    name: str
    kind: str
    every: float
    issuer: str | None
    reading: Reading
    last: SourceAnswer | None


@dataclass(slots=True)
class _RefreshState:
    source: RefreshedSource
    last: SourceAnswer | None
    read_at: float  # the last reading that succeeded; without one, when the source was configured or dropped
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    accepted_by: str | None = None
    dropped_by: str | None = None
    sudden_change: str | None = None
    sudden_at: float = float("-inf")
    begun_at: float = float("-inf")
    problem: str | None = None
    failed_at: float | None = None  # the first failure in a row
    holds_back: bool = False
    failures: int = 0
    waiters: list[asyncio.Event] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    wake_timer: asyncio.TimerHandle | None = None


class RegistryRefresh:
    """Reads the sources periodically. `apply` is called for each answer that differs from the last."""

    def __init__(self, apply: ApplyAnswer, *, clock: Clock, monotonic: Clock, jitter: Callable[[], float]) -> None:
        self._apply = apply
        self._clock = clock
        self._monotonic = monotonic
        self._jitter = jitter
        self._kept: dict[str, _RefreshState] = {}
        self._running = False
        self._complete = shared_event()
        self._log = structlog.get_logger()

    def watch(self, sources: Sequence[RefreshedSource]) -> None:
        """Read exactly these sources from now on."""
        old, self._kept = self._kept, {}
        for source in sources:
            before = old.pop(source.name, None)
            if before is not None and before.source.reading is source.reading:
                before.source = source
                self._kept[source.name] = before
            else:
                self._stop(before)
                read_at = self._clock() if source.last is None else source.last.at
                self._kept[source.name] = state = _RefreshState(source=source, last=source.last, read_at=read_at)
                self._begin(state)
        for dropped in old.values():
            self._stop(dropped)
        self._check_completeness()

    async def run(self) -> None:
        """Read until cancelled."""
        self._running = True
        for state in self._kept.values():
            self._begin(state)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._running = False
            for state in self._kept.values():
                self._stop(state)

    async def complete(self) -> None:
        """Return once each source has an answer, which may be a cached one."""
        await self._complete.wait()

    async def refresh(self, *, accepted_by: str | None) -> Sequence[SourceState]:
        """Read all sources now, and return their states. `accepted_by`: who accepts a loss of clients."""
        waited = [(state, asyncio.Event()) for state in self._kept.values()]
        for state, done in waited:
            state.waiters.append(done)
            state.accepted_by = accepted_by or state.accepted_by
            state.wake.set()
        await asyncio.gather(*(done.wait() for _, done in waited))
        return self.states()

    def drop(self, name: str, *, dropped_by: str) -> str | None:
        """Discard all answers of the source at its next reading. Return an error if the source is unknown."""
        state = self._kept.get(name)
        if state is None:
            names = ", ".join(self._kept) or "none"
            return f"no registry source that is read again is called {name!r}; there is {names}"
        state.dropped_by = dropped_by
        return None

    def on_unknown_client(self, iss: str) -> None:
        """Read the sources of the issuer again, at most every MIN_INTERVAL_SECONDS, to find the client there."""
        for state in self._kept.values():
            if state.source.issuer not in (None, iss) or state.wake_timer is not None:
                continue
            wait = state.begun_at + MIN_INTERVAL_SECONDS - self._monotonic()
            if wait <= 0:
                state.wake.set()
            else:
                state.wake_timer = asyncio.get_running_loop().call_later(wait, self._wake, state)

    def problem(self) -> str | None:
        """Return why the worker cannot start its deliveries: the first source that was never read. Otherwise None."""
        for state in self._kept.values():
            if state.last is None:
                return f"registry source {state.source.name} was never read: {state.problem or 'it is being read'}"
        return None

    def states(self) -> Sequence[SourceState]:
        """Return the state of each source."""
        now = self._clock()
        return [
            SourceState(
                name=state.source.name,
                kind=state.source.kind,
                up=state.problem is None and state.last is not None,
                age=max(0.0, now - state.read_at),
                clients=0 if state.last is None else len(state.last.rows),
                problem=state.problem,
                changed=now - state.sudden_at < SUDDEN_CHANGE_SECONDS,
                held_back=state.holds_back,
            )
            for state in self._kept.values()
        ]

    def troubles(self) -> Iterator[Trouble]:
        """Yield the problems of the sources."""
        for state in self._kept.values():
            if state.problem is not None:
                remark = "; it was never read" if state.last is None else "; its last good answer is in force"
                kind, remark = (TroubleKind.LOSS_HELD, "") if state.holds_back else (TroubleKind.SOURCE_FAILED, remark)
                yield Trouble(kind=kind, subject=state.source.name, text=state.problem + remark, since=state.failed_at)
            if state.sudden_change is not None and self._clock() - state.sudden_at < SUDDEN_CHANGE_SECONDS:
                kind = TroubleKind.SOURCE_CHANGED
                yield Trouble(kind=kind, subject=state.source.name, text=state.sudden_change, since=state.sudden_at)

    def _begin(self, state: _RefreshState) -> None:
        if self._running and state.task is None:
            state.task = asyncio.create_task(self._run_source(state))

    def _stop(self, state: _RefreshState | None) -> None:
        if state is None:
            return
        if state.task is not None:
            state.task.cancel()
        if state.wake_timer is not None:
            state.wake_timer.cancel()
        for waiter in state.waiters:
            waiter.set()

    def _wake(self, state: _RefreshState) -> None:
        state.wake_timer = None
        state.wake.set()

    def _check_completeness(self) -> None:
        if self.problem() is None:
            self._complete.set()

    async def _run_source(self, state: _RefreshState) -> None:
        waiters: list[asyncio.Event] = []
        try:
            while True:
                state.wake.clear()
                waiters, state.waiters = state.waiters, []
                accepted_by, state.accepted_by = state.accepted_by, None
                dropped_by, state.dropped_by = state.dropped_by, None
                state.begun_at = self._monotonic()
                if dropped_by is None:
                    problem = await self._read(state, state.last, accepted_by)
                else:
                    problem = await self._read_from_scratch(state, dropped_by)
                self._record_result(state, problem)
                while waiters:
                    waiters.pop().set()
                await wait_for_event(state.wake, self._pause_seconds(state))
        finally:
            for waiter in waiters:
                waiter.set()

    async def _read_from_scratch(self, state: _RefreshState, dropped_by: str) -> str | None:
        """Read the source as if it had never answered. If that fails, it has no clients until it answers."""
        source = state.source
        await source.reading.forget()
        problem = await self._read(state, None, dropped_by)
        if problem is not None:
            await self._apply(source.name, None, dropped_by)
            state.last, state.read_at = None, self._clock()
        return problem

    async def _read(self, state: _RefreshState, last: SourceAnswer | None, accepted_by: str | None) -> str | None:
        """Read the source and apply its answer. Return the problem; None if there is none."""
        source, problem, holds_back = state.source, None, False
        try:
            answer = await source.reading.read(last)
            state.read_at = answer.at
            if _differs(answer, last):
                result = await self._apply(source.name, answer, accepted_by)
                assert result.answer is not None
                answer, problem = result.answer, result.held_back
                holds_back = problem is not None
                self._record_sudden_change(state, result.sudden_change)
                if _differs(answer, last):  # not if the guard has held back all changes
                    replaced, state.last = state.last, answer
                    self._check_completeness()
                    await source.reading.settle(answer, replaced)
                    self._log.info("registry_refreshed", source=source.name, clients=len(answer.rows))
        except SourceFault as fault:
            return str(fault)
        except Exception as error:  # noqa: BLE001  one source must not end the worker
            return f"taking its answer failed: {describe_error(error)}"
        finally:
            state.holds_back = holds_back  # not before, so that it stays during the next reading
        state.last = answer
        self._check_completeness()
        return problem

    def _record_sudden_change(self, state: _RefreshState, sudden_change: str | None) -> None:
        if sudden_change is not None:
            state.sudden_change, state.sudden_at = sudden_change, self._clock()
            self._log.warning("registry_source_changed", source=state.source.name, change=sudden_change)

    def _record_result(self, state: _RefreshState, problem: str | None) -> None:
        """Record the result of a reading, and log it if it has changed."""
        before, state.problem = state.problem, problem
        state.failures = 0 if problem is None else state.failures + 1
        state.failed_at = None if problem is None else state.failed_at or self._clock()
        if problem is None and before is not None:
            self._log.info("registry_source_well", source=state.source.name)
        elif problem is not None and problem != before:
            kept = "these clients" if state.holds_back else "its last good answer"
            if state.last is None:
                kept = "nothing yet"
            self._log.error("registry_source_failed", source=state.source.name, reason=problem, kept=kept)

    def _pause_seconds(self, state: _RefreshState) -> float:
        """Return the seconds until the next reading: the interval, or less after failures, with jitter."""
        pause = state.source.every
        if state.failures:
            pause = min(pause, FIRST_PAUSE_SECONDS * 2.0 ** min(state.failures - 1, MAX_DOUBLINGS))
        return pause * (1 + JITTER_SHARE * (2 * self._jitter() - 1))


def _differs(answer: SourceAnswer, last: SourceAnswer | None) -> bool:
    return last is None or answer.rows is not last.rows or answer.faults != last.faults

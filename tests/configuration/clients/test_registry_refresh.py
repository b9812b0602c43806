"""When registry sources are read, and what becomes of one that fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer
from notifier.configuration.clients.registry_refresh import RefreshedSource, RegistryRefresh
from notifier.model.errors import SourceFault
from tests.system.waiting import until as until_answer

Said = SourceAnswer | str | None
"""What a source answers: clients, a fault, nothing ever."""


def answer(*names: str) -> SourceAnswer:
    """These clients."""
    return SourceAnswer(rows=[{"client_id": name} for name in names], at=0.0)


class RepairReport:
    """A source that says what the test wants."""

    def __init__(self, says: Said = None) -> None:
        self.says = says
        self.read_at: list[float] = []
        self.saved: list[SourceAnswer] = []
        self.forgotten = 0
        self.asked_after: list[SourceAnswer | None] = []

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        self.read_at.append(asyncio.get_running_loop().time())
        self.asked_after.append(last)
        match self.says:
            case SourceAnswer():
                return last if last is not None and last.rows == self.says.rows else self.says
            case str():
                raise SourceFault(self.says)
            case _:
                await asyncio.Event().wait()
                raise AssertionError

    async def settle(self, answer: SourceAnswer, replaced: SourceAnswer | None) -> None:
        del replaced
        self.saved.append(answer)

    async def forget(self) -> None:
        self.forgotten += 1


class Registry:
    """What has been taken. While it holds back, it keeps its last answer. It reports `sudden_change` of the next."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, SourceAnswer | None, str | None]] = []
        self.holds_back: str | None = None
        self.sudden_change: str | None = None

    async def take(self, name: str, found: SourceAnswer | None, accepted_by: str | None) -> AnswerResult:
        if self.holds_back is not None and not accepted_by:
            return AnswerResult(answer=self.taken[-1][1], held_back=self.holds_back)
        self.taken.append((name, found, accepted_by))
        sudden_change, self.sudden_change = self.sudden_change, None
        return AnswerResult(answer=found, sudden_change=sudden_change)


def refreshed(
    reading: RepairReport, *, every: float = 60.0, issuer: str | None = None, last: SourceAnswer | None = None
) -> RefreshedSource:
    """A source called db."""
    return RefreshedSource(name="db", kind="sql", every=every, issuer=issuer, reading=reading, last=last)


@asynccontextmanager
async def running(
    registry: Registry, *sources: RefreshedSource, clock: Callable[[], float] = lambda: 100.0
) -> AsyncIterator[RegistryRefresh]:
    """The sources are read while entered."""
    loop = asyncio.get_running_loop()
    refresh = RegistryRefresh(registry.take, clock=clock, steady=loop.time, jitter=lambda: 0.5)
    refresh.watch(sources)
    task = asyncio.create_task(refresh.run())
    try:
        yield refresh
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], object]) -> None:
    """Wait for it."""

    async def ask() -> bool:
        return bool(condition())

    await until_answer(ask, bool)


def lines(capsys: pytest.CaptureFixture[str], *events: str) -> Sequence[str]:
    """Which of these were logged, in order."""
    captured = capsys.readouterr()
    found = [(line.find(event), event) for line in (captured.out + captured.err).splitlines() for event in events]
    return [event for place, event in found if place >= 0]


async def test_a_source_that_fails_is_logged_once_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    """Its last good answer stays; its age grows from when it was given."""
    registry, source = Registry(), RepairReport(answer("shop"))
    async with running(registry, refreshed(source, every=0.01)) as refresh:
        await refresh.complete()
        for says in ("away", "away", "else", answer("shop")):
            source.says, source.read_at = says, []
            await until(lambda: len(source.read_at) > 2)
            (state,) = refresh.states()
            assert (state.up, state.problem) == ((True, None) if isinstance(says, SourceAnswer) else (False, says))
            assert (state.clients, state.age) == (1, 100.0)
    assert len(registry.taken) == 1
    told = ["registry_source_failed", "registry_source_well", "registry_refreshed"]
    assert lines(capsys, *told) == [told[2], told[0], told[0], told[1]]


@pytest.mark.parametrize("last", [None, answer("shop")])
async def test_a_source_fails_since_its_first_failure_in_a_row(last: SourceAnswer | None) -> None:
    """Not since its last success, nor since the worker started."""
    registry, source, now = Registry(), RepairReport(answer("shop")), [100.0]
    async with running(registry, refreshed(source, last=last), clock=lambda: now[0]) as refresh:
        await refresh.complete()
        for began, says in ((500.0, "away"), (1500.0, answer("shop")), (2000.0, "else")):
            for now[0] in (began, began + 300.0):
                source.says = says
                await refresh.refresh(accepted_by=None)
            since = [trouble.since for trouble in refresh.troubles()]
            assert since == ([] if isinstance(says, SourceAnswer) else [began])


async def test_what_is_held_back_stays_until_somebody_lets_it_go() -> None:
    """A reading that nobody asked for lets nothing go. Nothing is saved where nothing has changed."""
    registry, source = Registry(), RepairReport(answer("a", "b"))
    async with running(registry, refreshed(source)) as refresh:
        await refresh.complete()
        registry.holds_back, source.says = "held back: a, b", answer()
        for _ in range(2):
            (state,) = await refresh.refresh(accepted_by=None)
            assert (state.up, state.problem, state.clients) == (False, "held back: a, b", 2)
        assert [trouble.text for trouble in refresh.troubles()] == ["held back: a, b"]
        (state,) = await refresh.refresh(accepted_by="alice")
        assert (state.up, state.problem, state.clients) == (True, None, 0)
    assert [found and len(found.rows) for _, found, _ in registry.taken] == [2, 0]
    assert [len(found.rows) for found in source.saved] == [2, 0]


async def test_a_source_that_is_dropped_and_away_has_no_clients() -> None:
    """Better nobody is told for a while than an address that somebody else has chosen. It comes back by itself."""
    registry, source = Registry(), RepairReport(answer("evil"))
    async with running(registry, refreshed(source, every=0.01)) as refresh:
        await refresh.complete()
        source.says = "away"
        refresh.drop("db", dropped_by="alice")
        (state,) = await refresh.refresh(accepted_by=None)
        assert (state.up, state.clients, refresh.problem()) == (False, 0, "registry source db was never read: away")
        assert registry.taken[-1][1:] == (None, "alice")
        source.says = answer("shop")
        await until(lambda: refresh.problem() is None)
    assert registry.taken[-1][1:] == (answer("shop"), None)


async def test_a_sudden_change_is_told_for_an_hour(capsys: pytest.CaptureFixture[str]) -> None:
    """By the log once, and by the state and a trouble meanwhile."""
    registry, source, now = Registry(), RepairReport(answer("a")), [100.0]
    async with running(registry, refreshed(source), clock=lambda: now[0]) as refresh:
        await refresh.complete()
        registry.sudden_change, source.says = "40 are new", answer("b")
        for moment, told in ((200.0, True), (3700.0, True), (3900.0, False)):
            now[0] = moment
            (state,) = await refresh.refresh(accepted_by=None)
            assert (state.up, state.changed) == (True, told)
            assert [each.text for each in refresh.troubles()] == ["40 are new"] * told
    assert len(lines(capsys, "registry_source_changed")) == 1


async def test_an_unknown_client_has_its_sources_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, then at most every so often, and never for nothing: the last mention is followed by a reading."""
    monkeypatch.setattr("notifier.configuration.clients.registry_refresh.MIN_INTERVAL_SECONDS", 0.1)
    registry, ours, others = Registry(), RepairReport(answer("shop")), RepairReport(answer("shop"))
    two = [refreshed(ours, issuer="https://a"), RefreshedSource(
        name="other", kind="sql", every=60, issuer="https://b", reading=others, last=None
    )]  # fmt: skip
    async with running(registry, *two) as refresh:
        await refresh.complete()
        await asyncio.sleep(0.15)
        for _ in range(20):
            refresh.unknown("https://a")
            await asyncio.sleep(0.01)
        ours.says = answer("shop", "new")
        refresh.unknown("https://a")
        await until(lambda: len(registry.taken) == 3)
    gaps = [later - earlier for earlier, later in zip(ours.read_at, ours.read_at[1:], strict=False)]
    assert min(gaps) >= 0.09
    assert len(others.read_at) == 1


async def test_other_sources_after_a_reload() -> None:
    """One that stays goes on; one that is gone is read no more; a new one is read at once."""
    registry, stays, goes, comes = (
        Registry(),
        RepairReport(answer("a")),
        RepairReport(answer("b")),
        RepairReport(answer("c")),
    )
    first = [
        refreshed(stays),
        RefreshedSource(name="two", kind="http", every=0.01, issuer=None, reading=goes, last=None),
    ]
    async with running(registry, *first) as refresh:
        await refresh.complete()
        refresh.watch([refreshed(stays), RefreshedSource(
            name="three", kind="http", every=60, issuer=None, reading=comes, last=answer("old")
        )])  # fmt: skip
        count = len(goes.read_at)
        await until(lambda: comes.saved)
        await asyncio.sleep(0.05)
        assert len(goes.read_at) == count
        assert len(stays.read_at) == 1
        assert [state.name for state in refresh.states()] == ["db", "three"]


async def test_a_source_that_never_answers_holds_up_no_other() -> None:
    """Nor the end of the worker."""
    registry, well = Registry(), RepairReport(answer("a"))
    hangs = RefreshedSource(name="hangs", kind="http", every=60, issuer=None, reading=RepairReport(), last=answer("b"))
    async with running(registry, refreshed(well), hangs) as refresh:
        await until(lambda: registry.taken)
        assert [state.up for state in refresh.states()] == [True, True]

"""Test when registry sources are read, and how failures are handled."""

import asyncio
import errno
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from notifier.configuration.clients import source_reading
from notifier.configuration.clients.answers import Cache
from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer
from notifier.configuration.clients.registry_refresh import RefreshedSource, RegistryRefresh
from notifier.configuration.clients.source_reading import DirectReader, SourceReading
from notifier.model.errors import ConfigurationError, InputIssue, SourceFault
from notifier.model.record import copy_record
from notifier.settings.registry_settings import RegistrySourceSettings
from tests.system.waiting import until as until_answer

Outcome = SourceAnswer | str | None
"""What a source answers: clients, a fault, nothing ever."""


def answer(*names: str) -> SourceAnswer:
    """Return an answer with these clients."""
    return SourceAnswer(rows=[{"client_id": name} for name in names], at=0.0)


class FakeSource:
    """A source whose answers the test sets."""

    def __init__(self, outcome: Outcome = None) -> None:
        self.outcome = outcome
        self.read_at: list[float] = []
        self.saved: list[SourceAnswer] = []
        self.forgotten = 0
        self.asked_after: list[SourceAnswer | None] = []

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        self.read_at.append(asyncio.get_running_loop().time())
        self.asked_after.append(last)
        match self.outcome:
            case SourceAnswer():
                return last if last is not None and last.rows == self.outcome.rows else self.outcome
            case str():
                raise SourceFault(self.outcome)
            case _:
                await asyncio.Event().wait()
                raise AssertionError

    async def settle(self, answer: SourceAnswer, replaced: SourceAnswer | None) -> None:
        del replaced
        self.saved.append(answer)

    async def forget(self) -> None:
        self.forgotten += 1


class Registry:
    """The applied answers. While it withholds, it keeps its last answer. It reports `sudden_change` of the next."""

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
    reading: FakeSource, *, every: float = 60.0, issuer: str | None = None, last: SourceAnswer | None = None
) -> RefreshedSource:
    """Return the refresh of a source named db."""
    return RefreshedSource(name="db", kind="sql", every=every, issuer=issuer, reading=reading, last=last)


@asynccontextmanager
async def running(
    registry: Registry, *sources: RefreshedSource, clock: Callable[[], float] = lambda: 100.0
) -> AsyncIterator[RegistryRefresh]:
    """Read the sources while entered."""
    loop = asyncio.get_running_loop()
    refresh = RegistryRefresh(registry.take, clock=clock, monotonic=loop.time, jitter=lambda: 0.5)
    refresh.watch(sources)
    task = asyncio.create_task(refresh.run())
    try:
        yield refresh
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], object]) -> None:
    """Wait for the condition."""

    async def ask() -> bool:
        return bool(condition())

    await until_answer(ask, bool)


def lines(capsys: pytest.CaptureFixture[str], *events: str) -> Sequence[str]:
    """Return which of these were logged, in order."""
    captured = capsys.readouterr()
    found = [(line.find(event), event) for line in (captured.out + captured.err).splitlines() for event in events]
    return [event for place, event in found if place >= 0]


async def test_failing_source_is_logged_once_per_change(capsys: pytest.CaptureFixture[str]) -> None:
    """Its last good answer stays in force; its age counts from that answer."""
    registry, source = Registry(), FakeSource(answer("shop"))
    async with running(registry, refreshed(source, every=0.01)) as refresh:
        await refresh.complete()
        for outcome in ("away", "away", "else", answer("shop")):
            source.outcome, source.read_at = outcome, []
            await until(lambda: len(source.read_at) > 2)
            (state,) = refresh.states()
            assert (state.up, state.problem) == (
                (True, None) if isinstance(outcome, SourceAnswer) else (False, outcome)
            )
            assert (state.clients, state.age) == (1, 100.0)
    assert len(registry.taken) == 1
    events = ["registry_source_failed", "registry_source_well", "registry_refreshed"]
    assert lines(capsys, *events) == [events[2], events[0], events[0], events[1]]


@pytest.mark.parametrize("last", [None, answer("shop")])
async def test_a_source_fails_since_its_first_failure_in_a_row(last: SourceAnswer | None) -> None:
    """Not since its last success, nor since the start of the worker."""
    registry, source, now = Registry(), FakeSource(answer("shop")), [100.0]
    async with running(registry, refreshed(source, last=last), clock=lambda: now[0]) as refresh:
        await refresh.complete()
        for began, outcome in ((500.0, "away"), (1500.0, answer("shop")), (2000.0, "else")):
            for now[0] in (began, began + 300.0):
                source.outcome = outcome
                await refresh.refresh(accepted_by=None)
            since = [trouble.since for trouble in refresh.troubles()]
            assert since == ([] if isinstance(outcome, SourceAnswer) else [began])


async def test_withheld_loss_stays_until_an_operator_accepts_it() -> None:
    """A scheduled read releases nothing. Nothing is saved if nothing has changed."""
    registry, source = Registry(), FakeSource(answer("a", "b"))
    async with running(registry, refreshed(source)) as refresh:
        await refresh.complete()
        registry.holds_back, source.outcome = "held back: a, b", copy_record(answer(), at=90.0)
        for _ in range(2):
            (state,) = await refresh.refresh(accepted_by=None)
            assert (state.up, state.problem, state.clients) == (False, "held back: a, b", 2)
            assert (state.age, state.held_back) == (10.0, True)  # the source is read
        [trouble] = refresh.troubles()
        assert (trouble.kind, trouble.text) == ("registry_loss_held", "held back: a, b")
        (state,) = await refresh.refresh(accepted_by="alice")
        assert (state.up, state.problem, state.clients, state.held_back) == (True, None, 0, False)
    assert [found and len(found.rows) for _, found, _ in registry.taken] == [2, 0]
    assert [len(found.rows) for found in source.saved] == [2, 0]


async def test_unavailable_source_with_an_invalid_cache_has_no_clients() -> None:
    """Sending nothing for a while is better than using an untrusted address. It recovers by itself."""
    registry, source = Registry(), FakeSource(answer("evil"))
    async with running(registry, refreshed(source, every=0.01)) as refresh:
        await refresh.complete()
        source.outcome = "away"
        refresh.drop("db", dropped_by="alice")
        (state,) = await refresh.refresh(accepted_by=None)
        assert (state.up, state.clients, refresh.problem()) == (False, 0, "registry source db was never read: away")
        assert registry.taken[-1][1:] == (None, "alice")
        source.outcome = answer("shop")
        await until(lambda: refresh.problem() is None)
    assert registry.taken[-1][1:] == (answer("shop"), None)


async def test_sudden_change_is_reported_for_an_hour(capsys: pytest.CaptureFixture[str]) -> None:
    """In the log once, and meanwhile in the state and as a problem."""
    registry, source, now = Registry(), FakeSource(answer("a")), [100.0]
    async with running(registry, refreshed(source), clock=lambda: now[0]) as refresh:
        await refresh.complete()
        registry.sudden_change, source.outcome = "40 are new", answer("b")
        for moment, changed in ((200.0, True), (3700.0, True), (3900.0, False)):
            now[0] = moment
            (state,) = await refresh.refresh(accepted_by=None)
            assert (state.up, state.changed) == (True, changed)
            assert [each.text for each in refresh.troubles()] == ["40 are new"] * changed
    assert len(lines(capsys, "registry_source_changed")) == 1


async def test_unknown_client_triggers_a_read_of_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, then at a limited rate: the last mention is followed by a read."""
    monkeypatch.setattr("notifier.configuration.clients.registry_refresh.MIN_INTERVAL_SECONDS", 0.1)
    registry, ours, others = Registry(), FakeSource(answer("shop")), FakeSource(answer("shop"))
    two = [refreshed(ours, issuer="https://a"), RefreshedSource(
        name="other", kind="sql", every=60, issuer="https://b", reading=others, last=None
    )]  # fmt: skip
    async with running(registry, *two) as refresh:
        await refresh.complete()
        await asyncio.sleep(0.15)
        for _ in range(20):
            refresh.on_unknown_client("https://a")
            await asyncio.sleep(0.01)
        ours.outcome = answer("shop", "new")
        refresh.on_unknown_client("https://a")
        await until(lambda: len(registry.taken) == 3)
    gaps = [later - earlier for earlier, later in zip(ours.read_at, ours.read_at[1:], strict=False)]
    assert min(gaps) >= 0.09
    assert len(others.read_at) == 1


async def test_reload_changes_the_sources() -> None:
    """A kept source continues; a removed source is read no more; a new source is read at once."""
    registry, stays, goes, comes = (
        Registry(),
        FakeSource(answer("a")),
        FakeSource(answer("b")),
        FakeSource(answer("c")),
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


async def test_unresponsive_source_does_not_delay_others() -> None:
    """Nor the stop of the worker."""
    registry, well = Registry(), FakeSource(answer("a"))
    hangs = RefreshedSource(name="hangs", kind="http", every=60, issuer=None, reading=FakeSource(), last=answer("b"))
    async with running(registry, refreshed(well), hangs) as refresh:
        await until(lambda: registry.taken)
        assert [state.up for state in refresh.states()] == [True, True]


class HangingCache(Cache):
    """A cache whose folder hangs until `answers` is set. `saved_count` counts the writes that began."""

    def __init__(self) -> None:
        super().__init__(None)
        self.answers = threading.Event()
        self.saved_count = 0

    def save(self, source: RegistrySourceSettings, answer: SourceAnswer) -> None:
        del source, answer
        self.saved_count += 1
        self.answers.wait()


async def test_a_cache_that_hangs_delays_one_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """By CACHE_SECONDS. Later ones do not wait for it, and it occupies one thread; other sources have other threads."""
    monkeypatch.setattr(source_reading, "CACHE_SECONDS", 0.05)
    hanging, source = HangingCache(), RegistrySourceSettings(name="db", keycloak={})
    reading = SourceReading(source, lambda _source: FakeSource(), hanging, lambda: 0.0)
    await reading.settle(answer("shop"), None)
    monkeypatch.setattr(source_reading, "CACHE_SECONDS", 600.0)
    for _ in range(5):
        await asyncio.wait_for(reading.settle(answer("shop"), None), 30)
    assert hanging.saved_count == 1
    await asyncio.wait_for(
        SourceReading(source, lambda _source: FakeSource(), Cache(None), lambda: 0.0).settle(answer("shop"), None), 30
    )
    hanging.answers.set()
    await until_answer(lambda: asyncio.sleep(0, reading._cache_work), lambda work: work is not None and work.done())
    await reading.settle(answer("shop"), None)
    assert hanging.saved_count == 2


class FullDisk(FakeSource):
    """A source whose reading meets the system's error of a file."""

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        del last
        raise OSError(errno.ENOSPC, "", "/var/lib/notifier/part")


async def test_an_error_of_the_system_keeps_its_text_and_file() -> None:
    """In a worker, and in a command, which also keeps what a source lacks."""
    source = RegistrySourceSettings(name="db", keycloak={})
    text = "reading it failed: No space left on device: /var/lib/notifier/part"
    with pytest.raises(SourceFault, match=text):
        await SourceReading(source, lambda _source: FullDisk(), Cache(None), lambda: 0.0).read(None)

    def lacks_library(_source: RegistrySourceSettings) -> FakeSource:
        raise ConfigurationError([InputIssue("registry.sources.db.sql", "needs sqlalchemy: pip install …")])

    for build, problem in (
        (lambda _source: FullDisk(), text),
        (lacks_library, "reading it failed: registry.sources.db.sql: needs sqlalchemy: pip install …"),
    ):
        reader = DirectReader(build)
        assert await asyncio.to_thread(reader, source, None) is None
        assert reader.problems == {"db": problem}


class ReadRows(list[object]):
    """What a reader has read when it fails."""


class LateFailure(FakeSource):
    """A source that fails after its rows were read: at its time limit, in a task, or with an error of a library."""

    def __init__(self, failure: str, read_rows: list[weakref.ref[ReadRows]]) -> None:
        super().__init__()
        self.failure = failure
        self.read_rows = read_rows

    async def read(self, last: SourceAnswer | None) -> SourceAnswer:
        del last
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
                await tasks.create_task(self.collect(limit))
        except TimeoutError:
            raise SourceFault("not read in time") from None
        raise AssertionError

    async def collect(self, limit: asyncio.Timeout) -> None:
        """Read the rows, and fail."""
        rows = ReadRows()
        self.read_rows.append(weakref.ref(rows))
        if self.failure == "time limit":
            limit.reschedule(0.0)
            await asyncio.Event().wait()
        if self.failure == "fault":
            raise SourceFault("its next page answered 500")
        try:
            int(self.failure)
        except ValueError as error:
            raise ExceptionGroup("of a library", [ValueError(self.failure)]) from error


@pytest.mark.parametrize("failure", ["time limit", "fault", "error of a library"])
async def test_the_rows_of_a_failed_reading_are_freed(failure: str) -> None:
    """Without the garbage collector: the rows of a large list are frozen, and would never be freed."""
    read_rows = list[weakref.ref[ReadRows]]()
    source = RegistrySourceSettings(name="db", keycloak={})
    reading = SourceReading(source, lambda _source: LateFailure(failure, read_rows), Cache(None), lambda: 0.0)
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(SourceFault):
                await reading.read(None)
        assert [read() for read in read_rows] == [None] * 3
    finally:
        gc.enable()

"""Attempts that hang for over five seconds end early if other clients need their slots."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from notifier.delivery.circuit import State
from notifier.delivery.client_state import Admission
from notifier.delivery.facts import Attempted, LogoutDelivered
from notifier.delivery.slots import MAX_ENDED_PER_TICK, PROBE_RESERVE, PROBE_SLOTS
from notifier.messages import ledger, worker
from notifier.model.defaults import PREFETCH
from notifier.model.errors import CancelledRequest
from notifier.model.message import Lane, MessageDraft
from notifier.model.outcome import Failed, HttpResponse, Reason, TransportFailure, TransportResult
from notifier.model.request import Request
from tests.delivery.scheduler_harness import SchedulerHarness
from tests.delivery.worker_harness import ISS, WorkerHarness, client, hop_of, running
from tests.messages.test_late_messages import pass_seconds

TIMEOUT = Failed(reason=Reason.TIMEOUT)
START = WorkerHarness().now


@pytest.fixture(autouse=True)
def _ticks_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker tick in each round of the loop. Tests move the clock."""
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)


def with_hanging_limit(*names: str, limit: int = 1, timeout: float = 600.0) -> WorkerHarness:
    """Return a worker at which so many attempts may hang, and its clients, of which all but `shop` hang."""
    harness = WorkerHarness(
        *(client(name, timeout=timeout) for name in names), client("shop"), max_in_flight=40, max_open_files=4 * limit
    )
    harness.hold(*names)
    return harness


async def test_a_hanging_attempt_ends_when_another_client_needs_its_slot() -> None:
    """As an ambiguous timeout with its own text, which counts for the circuit; after five seconds at the earliest."""
    harness = with_hanging_limit("hangs")
    async with running(harness):
        harness.event("hangs", id="e")
        await pass_seconds(harness, 4)
        harness.event("shop")
        await pass_seconds(harness, 0.9)
        assert harness.notified() == ["hangs"]
        await pass_seconds(harness, 0.3)
        assert harness.notified() == ["hangs", "shop"]
        [failed] = [fact for fact in harness.facts if isinstance(fact, Attempted) and fact.delivery.event_id == "e"]
        assert isinstance(failed.outcome, Failed)
        assert (failed.outcome.reason, failed.outcome.ambiguous) == (Reason.TIMEOUT, True)
        assert failed.outcome.text == "no answer within 5.1 s of 600 s; ended since other clients needed the slot"
        assert harness.worker.scheduler.clients[ISS, "hangs"].circuit.state is State.OPEN


async def test_hanging_attempts_end_in_separate_rounds_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of each takes a millisecond, and 64 may end at a time. Others are served between two rounds."""
    hanging, untried = [f"hangs{number}" for number in range(10)], [f"new{number}" for number in range(10)]
    harness = WorkerHarness(
        *(client(name, timeout=600.0) for name in (*hanging, *untried)),
        max_in_flight=40,
        max_open_files=40,
        shutdown_grace=0.01,
    )
    rounds, ended_in = 0, list[int]()

    async def hang(_request: Request) -> TransportResult:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended_in.append(rounds)
            raise CancelledRequest(TransportFailure(reason=Reason.TIMEOUT, ambiguous=True, text="")) from error
        return HttpResponse(status=200)

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    harness.receivers.behaviours |= dict.fromkeys((*hanging, *untried), hang)
    async with running(harness):
        counting = asyncio.create_task(count_rounds())
        for name in hanging:
            harness.event(name)
        await harness.until(lambda: len(harness.notified()) == len(hanging))
        await pass_seconds(harness, 6)
        monkeypatch.setattr(worker, "TICK_SECONDS", 0.05)  # the next tick, not one in each round
        for name in untried:
            harness.event(name)
        await harness.until(lambda: len(ended_in) == len(hanging))
        counting.cancel()
        assert [ended_in.count(number) for number in sorted(set(ended_in))] == [2] * 5
        assert harness.notified()[len(hanging) :] == untried


async def test_hanging_attempts_end_before_they_use_up_the_prefetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large events are not set aside beyond 32 MiB: the broker then sends no event of others that could need a slot."""
    monkeypatch.setattr(ledger, "MAX_SET_ASIDE_BYTES", 1)
    monkeypatch.setitem(PREFETCH, Lane.EVENTS, 40)
    names = [f"hangs{number}" for number in range(PREFETCH[Lane.EVENTS])]
    harness = WorkerHarness(*(client(name, timeout=600.0) for name in names))
    release = harness.hold(*names)
    async with running(harness):
        for name in names:
            harness.event(name)
        await pass_seconds(harness, 4.5)
        assert harness.worker.ledger.started_counts[Lane.EVENTS] == len(names) - 1
        await pass_seconds(harness, 5)
        assert harness.worker.ledger.started_counts[Lane.EVENTS] <= len(names) * 0.9
        release.set()


async def test_the_time_in_which_tls_files_are_read_is_not_the_clients() -> None:
    """The transport reads them before the client's timeout begins."""
    harness = with_hanging_limit("hangs")

    async def read_files(request: Request) -> TransportResult:
        await harness.until(lambda: harness.now >= START + 4)
        request.on_begin()
        return await hang(request)

    hang = harness.receivers.behaviours["hangs"]
    harness.receivers.behaviours["hangs"] = read_files
    async with running(harness):
        harness.event("hangs", id="e")
        await pass_seconds(harness, 8)
        harness.event("shop")
        await pass_seconds(harness, 0.8)
        assert harness.notified() == ["hangs"]
        await pass_seconds(harness, 0.5)
        assert harness.notified() == ["hangs", "shop"]
        [failed] = [fact for fact in harness.facts if isinstance(fact, Attempted) and fact.delivery.event_id == "e"]
        assert 5.0 < failed.seconds < 5.5


async def test_no_attempt_ends_while_nobody_needs_its_slot() -> None:
    """However long it hangs, and however many slots are taken."""
    harness = with_hanging_limit("hangs")
    release = harness.hold("hangs")
    async with running(harness):
        harness.event("hangs")
        await pass_seconds(harness, 60)
        assert [fact for fact in harness.facts if isinstance(fact, Attempted)] == []
        release.set()


def after(harness: WorkerHarness, seconds: float) -> Callable[[Request], Awaitable[TransportResult]]:
    """Return a client that answers after so many seconds."""

    async def behave(_request: Request) -> TransportResult:
        began = harness.now
        while harness.now < began + seconds:  # noqa: ASYNC110  the clock is the harness's
            await asyncio.sleep(0)
        return HttpResponse(status=200)

    return behave


async def test_a_slow_client_is_notified_during_a_flood() -> None:
    """It answers after 8 s. Its first attempt ends early, the next one does not, although others need the slot."""
    hanging = [f"h{number}" for number in range(60)]
    harness = with_hanging_limit("slow", *hanging, limit=2)
    release = harness.hold(*hanging)
    harness.receivers.behaviours["slow"] = after(harness, 8.0)
    fresh = itertools.cycle(hanging)
    async with running(harness):
        harness.event("slow", id="e")
        seen, delayed = 0, list[tuple[float, MessageDraft]]()
        while harness.now < START + 45 and not any(isinstance(fact, LogoutDelivered) for fact in harness.facts):
            harness.event(next(fresh))
            await pass_seconds(harness, 1)
            sent = harness.queue.published[seen:]
            delayed += [(harness.now + hop_of(queue), each) for queue, each in sent if b'"slow"' in each.body]
            seen += len(sent)
            while delayed and delayed[0][0] <= harness.now:
                _, due = delayed.pop(0)
                harness.take(due.body, lane=Lane.RETRIES, kind=due.kind, message_id=due.message_id)
        release.set()
        ended = [fact for fact in harness.facts if isinstance(fact, Attempted) and fact.delivery.client_id == "slow"]
        assert [type(fact) for fact in ended] == [Attempted, LogoutDelivered]
        outcomes = [fact.outcome for fact in harness.facts if isinstance(fact, Attempted)]
        assert sum(isinstance(outcome, Failed) and outcome.ended_early for outcome in outcomes) > 3


def probing(harness: SchedulerHarness, name: str, seconds: float) -> None:
    """Let the client's circuit open after an attempt of this duration, and its probe come due."""
    assert harness.ask(name) is Admission.START
    harness.now += seconds
    harness.end(name, TIMEOUT)


def test_clients_that_hang_leave_a_quarter_of_the_slots_for_probes() -> None:
    """Clients that fail at once take those. A refused probe ends the oldest that hangs, a repeat after 30 s."""
    harness = SchedulerHarness(size=512)
    hanging, quick = [f"h{number}" for number in range(PROBE_SLOTS)], [f"q{number}" for number in range(PROBE_SLOTS)]
    for name in hanging:
        assert harness.ask(name) is Admission.START
    harness.now += 4.0
    for name in hanging:
        harness.end(name, TIMEOUT)
    for name in quick:
        probing(harness, name, 0.0)
    harness.now += 600.0
    assert not harness.scheduler.attempts_to_end()
    probe = {"probe_due": harness.wall()}
    assert harness.ask("h0", Lane.RETRIES, ended_early=True, **probe) is Admission.START
    taken = [name for name in hanging if harness.ask(name, Lane.RETRIES, **probe) is Admission.START]
    assert len(taken) == PROBE_SLOTS - PROBE_RESERVE - 1
    assert sum(harness.ask(name, Lane.RETRIES, **probe) is Admission.START for name in quick) == PROBE_RESERVE
    assert harness.scheduler.attempts_to_end() == []
    harness.now += 5.1
    assert harness.scheduler.attempts_to_end() == [], "nobody was refused since"
    harness.ask(quick[-1], Lane.RETRIES, **probe)
    to_end = harness.scheduler.attempts_to_end()
    assert [admitted.client.client_id for admitted in to_end] == taken[:MAX_ENDED_PER_TICK]
    harness.now += 25.0
    harness.ask(quick[-1], Lane.RETRIES, **probe)
    assert harness.scheduler.attempts_to_end()[0].client.client_id == "h0"
    assert (PROBE_SLOTS, PROBE_RESERVE, MAX_ENDED_PER_TICK) == (160, 40, 64)


def test_a_client_with_a_closed_circuit_has_more_time() -> None:
    """Four times the mean duration of its attempts. Untried clients that hang have five seconds."""
    harness = SchedulerHarness(size=4)
    for _ in range(40):
        assert harness.ask("slow") is Admission.START
        harness.now += 20.0
        harness.end("slow")
    assert harness.ask("slow") is Admission.START
    for number in range(30):
        harness.ask(f"h{number}")
        harness.now += 2.0
        harness.tick()
    for seconds, ends in ((18.0, False), (4.0, True)):
        harness.now += seconds
        harness.scheduler.attempts_to_end()
        for number in range(20):
            harness.ask(f"{seconds}-{number}")
        clients = [admitted.client.client_id for admitted in harness.scheduler.attempts_to_end()]
        assert ("slow" in clients, "h0" in clients) == (ends, True)


def test_clients_with_closed_circuits_keep_to_the_limit_of_hanging_attempts() -> None:
    """Nobody needs to be refused: the excess ends, since each attempt holds an open file."""
    names = tuple(f"c{number}" for number in range(8))
    harness = SchedulerHarness(size=512, proven=names)
    harness.scheduler.slots._max_hanging = 200
    assert sum(map(harness.as_many_as_run, names)) == 256
    harness.now += 6.0
    harness.tick()
    assert len(harness.scheduler.attempts_to_end()) == 56


@pytest.mark.parametrize("reason", [Reason.PROXY, Reason.TIMEOUT])
async def test_an_early_end_means_what_its_timeout_would(reason: Reason) -> None:
    """A proxy that hangs is not charged to the client, and without a connection the end is not ambiguous."""
    harness = with_hanging_limit("hangs")

    async def hang(_request: Request) -> TransportResult:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise CancelledRequest(TransportFailure(reason=reason, ambiguous=False, text="not reached")) from error
        return HttpResponse(status=200)

    harness.receivers.behaviours["hangs"] = hang
    async with running(harness):
        harness.event("hangs", id="e")
        await pass_seconds(harness, 4)
        harness.event("shop")
        await pass_seconds(harness, 1.2)
        [failed] = [fact for fact in harness.facts if isinstance(fact, Attempted) and fact.delivery.event_id == "e"]
        assert isinstance(failed.outcome, Failed)
        assert (failed.outcome.reason, failed.outcome.ambiguous, failed.outcome.ended_early) == (reason, False, True)
        assert failed.outcome.text == "not reached within 5.1 s of 600 s; ended since other clients needed the slot"
        is_open = harness.worker.scheduler.clients[ISS, "hangs"].circuit.state is State.OPEN
        assert is_open == (reason is Reason.TIMEOUT)
        assert any(b'"ended_early":true' in sent.body for _, sent in harness.queue.published)

"""Deliveries for clients that are down yield to those for others, in memory, so that these find processor time."""

import asyncio

import pytest

from notifier.messages import worker
from notifier.messages.ledger import Ledger
from notifier.messages.selection import MANY_FAILING, MAX_YIELDING_SHARE
from notifier.model.defaults import PREFETCH
from notifier.model.message import Lane, Message
from notifier.model.outcome import Failed, Reason
from tests.delivery.scheduler_harness import SchedulerHarness
from tests.delivery.worker_harness import MemoryQueue, WorkerHarness, answers, client, running

DOWN = [f"down{number}" for number in range(40)]
REFUSED = Failed(reason=Reason.CONNECT)


async def with_clients_down(harness: WorkerHarness, names: list[str]) -> None:
    """Let these clients fail once, so that their circuits are open. Forget the attempts."""
    harness.receivers.behaviours |= dict.fromkeys(names, answers(503))
    for name in names:
        await harness.acked(harness.event(name))
    harness.receivers.posts.clear()


def return_probes(harness: WorkerHarness, after: float = 1.0) -> list[Message]:
    """Pass all probes to the worker, as their delay queues do after a second."""
    harness.now += after
    probes = [message for queue, message in harness.queue.published if queue == "delay.1s"]
    return [
        harness.take(probe.body, lane=Lane.RETRIES, kind=probe.kind, message_id=probe.message_id) for probe in probes
    ]


async def test_a_retry_goes_past_the_probes_that_arrived_before_it() -> None:
    """Nine choices without any of them are followed by one: they progress, too."""
    harness = WorkerHarness(*map(client, [*DOWN, "shop"]))
    async with running(harness):
        await harness.prove("shop")
        await with_clients_down(harness, DOWN)
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop"))
        shop = harness.queue.published.pop()[1]
        harness.receivers.behaviours["shop"] = answers(200)
        harness.receivers.posts.clear()
        probes = return_probes(harness)
        harness.take(shop.body, lane=Lane.RETRIES, kind=shop.kind, message_id=shop.message_id)
        await harness.until(lambda: len(harness.notified()) == len(DOWN) + 1)
        assert harness.notified().index("shop") <= 5
        for probe in probes:
            await harness.acked(probe)


async def test_fresh_events_go_past_those_for_clients_that_are_down() -> None:
    """Those are parked when the others are notified. An event for several clients keeps its place."""
    harness = WorkerHarness(*map(client, [*DOWN, "shop", "bank"]))
    async with running(harness):
        await harness.prove("shop", "bank")
        await with_clients_down(harness, DOWN)
        harness.queue.log.clear()
        yielding = [harness.event(name) for name in DOWN[:6]]
        several, shop = harness.event(DOWN[7], "bank"), harness.event("shop")
        for message in (*yielding, several, shop):
            await harness.acked(message)
        assert harness.notified() == ["bank", "shop"]
        before = harness.queue.log[: harness.queue.log.index(f"acked {shop.tag}")]
        assert before.count("published parked") <= 1, "that of the event for two clients"


@pytest.mark.parametrize("failing", [MANY_FAILING - 1, MANY_FAILING])
async def test_untried_clients_yield_while_many_others_fail(failing: int) -> None:
    """Most untried clients fail as well then. Otherwise they are treated like proven ones."""
    down = [f"c{number}" for number in range(failing)]
    harness = WorkerHarness(*map(client, [*down, "new", "shop"]))
    async with running(harness):
        await harness.prove("shop")
        await with_clients_down(harness, down)
        harness.event("new")
        await harness.acked(harness.event("shop"))
        await harness.until(lambda: len(harness.notified()) == 2)
        assert harness.notified() == (["shop", "new"] if failing == MANY_FAILING else ["new", "shop"])


async def test_an_untried_client_does_not_wait_for_those_that_are_down() -> None:
    """It may be well, so it comes after clients that are well, and before deliveries that are only parked."""
    down = [f"c{number}" for number in range(MANY_FAILING)]
    harness = WorkerHarness(*map(client, [*down, "new", "shop"]))
    async with running(harness):
        await harness.prove("shop")
        await with_clients_down(harness, down)
        parked = [harness.event(name) for name in down]
        await harness.acked(harness.event("new"))
        assert not any(message in harness.queue.acked for message in parked)
        for message in parked:
            await harness.acked(message)


async def test_messages_that_begin_to_yield_count_as_no_turn() -> None:
    """One that yields comes after nine deliveries, not after nine others that yield."""
    harness = WorkerHarness(*map(client, [*DOWN, "shop"]))
    async with running(harness):
        await harness.prove("shop")
        await with_clients_down(harness, DOWN)
        harness.queue.log.clear()
        for name in DOWN:
            harness.event(name)
        last = [harness.event("shop") for _ in range(9)][-1]
        await harness.acked(last)
        assert "published parked" not in harness.queue.log[: harness.queue.log.index(f"acked {last.tag}")]


async def test_many_that_yield_are_set_aside_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They leave the prefetch to others, but count as unsettled and not as late. A stop returns them."""
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)
    harness = WorkerHarness(*map(client, [*DOWN, "shop"]))
    async with running(harness):
        await harness.prove("shop")
        await with_clients_down(harness, DOWN)
        harness.now += 1.0
        for _ in range(3):
            await asyncio.sleep(0)  # a tick, which sets late messages aside
        probes = [message for _ in range(3) for message in return_probes(harness, after=0.0)]
        ledger = harness.worker.ledger
        await harness.until(lambda: ledger.set_aside_counts[True] > 0)
        unsettled = ledger.unsettled_by_queue()["retries"]
        assert (unsettled.set_aside, unsettled.messages) == (0, ledger.held_count(Lane.RETRIES))
        assert unsettled.messages - ledger.set_aside_counts[True] >= MAX_YIELDING_SHARE * PREFETCH[Lane.RETRIES]
        harness.worker.stop()
    assert 0 < harness.worker.given_back == len(probes) - sum(probe in harness.queue.acked for probe in probes)
    assert sum(ledger.set_aside_counts.values()) == 0


def test_those_that_yield_leave_all_places_to_late_messages() -> None:
    """Clients that hang must find places, however many others are down. A message that found none gets the next."""
    queue = MemoryQueue(clock=lambda: 0.0)
    ledger = Ledger(queue, lambda _: None, clock=lambda: 0.0, monotonic=lambda: 0.0)
    held = [ledger.take(Message(lane=Lane.EVENTS, body=b"", tag=number)) for number in range(40)]
    for one in held[:20]:
        one.yields_since = 0.0
        ledger.set_aside(one, {False: 3, True: 12})
    assert ledger.set_aside_counts[True] == 12
    for one in held[20:]:
        one.is_started = True
        ledger.set_aside(one, {False: 3, True: 12})
    assert sum(ledger.set_aside_counts.values()) == len(queue.log) == 15
    ledger.release(held[0])
    ledger.set_aside_late({False: 3, True: 12})
    assert held[12].is_set_aside


def test_those_that_yield_leave_bytes_to_late_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them, however large those are that yield."""
    monkeypatch.setattr("notifier.messages.ledger.MAX_SET_ASIDE_BYTES", 100)
    queue = MemoryQueue(clock=lambda: 0.0)
    ledger = Ledger(queue, lambda _: None, clock=lambda: 0.0, monotonic=lambda: 0.0)
    held = [ledger.take(Message(lane=Lane.EVENTS, body=b"1234567890", tag=number)) for number in range(40)]
    for number, one in enumerate(held):
        one.yields_since, one.is_started = (0.0, False) if number < 20 else (None, True)
        ledger.set_aside(one, {False: 40, True: 40})
    assert ledger.set_aside_counts == {True: 5, False: 5}
    for one in held:
        ledger.release(one)
    ledger.set_aside(ledger.take(Message(lane=Lane.EVENTS, body=b"x" * 1000, tag=0)), {False: 1, True: 1})
    assert ledger.set_aside_counts == {True: 0, False: 1}


def test_circuits_stay_open_longer_and_fresh_deliveries_are_no_probes_while_others_yield() -> None:
    """The processor has no time for all: eight times as long as they yield, a power of two, 64 s at most."""
    harness = SchedulerHarness()
    due = {}
    for yielding_seconds in (0.0, 0.1, 0.9, 30.0):
        harness.yielding_seconds = yielding_seconds
        name = f"c{yielding_seconds}"
        harness.ask(name)
        verdict = harness.end(name, REFUSED)[1]
        due[yielding_seconds] = round(verdict.due - harness.wall(), 3)  # type: ignore[union-attr]
    assert due == {0.0: 1.0, 0.1: 1.0, 0.9: 8.0, 30.0: 64.0}
    harness.now += 5.0
    harness.put_off("c30.0")
    harness.yielding_seconds = 0.0
    harness.ask("c30.0")
    assert harness.running["c30.0"], "to spare again: 4 s after the last attempt"

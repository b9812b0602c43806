"""A worker's copy of the pauses: when it is read, what it applies, and what is logged."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from notifier.model.client import Client, ClientKey, RetryPolicy
from notifier.model.errors import QueueUnavailable, TopologyMismatch
from notifier.model.message import QueueStatus
from notifier.model.pauses import NO_PAUSES, Pause, PauseDocument
from notifier.model.registry import Registry
from notifier.operators.status import pause_watch
from notifier.operators.status.pause_watch import READ_PAUSES, PauseWatch
from notifier.operators.status.worker_requests import RequestRefused, WorkerRequest
from notifier.queues.queue_port import Queue
from tests.contract.queues import eventually

ISS = "https://op.example"
SHOP = (ISS, "shop")
REQUEST = WorkerRequest(kind=READ_PAUSES, who="alice", members={})


class Stored:
    """A queue with a register whose reads can fail, at a time that the test sets."""

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = registry or Registry()
        self.now, self.reads = 100.0, 0
        self.document: PauseDocument = NO_PAUSES
        self.failure: Exception | None = None
        self.connected = True
        self.released = list[ClientKey]()
        self.register = self

    async def read(self) -> PauseDocument:
        self.reads += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return self.document

    def status(self) -> QueueStatus:
        return QueueStatus(connected=self.connected, consuming=True)

    def pause(self, client_id: str = "shop", *, until: float = 200.0, id_: str = "a") -> None:
        pause = Pause(id=id_, iss=ISS, client_id=client_id, who="alice", reason="deploy", since=self.now, until=until)
        self.document = self.document.pause_clients([pause], self.now)

    def resume(self) -> None:
        self.document = self.document.resume_clients([SHOP], "bob", self.now)

    def watch(self) -> PauseWatch:
        return PauseWatch(cast("Queue", self), lambda: self.registry, self.released.append, lambda: self.now)


@pytest.fixture
def stored() -> Stored:
    """A register without pauses."""
    return Stored()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals are short."""
    monkeypatch.setattr(pause_watch, "START_SECONDS", 0.1)
    monkeypatch.setattr(pause_watch, "RETRY_INTERVAL_SECONDS", 0.005)
    monkeypatch.setattr(pause_watch, "CHECK_INTERVAL_SECONDS", 0.005)


@contextmanager
def events() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return the log lines since."""
    with capture_logs() as logs:
        yield lambda: [dict(line) for line in logs]


async def test_pauses_are_read_before_the_first_delivery(stored: Stored) -> None:
    """Those made while no worker ran are in force."""
    stored.pause()
    watch = stored.watch()
    await watch.start()
    assert [*watch.in_force] == [SHOP]


async def test_first_reading_is_logged(stored: Stored) -> None:
    """The worker that read a change may have died before it logged it. Pauses that are over by themselves are not."""
    stored.pause("crm", until=150.0, id_="b")
    stored.pause()
    stored.resume()
    stored.now = 160.0
    stored.pause("wiki", id_="c")
    with events() as logged:
        await stored.watch().start()
    assert [(line["event"], line["who"], line["client_id"]) for line in logged()] == [
        ("client_resumed", "bob (claimed)", "shop"), ("client_paused", "alice (claimed)", "wiki"),
    ]  # fmt: skip


async def test_first_reading_logs_no_resume_of_a_replaced_pause(stored: Stored) -> None:
    """Also if the pause that replaced it is over, and if the register was changed later than it was planned."""
    stored.pause(until=900.0)
    stored.now = 120.0
    short = Pause(id="b", iss=ISS, client_id="shop", who="bob", reason="deploy", since=120.0, until=130.0)
    stored.document = stored.document.pause_clients([short], 120.5)
    stored.now = 140.0
    with events() as logged:
        await stored.watch().start()
    assert logged() == []


async def test_change_that_ended_between_two_readings_is_logged(stored: Stored) -> None:
    """Such as during a suspension."""
    watch = stored.watch()
    await watch.start()
    stored.pause()
    stored.resume()
    with events() as logged:
        await watch.act(REQUEST)
    assert [(line["event"], line["who"]) for line in logged()] == [("client_resumed", "bob (claimed)")]


@pytest.mark.usefixtures("quick")
async def test_worker_delivers_if_the_pauses_cannot_be_read(stored: Stored) -> None:
    """It reports it, and reads them as soon as it can."""
    stored.pause()
    stored.failure = QueueUnavailable("away")
    watch = stored.watch()
    with events() as logged:
        await watch.start()
        running = asyncio.create_task(watch.run())
        assert (dict(watch.in_force), watch.problem is not None, watch.metrics()) == ({}, True, (math.inf, {}))
        stored.failure = None
        await eventually(lambda: bool(watch.in_force))
        running.cancel()
    assert [line["event"] for line in logged()][:1] == ["pauses_unread"]
    assert watch.metrics() == (0.0, {SHOP: 200.0})


async def test_worker_without_the_queue_of_pauses_delivers_at_once(stored: Stored) -> None:
    """Until somebody declares it."""
    stored.failure = TopologyMismatch("there is no queue")
    watch = stored.watch()
    await watch.start()
    assert (stored.reads, watch.problem) == (1, "there is no queue")


async def test_request_reads_the_pauses(stored: Stored) -> None:
    """The answer has the version that the worker applies now."""
    watch = stored.watch()
    await watch.start()
    stored.pause()
    with events() as logged:
        assert await watch.act(REQUEST) == {"version": 1, "at": 100.0}
    [line] = logged()
    assert [*watch.in_force] == [SHOP]
    assert (line["event"], line["who"], line["client_id"], line["reason"], line["audit"]) == (
        "client_paused", "alice (claimed)", "shop", "deploy", True,
    )  # fmt: skip


async def test_request_is_refused_while_the_pauses_cannot_be_read(stored: Stored) -> None:
    """So the operator sees which worker may still call the client."""
    watch = stored.watch()
    await watch.start()
    stored.failure = QueueUnavailable("away")
    with pytest.raises(RequestRefused, match="it cannot read the pauses: away"):
        await watch.act(REQUEST)


@pytest.mark.usefixtures("quick")
async def test_refused_request_is_followed_by_another_reading(stored: Stored) -> None:
    """As soon as the pauses can be read, not at the next interval."""
    watch = stored.watch()
    await watch.start()
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0.03)
    stored.failure = QueueUnavailable("away")
    stored.pause()
    with pytest.raises(RequestRefused, match="away"):
        await watch.act(REQUEST)
    stored.failure = None
    async with asyncio.timeout(pause_watch.READ_INTERVAL_SECONDS / 2):
        await eventually(lambda: [*watch.in_force] == [SHOP])
    running.cancel()


async def test_resumed_client_is_released(stored: Stored) -> None:
    """And who resumed it is logged; a name in the register is not proven."""
    watch = stored.watch()
    stored.pause()
    await watch.start()
    stored.resume()
    with events() as logged:
        await watch.act(REQUEST)
    [line] = logged()
    assert (stored.released, dict(watch.in_force)) == ([SHOP], {})
    assert (line["event"], line["who"]) == ("client_resumed", "bob (claimed)")


async def test_replaced_pause_releases_nothing(stored: Stored) -> None:
    """The client is paused by the other one, which is logged alone."""
    watch = stored.watch()
    stored.pause()
    await watch.start()
    stored.pause(id_="b", until=300.0)
    with events() as logged:
        await watch.act(REQUEST)
    assert (stored.released, watch.in_force[SHOP].id) == ([], "b")
    assert [line["event"] for line in logged()] == ["client_paused"]


@pytest.mark.usefixtures("quick")
async def test_pause_ends_by_itself(stored: Stored) -> None:
    """Without a reading."""
    watch = stored.watch()
    stored.pause()
    await watch.start()
    with events() as logged:
        running = asyncio.create_task(watch.run())
        stored.now = 200.0
        await eventually(lambda: bool(stored.released))
        running.cancel()
    assert (stored.released, dict(watch.in_force)) == ([SHOP], {})
    assert [line["event"] for line in logged()] == ["pause_ended"]


async def test_pause_by_a_wrong_clock_is_bounded(stored: Stored) -> None:
    """By the client's `max_paused`, a week."""
    stored.pause(until=1e10)
    watch = stored.watch()
    await watch.start()
    assert watch.in_force[SHOP].until == 100.0 + 604_800.0
    stored.now += 604_801.0
    for _ in range(2):
        await watch.act(REQUEST)
        assert (dict(watch.in_force), stored.released) == ({}, [SHOP])


async def test_forged_end_is_bounded_from_the_begin_of_the_pause() -> None:
    """Of a registered client, also at a worker that starts later, such as after each restart."""
    policy = RetryPolicy(max_paused=60.0)
    shop = Client(iss=ISS, client_id="shop", backchannel_logout_uri="https://shop.example/out", retry=policy)
    stored = Stored(Registry(clients={ISS: {"shop": shop}}))
    stored.pause(until=1e10)
    stored.now += 50.0
    watch = stored.watch()
    await watch.start()
    assert watch.in_force[SHOP].until == 160.0


async def test_older_document_changes_nothing(stored: Stored) -> None:
    """Such as after a purge and a command, until it is restored."""
    stored.pause()
    watch = stored.watch()
    await watch.start()
    stored.document = NO_PAUSES
    await watch.act(REQUEST)
    assert [*watch.in_force] == [SHOP]


@pytest.mark.usefixtures("quick")
async def test_reconnect_reads_the_pauses(stored: Stored) -> None:
    """A request may have been missed meanwhile."""
    watch = stored.watch()
    await watch.start()
    running = asyncio.create_task(watch.run())
    stored.connected = False
    await asyncio.sleep(0.03)
    stored.pause()
    assert dict(watch.in_force) == {}
    stored.connected = True
    await eventually(lambda: bool(watch.in_force))
    running.cancel()


@pytest.mark.usefixtures("quick")
async def test_attempts_after_a_suspension_share_a_reading(stored: Stored) -> None:
    """They wait for it, and the next attempt does not."""
    watch = stored.watch()
    await watch.start()
    stored.pause()
    stored.now += 60.0
    assert stored.now >= watch.outdated_at
    await asyncio.gather(*(watch.refresh() for _ in range(5)))
    assert ([*watch.in_force], stored.reads, stored.now < watch.outdated_at) == ([SHOP], 2, True)

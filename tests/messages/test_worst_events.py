"""The worst events that a publisher may send: nothing that is done with one holds the event loop for long."""

import asyncio
import gc
import json
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from notifier.messages.selection import LARGE_ROUNDS, MAX_LARGE_IN_PROGRESS
from notifier.model.defaults import PREFETCH
from notifier.model.message import Kind, Lane, Message
from notifier.model.reply import ReplyTo
from tests.delivery.worker_harness import ISS, WorkerHarness, client, running
from tests.faults.worst_events import NOBODY, WORST, filled, name
from tests.support.yardstick import work

pytestmark = pytest.mark.full

MOST = 4.0  # times a yardstick's work, by the processor's time in one round of the loop; usual are 0.1 to 2.7
TRIES = 20  # other processes use the same caches and cores
OURS: dict[str, Callable[[], bytes]] = {
    "20,000 names": partial(filled, lambda index: f'"{name(index)}"', iss=ISS),
    "20,000 names, the last one wrong": lambda: OURS["20,000 names"]()[:-2] + b",1]}",
    "the same name": partial(filled, lambda _: '"a"', iss=ISS),
    "the same object": partial(filled, lambda _: '{"client_id":"a","sub":"b"}', iss=ISS),
    "2,300 URIs": lambda: WORST["2,300 URIs of no issuer"]().replace(NOBODY.encode(), ISS.encode()),
    "2,300 URIs, the last one wrong": lambda: OURS["2,300 URIs"]()[:-2] + b",1]}",
    "every second wrong": partial(filled, lambda index: "1" if index % 2 else f'"c{index}"', iss=ISS),
    "all of 10,000": lambda: json.dumps({"iss": ISS, "sub": "mallory", "clients": "*"}).encode(),
}


def body_of(which: str) -> bytes:
    """Return this event for our issuer."""
    return OURS[which]() if which in OURS else WORST[which]().replace(b"https://id.example.com", ISS.encode())


class Longest:
    """The longest round of the loop, by the processor's time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = time.process_time()
        self._loop = asyncio.get_running_loop()
        self._going = True
        self._loop.call_soon(self._round)

    def _round(self) -> None:
        now = time.process_time()
        self.seconds, self._last = max(self.seconds, now - self._last), now
        if self._going:
            self._loop.call_soon(self._round)

    def end(self) -> float:
        """Stop measuring, and return the longest time in seconds."""
        self._going = False
        return self.seconds


async def held(harness: WorkerHarness, take: Callable[[], Message]) -> float:
    """Return the longest time, in seconds, for which the loop was blocked until the message was acked."""
    await asyncio.sleep(0)
    longest, message = Longest(), take()
    await harness.until(lambda: message in harness.queue.acked)
    return longest.end()


async def held_by(body: bytes, asked: ReplyTo | None, clients: int) -> float:
    """Return that time for one event; if it is postponed, the longer one of its first and second reading."""
    harness = WorkerHarness(*(client(f"c{index}") for index in range(clients)))
    harness.worker._planner._max_event = 256 * 1024
    async with running(harness):
        first = await held(harness, lambda: harness.take(body, reply_to=asked))
        queue, sent = harness.queue.published[-1]
        if not queue.startswith("delay") or sent.kind is not Kind.EVENT:
            return first
        harness.now += 60
        return max(first, await held(harness, lambda: harness.retake(queue)))


@pytest.fixture
def frozen() -> Iterator[None]:
    """Exclude the present objects from garbage collection, as in a running worker."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.alone
@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("waited_for", [False, True])
@pytest.mark.parametrize("which", [*WORST, *OURS])
async def test_nothing_holds_the_loop_for_long(which: str, waited_for: bool) -> None:
    """Reading, planning and burying it, or putting it off, and again; whether or not somebody waits for its fates."""
    asked = ReplyTo(to="nobody", correlation_id="1") if waited_for else None
    body, shares = body_of(which), list[float]()
    while not shares or (min(shares) > MOST and len(shares) < TRIES):
        before = work()
        found = await held_by(body, asked, 10_000 if "all" in which else 3)
        shares.append(found / min(before, work()))
    assert min(shares) <= MOST


async def test_few_large_events_are_held_and_small_ones_pass() -> None:
    """However long the queue refuses their deliveries; the other large events wait with their body alone."""
    harness = WorkerHarness(client("shop"))
    harness.worker._planner._max_event = 256 * 1024
    harness.queue.open.clear()
    async with running(harness):
        body = body_of("65,000 wrong entries")
        large = [harness.take(body) for _ in range(50)]
        harness.event("shop")
        await harness.until(lambda: harness.notified() == ["shop"])
        for _ in range(20 * LARGE_ROUNDS):
            await asyncio.sleep(0)
        lanes = harness.worker.ledger._held.values()
        opened = [held for lane in lanes for held in lane if held.is_large and held.plan is not None]
        assert len(opened) == MAX_LARGE_IN_PROGRESS
        assert harness.worker._started_share() * PREFETCH[Lane.EVENTS] <= MAX_LARGE_IN_PROGRESS + 1
        harness.queue.open.set()
        await harness.until(lambda: len(harness.queue.acked) == len(large) + 1)
    assert len(harness.dead()) == len(large)


async def test_large_events_of_a_lost_lane_are_forgotten() -> None:
    """They are redelivered; no pending event is opened, and none is acked twice."""
    harness = WorkerHarness(client("shop"))
    harness.queue.open.clear()
    async with running(harness):
        for _ in range(20):
            harness.take(body_of("zeros"))
        harness.worker.on_lost(Lane.EVENTS)
        again = harness.take(body_of("zeros"))
        harness.queue.open.set()
        await harness.until(lambda: again in harness.queue.acked)
        for _ in range(20 * LARGE_ROUNDS):
            await asyncio.sleep(0)
        assert len(harness.queue.acked) <= 2

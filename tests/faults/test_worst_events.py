"""A publisher sends the worst events it may: nobody else waits for them, and nothing grows."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from http.client import HTTPConnection
from pathlib import Path

import pytest

from notifier.model.documents.event_entries import MAX_ISSUES
from tests.faults.conftest import Form, Record
from tests.faults.embedded_rig import embedded
from tests.faults.rig import Rig
from tests.faults.soak_figures import resident
from tests.faults.worst_events import NOBODY, WORST, worst
from tests.support.yardstick import slowness
from tests.system.broker import broker
from tests.system.ledger import UNREADABLE
from tests.system.worker_process import WorkerProcess, worker

AT_ONCE = 100
MOST_MEMORY = 200 * 1024 * 1024
LIVEZ_WITHIN = 0.1  # seconds
LATE = 2.0
LOOK_EVERY = 0.02
PATIENCE = 120.0


class Watch(threading.Thread):
    """Asks a worker's `/livez` all the time, from a thread, so that the test's own work does not count as the worker's.

    `seconds` are those of each answer; `largest` is the memory that the worker had at most, in bytes; `slowness` is the
    machine's.
    """

    def __init__(self, ops: str, pid: int) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []
        self.largest = 0
        self.slowness = slowness()
        self._host = ops.removeprefix("http://")
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        with contextlib.closing(HTTPConnection(self._host, timeout=PATIENCE)) as connection:
            while not self._ended.wait(LOOK_EVERY):
                begun = time.monotonic()
                connection.request("GET", "/livez")
                with connection.getresponse() as response:
                    response.read()
                self.seconds.append(time.monotonic() - begun)
                self.largest = max(self.largest, resident(self._pid))

    def check(self, late: Sequence[float]) -> None:
        """Fail if memory has grown beyond the bound, or if an answer was late, except the slowest tenth.

        The machine is not ours alone; a worker that is held is late with nearly all of them.
        """
        *_, slowest = usual = sorted(self.seconds)[: len(self.seconds) * 9 // 10]
        reported = (
            f"late {max(late):.2f} s, /livez {slowest:.3f} s at most of {len(usual)}, {max(self.seconds):.3f} s once"
        )
        reported += f", {self.largest / 2**20:.0f} MiB, machine × {self.slowness:.1f}"
        print(reported)  # noqa: T201  what `pytest -s` and a failed run show
        assert max(late) <= LATE * self.slowness, reported
        assert slowest < LIVEZ_WITHIN * self.slowness, reported
        assert 0 < self.largest < MOST_MEMORY, reported

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self.join()
        self.slowness = max(self.slowness, slowness())


@contextlib.asynccontextmanager
async def watched(running: WorkerProcess) -> AsyncIterator[Watch]:
    """Watch the worker while the block lasts."""
    watch = Watch(await running.ops(), running.pid)
    watch.start()
    try:
        yield watch
    finally:
        await asyncio.to_thread(watch.end)


async def one_behind(made: Rig, number: int) -> float:
    """Return the seconds until the healthy client receives an event that is published now."""
    begun = time.monotonic()
    publishing = asyncio.create_task(made.publisher.publish([number], rate=100))
    await made.clients.until(lambda: ("/healthy", str(number)) in made.clients.accepted, PATIENCE)
    late = time.monotonic() - begun
    await publishing
    return late


@pytest.mark.alone
@pytest.mark.fault("publisher", "the worst events of 128 KiB in a row: nobody waits for them, and nothing grows")
@pytest.mark.timeout(900)
async def test_the_worst_events_in_a_row(made: Rig, form: Form[int], record: Record) -> None:
    """A logout behind a hundred of them comes at once. Each becomes one dead letter, no larger than the event."""
    count = form(AT_ONCE, 10 * AT_ONCE)
    bodies = list(worst(count))
    made.site.config["registry"]["grace"] = "6s"  # so that events of an unknown issuer are deferred twice
    made.site.write()
    async with worker(made.site) as running, broker(made.urls[0], made.prefix) as rabbit:
        async with watched(running) as watch:
            await asyncio.gather(*(rabbit.publish(body) for body in bodies[:AT_ONCE]))
            late = [await one_behind(made, 0)]
            for start in range(AT_ONCE, count, AT_ONCE):  # more than are taken at a time
                await asyncio.gather(*(rabbit.publish(body) for body in bodies[start : start + AT_ONCE]))
            await one_behind(made, 1)
            await made.until_settled()
            await rabbit.until_depths({"dead": count + len(made.to_die)}, PATIENCE)
        assert await running.stop() == 0
        dead_letters = [
            dead_letter for dead_letter in await rabbit.dead_letters() if dead_letter.headers["client_id"] != "refusing"
        ]
    record(await made.account(), times=count)
    assert len(dead_letters) == count
    readable = Counter(body for body in bodies if NOBODY.encode() not in body)
    assert Counter(dead_letter.body for dead_letter in dead_letters if dead_letter.type == UNREADABLE) == readable
    assert max(len(dead_letter.body) for dead_letter in dead_letters) <= max(map(len, worst(len(WORST)))) + 4096
    watch.check(late)


@pytest.mark.alone
@pytest.mark.fault("embedded queue", "the worst events of 128 KiB by HTTP: nobody waits for them, and nothing grows")
@pytest.mark.timeout(900)
async def test_the_worst_events_by_http(tmp_path: Path, form: Form[int], record: Record) -> None:
    """They come a hundred at a time, and each is answered with its first mistakes."""
    rounds = form(1, 10)
    async with embedded(tmp_path) as made, worker(made.site) as running:
        late: list[float] = []
        async with watched(running) as watch:
            for number in range(rounds):
                sending = [asyncio.ensure_future(running.post(body)) for body in worst(AT_ONCE)]
                await asyncio.sleep(0)
                late.append(await one_behind(made, number))
                for status, reported in await asyncio.gather(*sending):
                    assert status == 400
                    assert 0 < len(reported["mistakes"]) <= MAX_ISSUES + 1
        await made.settle(running)
        record(await made.account(), times=rounds * AT_ONCE)
    watch.check(late)

"""A worker makes a first release after its start, another when a worker leaves, and one for changed clients.

In virtual time.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.delivery.settlement import DelayCounts
from notifier.features import FEATURES
from notifier.model.client import Client, ClientKey
from notifier.model.errors import QueueUnavailable
from notifier.model.outcome import Cause
from notifier.service.deferral_release import (
    DEFERRAL_STORE_SECONDS,
    FIRST_RELEASE_SECONDS,
    MAX_START_DELAY_SECONDS,
    MIN_PASS_INTERVAL_SECONDS,
    MIN_REPEAT_SECONDS,
    DeferralRelease,
)
from tests.configuration.clients.test_guard import Source
from tests.simulator.virtual_time import VirtualLoop
from tests.system.site import Site

CHECK_SECONDS = 1.0  # in which a change of the count is seen


class Passes:
    """The queue of a release: the number of workers, and when each pass over its pending deliveries began."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.fails = False
        self.hangs = False
        self.began_at: list[float] = []

    def worker_count(self) -> int:
        """Return the number of workers; 0 while unknown."""
        return self.workers

    def waiting(self) -> "Passes":
        """Return the pending deliveries: none."""
        return self

    @asynccontextmanager
    async def open_pass(self, *_args: object, **_options: object) -> AsyncIterator["Passes"]:
        """Begin a pass."""
        self.began_at.append(asyncio.get_running_loop().time())
        if self.fails:
            raise QueueUnavailable("another pass runs")
        if self.hangs:
            await asyncio.Event().wait()
        yield self

    left = 0

    async def next_page(self) -> Collection[Any]:
        """Return no message."""
        return ()


class Workers:
    """Workers whose releases run on a virtual loop. Each sees its own queue."""

    def __init__(self, live: LiveConfiguration, queues: list[Passes]) -> None:
        loop = asyncio.get_running_loop()
        self.paused, self.probes = set[ClientKey](), list[ClientKey]()
        self.releases = [
            DeferralRelease(live, cast("Any", queue), loop.time, pauses=lambda: self.paused) for queue in queues
        ]
        deferrals = SimpleNamespace(is_blocked=lambda key: key[1] == "unreachable")

        def probe_now(key: ClientKey, *, force: bool) -> None:
            assert not force
            self.probes.append(key)

        scheduler = cast("Any", SimpleNamespace(deferrals=deferrals, probe_now=probe_now))
        delayed = DelayCounts(loop.time)
        self._tasks = [asyncio.create_task(release.run(scheduler, delayed)) for release in self.releases]

    async def end(self) -> None:
        """End the releases."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def live(tmp_path: Path) -> LiveConfiguration:
    """A configuration."""
    site = Site(tmp_path, f"sqlite:{tmp_path / 'q.db'}")
    site.write()
    return LiveConfiguration(site.file, {}, load(site.file, {}, FEATURES))


def test_each_worker_makes_a_first_release_once_the_workers_are_counted(live: LiveConfiguration) -> None:
    """No answer of another worker replaces it, since it could be forged. Many workers spread their passes."""

    async def start() -> None:
        queues = [Passes(0) for _ in range(40)]
        workers = Workers(live, queues)
        await asyncio.sleep(30)
        assert not any(queue.began_at for queue in queues)
        for queue in queues:
            queue.workers = 10
        await asyncio.sleep(10 * FIRST_RELEASE_SECONDS + CHECK_SECONDS)
        assert {len(queue.began_at) for queue in queues} == {1}
        began_at = sorted(queue.began_at[0] for queue in queues)
        assert (began_at[0] < 35, began_at[-1] > 45) == (True, True)
        await asyncio.sleep(3600)
        assert {len(queue.began_at) for queue in queues} == {1}
        await workers.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(start())


def test_a_failed_first_release_is_tried_again(live: LiveConfiguration) -> None:
    """Until it has succeeded."""

    async def fail() -> None:
        queue = Passes(1)
        queue.fails, workers = True, Workers(live, [queue])
        await asyncio.sleep(30)
        assert len(queue.began_at) > 5
        queue.fails = False
        await asyncio.sleep(FIRST_RELEASE_SECONDS + CHECK_SECONDS)
        count = len(queue.began_at)
        await asyncio.sleep(600)
        assert len(queue.began_at) == count
        await workers.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(fail())


def test_another_pass_follows_when_a_worker_leaves(live: LiveConfiguration) -> None:
    """During a surge update the former worker defers by its configuration until it leaves."""

    async def update() -> None:
        queue = Passes(2)
        workers = Workers(live, [queue])
        await asyncio.sleep(300)
        assert len(queue.began_at) == 1
        queue.workers, left_at = 1, 300.0
        await asyncio.sleep(FIRST_RELEASE_SECONDS + CHECK_SECONDS)
        assert left_at <= queue.began_at[1]
        await workers.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(update())


def test_forged_leaves_cause_one_pass_a_minute(live: LiveConfiguration) -> None:
    """Somebody forges a worker that announces itself and leaves, every second."""

    async def forge() -> None:
        queue = Passes(1)
        workers = Workers(live, [queue])
        for second in range(600):
            queue.workers = 1 + second % 2
            await asyncio.sleep(1)
        assert 5 <= len(queue.began_at) <= 600 / MIN_REPEAT_SECONDS + 1
        await workers.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(forge())


def test_a_pass_keeps_no_client_of_a_former_registry(tmp_path: Path) -> None:
    """A pass may take minutes. The clients of a list that changes again meanwhile would take 72 MiB."""

    async def change_twice() -> None:
        source, queue = Source(tmp_path), Passes(0)
        source.apply("https://a.example", "shop", "bank")
        workers, queue.hangs = Workers(source.live, [queue]), True
        await asyncio.sleep(CHECK_SECONDS)
        source.apply("https://b.example", "shop", "bank")
        await asyncio.sleep(CHECK_SECONDS + MAX_START_DELAY_SECONDS)
        assert len(queue.began_at) == 1
        source.apply("https://c.example", "shop", "bank")
        gc.collect()  # what other tests left, too
        addresses = {each.logout_uri for each in gc.get_objects() if type(each) is Client}
        own = {f"https://{host}.example/{name}" for host in "abc" for name in ("shop", "bank")}
        assert addresses & own == {"https://c.example/shop", "https://c.example/bank"}
        await workers.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(change_twice())


def test_end_of_a_pause_causes_two_passes(live: LiveConfiguration) -> None:
    """At once, and for what was deferred meanwhile. An unreachable client is probed once; one paused again is not."""

    async def resume() -> None:
        queue = Passes(1)
        workers = Workers(live, [queue])
        await asyncio.sleep(60)
        queue.began_at.clear()
        workers.paused.add(("https://id.example", "paused again"))
        for name in ("well", "unreachable", "paused again"):
            workers.releases[0].on_cause_end(Cause.PAUSED, "https://id.example", name)
        await asyncio.sleep(60)
        first, second = queue.began_at
        assert (first < 60.1, DEFERRAL_STORE_SECONDS <= second - first < DEFERRAL_STORE_SECONDS + 1.0) == (True, True)
        assert [name for _, name in workers.probes] == ["unreachable"]
        await workers.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(resume())


def test_pauses_that_end_one_after_the_other_share_passes(live: LiveConfiguration) -> None:
    """A pass delays deliveries that become due meanwhile. A client that is resumed again needs no minute."""

    async def resume() -> None:
        queue = Passes(1)
        workers = Workers(live, [queue])
        await asyncio.sleep(60)
        queue.began_at.clear()
        for number in range(200):
            workers.releases[0].on_cause_end(Cause.PAUSED, "https://id.example", f"client {number % 20}")
            await asyncio.sleep(0.05)
        assert 10 <= len(queue.began_at) <= 10 / MIN_PASS_INTERVAL_SECONDS + 1
        await workers.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(resume())

"""From the release before, which parks nothing, to this one and back: both side by side on the same queues, under load.

A client is down and recovers meanwhile. After the roll-back, what this release has parked comes to workers of the
release before by itself: a delivery leaves its bucket for `retries` when its time there is over.
"""

import io
import random
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from notifier.adapters.queues.rabbitmq.administration import delete_topology
from tests.faults.conftest import Tell
from tests.faults.parking_rig import (
    AT_A_TIME,
    SECONDS,
    Down,
    Sick,
    buckets,
    parked,
    parks,
    sick_in,
    until_parked,
)
from tests.faults.rig import Rig, load, rig
from tests.faults.test_rolling_update import replace
from tests.rabbit_options import BUCKETS, rabbit_options
from tests.system.broker import QUEUES
from tests.system.site import Site, client
from tests.system.worker_process import ROOT, WorkerProcess, worker

BEFORE = "7dc854b51a92c69647ef39ffa9226c8ca4da22b4"  # the last commit without buckets
PARKED_FOR = 16  # seconds that a delivery stays in a bucket at most; 17 min by default
RATE = 20  # events a second
CAUSE = "told again by the update"
MISSING = f"""the release before, commit {BEFORE}, is not in this clone, and git cannot fetch it.
Say `git fetch --unshallow origin` where there is a network; in a workflow, give the checkout `fetch-depth: 0`."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it was in the release before."""
    folder = tmp_path_factory.mktemp("before")
    if _git("cat-file", "-e", BEFORE).returncode:
        _git("fetch", "--depth", "1", "origin", BEFORE)
    packed = _git("archive", BEFORE, "notifier")
    if packed.returncode:
        pytest.fail(MISSING)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    assert not (folder / "notifier/pipeline/fetching.py").exists()
    return folder


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False, timeout=120)


@pytest.fixture
async def short_lived(amqp_url: str, prefix: str) -> AsyncIterator[str]:
    """The prefix of queues among which are buckets of such a short time."""
    yield prefix
    await delete_topology(rabbit_options(amqp_url, prefix, parked_for=PARKED_FOR))


class Releases:
    """Two workers, and what is needed to replace them by those of the other release."""

    def __init__(self, made: Rig, sick: Sick, code: Path, stack: AsyncExitStack) -> None:
        self.running: list[WorkerProcess] = []
        made.queues = [*buckets(PARKED_FOR), *QUEUES[BUCKETS:]]
        folder = made.site.folder / "before"
        folder.mkdir()
        site = Site(folder, made.urls[0], made.prefix)
        del site.config["queue"]["buckets"]
        site.config["delivery"] = made.site.config["delivery"]
        site.write()
        circuit = {"failures": 3, "open_for": "1s"}
        site.write_clients(
            [
                client("healthy", made.clients.url("healthy")),
                client("sick", sick.url, max_concurrent=AT_A_TIME, circuit=circuit),
            ]
        )
        command = [sys.executable, "-m", "notifier"]
        self._stack = stack
        self._before = partial(worker, site, command=command, settings={"PYTHONPATH": str(code)})
        self._this = partial(worker, made.site, command=parks(parked_for=PARKED_FOR))

    async def start(self, *, this: bool) -> None:
        """Start another worker, of this release or of the one before."""
        self.running.append(await self._stack.enter_async_context(self._this() if this else self._before()))

    async def retire(self) -> None:
        """Stop the one that has run for longest."""
        old, *self.running = self.running
        await replace(old, self.running)


@pytest.mark.fault(
    "upgrade", "workers of the release before replaced one by one by those of this one, while a client is down"
)
@pytest.mark.timeout(600)
async def test_update(
    tmp_path: Path, amqp_url: str, short_lived: str, before: Path, chance: random.Random, tell: Tell
) -> None:
    """What the workers before have put off comes in its time, and what is parked comes when the client is well."""
    async with (
        rig(tmp_path, amqp_url, short_lived) as made,
        sick_in(made, chance) as sick,
        AsyncExitStack() as stack,
    ):
        releases = Releases(made, sick, before, stack)
        for _ in range(2):
            await releases.start(this=False)
        async with load(made.publisher, rate=RATE):
            await made.clients.until(lambda: len(made.clients.accepted) > 2 * RATE)
            await releases.start(this=True)
            sick.fall(Down.ANSWERS_503)
            await until_parked(made, 10, PARKED_FOR)
            await releases.retire()
            await sick.recover()
            await sick.until_served()
            await releases.start(this=True)
            sick.fall(Down.REFUSES)
            await releases.retire()
            await until_parked(made, 40, PARKED_FOR)
            await sick.recover()
            await sick.until_served()
        await made.settle(*releases.running)
        tell(await made.account(cause=CAUSE), times=2)
        assert sick.lags[-1].lag < sick.lags[-1].down / 2 + SECONDS


@pytest.mark.fault(
    "upgrade", "rolled back: workers replaced one by one by those of the release before, with deliveries parked"
)
@pytest.mark.timeout(600)
async def test_roll_back(
    tmp_path: Path, amqp_url: str, short_lived: str, before: Path, chance: random.Random, tell: Tell
) -> None:
    """The workers of the release before know no buckets, and deliver what lay there."""
    async with (
        rig(tmp_path, amqp_url, short_lived) as made,
        sick_in(made, chance) as sick,
        AsyncExitStack() as stack,
    ):
        releases = Releases(made, sick, before, stack)
        for _ in range(2):
            await releases.start(this=True)
        async with load(made.publisher, rate=RATE):
            await releases.start(this=False)
            sick.fall(Down.ANSWERS_503)
            await until_parked(made, 20, PARKED_FOR)
            await releases.retire()
            await sick.recover()
            await sick.until_served()
            await releases.start(this=False)
            sick.fall(Down.REFUSES)
            await until_parked(made, 20, PARKED_FOR)
            await releases.retire()
            assert await parked(made, PARKED_FOR) > 0
        await sick.recover()
        await sick.until_served()
        assert await parked(made, PARKED_FOR) == 0
        await made.settle(*releases.running)
        tell(await made.account(cause=CAUSE), times=2)
        assert sick.lags[-1].lag < PARKED_FOR + SECONDS

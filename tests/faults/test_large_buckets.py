"""Large buckets over an update and a rollback: workers of a release that does not know them run beside and after."""

import sys

import pytest

from tests.faults.conftest import Record
from tests.faults.parking_rig import PATIENCE, Down, Sick, parked, sick_in
from tests.faults.rig import Rig, load
from tests.support.rabbit_options import LARGE_BUCKET
from tests.system.waiting import until
from tests.system.worker_process import ROOT, worker

RATE = 60  # events a second
MOST = 100_000  # events of one load
# Deliveries in a large bucket. They take 3 s, and a worker reads all buckets within 1.5 s of its start: what it just
# read when it stops is in a delay queue afterwards.
MANY = 200


def release(name: str) -> list[str]:
    """Return the command of a worker of the `newer` or `older` release: see releases.py."""
    return [sys.executable, str(ROOT / "tests" / "faults" / "releases.py"), name]


async def fill(made: Rig, sick: Sick) -> None:
    """Let the client go down until many of its deliveries are in the large bucket."""
    sick.fall(Down.ANSWERS_503)
    async with load(made.publisher, rate=RATE):
        await until(lambda: parked(made, LARGE_BUCKET), lambda count: count >= MANY, PATIENCE)


@pytest.mark.timeout(600)
async def test_older_worker_beside_a_newer_one_leaves_nothing_behind(made: Rig, record: Record) -> None:
    """A rollback: the newer one empties its large buckets, stops, and the older one delivers all soon."""
    async with sick_in(made) as sick, worker(made.site, command=release("newer")) as newer:
        await fill(made, sick)
        async with worker(made.site, command=release("older")) as older:
            await until(lambda: parked(made, LARGE_BUCKET), lambda count: count == 0, PATIENCE)
            async with load(made.publisher, rate=RATE, first=MOST):
                await until(lambda: parked(made), lambda count: count >= 2 * MANY, PATIENCE)
            assert await newer.stop() == 0
            assert await parked(made, LARGE_BUCKET) == 0
            await sick.recover()
            await sick.until_served()
            sick.was_served_soon()
            await made.settle(older)
        record(await made.account())


@pytest.mark.timeout(600)
async def test_restarted_worker_serves_the_large_bucket_of_the_one_before(made: Rig, record: Record) -> None:
    """Also if the client recovers before the first attempt."""
    async with sick_in(made) as sick:
        async with worker(made.site, command=release("newer")) as first:
            await fill(made, sick)
            assert await first.stop() == 0
        await sick.recover()
        async with worker(made.site, command=release("newer")) as second:
            await sick.until_served()
            sick.was_served_soon()
            await made.settle(second)
        record(await made.account())

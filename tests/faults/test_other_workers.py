"""Three workers before one client that goes down and recovers: what one of them sees, the others know."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.parking_rig import AT_A_TIME, PATIENCE, Down, sick_in, until_parked
from tests.faults.rig import Rig
from tests.system.clients import Hit
from tests.system.worker_process import worker

RATE = 10.0  # events a second, of which the client bears four times as many
ANSWER = AT_A_TIME / (4 * RATE)  # seconds
WELL = 5.0  # seconds before it goes down
AFTER = 30.0  # seconds for which events are published after its recovery
REPORTED = 0.5  # seconds until all workers have the report; what they receive before is parked behind the backlog


def quantile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@pytest.mark.fault("parking", "three workers, one of which sees a client recover that was down for a while")
@pytest.mark.timeout(900)
async def test_what_comes_after_a_recovery_does_not_wait(made: Rig, form: Form[int], tell: Tell) -> None:
    """Whichever worker takes it, while the backlog is delivered beside them: at most a few seconds, not twenty.

    0.4 s of 99 in 100 on a machine that has nothing else to do; the bounds leave room for one that is slow.
    """
    loop, down = asyncio.get_running_loop(), form(30, 120)
    count = int(RATE * (WELL + down + AFTER))
    async with AsyncExitStack() as stack:
        sick = await stack.enter_async_context(sick_in(made))
        sick.takes = ANSWER
        crew = [await stack.enter_async_context(worker(made.site)) for _ in range(3)]
        arrived: dict[str, float] = {}

        async def answer(hit: Hit) -> int:
            status = await sick.judge(hit)
            if hit.path == "/sick" and status == 200:
                arrived.setdefault(hit.who, loop.time())
            return status

        made.clients.judge = answer
        began = loop.time()
        publishing = asyncio.create_task(made.publisher.publish(range(count), rate=RATE))
        await asyncio.sleep(WELL)
        sick.fall(Down.ANSWERS_503)
        fell = loop.time()
        await until_parked(made, int(RATE * down / 4))
        await asyncio.sleep(fell + down - loop.time())
        before = len(arrived)
        await sick.recover()
        await made.clients.until(lambda: len(arrived) > before, PATIENCE)
        noticed = loop.time()
        await publishing
        await sick.until_served()
        born = {str(number): began + number / RATE for number in range(count)}
        late = [arrived[who] - at for who, at in born.items() if at > noticed + REPORTED]
        waited = [at for who, at in arrived.items() if fell < born[who] < noticed + REPORTED]
        print(f"{len(late)} new: p50 {quantile(late, 0.5):.2f}, p99 {quantile(late, 0.99):.2f}, most {max(late):.2f} s")  # noqa: T201
        print(f"{len(waited)} waited, the last told {max(waited) - noticed:.1f} s after the recovery was seen")  # noqa: T201
        await made.settle(*crew)
    tell(await made.account())
    assert quantile(late, 0.99) <= 5.0
    assert max(late) <= 10.0

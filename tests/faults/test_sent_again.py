"""A publisher sends events again once they are dead letters. Each gets another attempt.

The client fails at first, so that every delivery is put off; then refuses it, whoever takes it; and then it is mended.
"""

import asyncio

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.rig import PATIENCE, Rig
from tests.system.clients import Hit
from tests.system.waiting import until
from tests.system.worker_process import worker

MENDED = ("refusing",)
STANDS = 10.0  # seconds: more than a retry stands for its delivery here, at the worker that put it off


def judge(hit: Hit) -> int:
    """What the client answers to the first, the second and every further request of one session."""
    return {1: 503, 2: 403}.get(hit.nth, 200)


async def send_again(made: Rig, count: int) -> None:
    """Publish each event once more, soon after its dead letter is there.

    Not at once: another worker may have put it off just before, and its retry still stands for it there.
    """
    again: set[str] = set()

    async def new() -> set[str]:
        return {str(each.headers["event_id"]) for each in await made.found(["dead"])} - again

    while len(again) < count:
        seen = await until(new, bool, PATIENCE)
        again |= seen
        await asyncio.sleep(STANDS)
        await made.publisher.publish(sorted(map(int, seen)), rate=1000)


@pytest.mark.fault("publisher", "sent again after its dead letter, two workers")
@pytest.mark.timeout(900)
async def test_with_two_workers(made: Rig, form: Form[int], tell: Tell) -> None:
    """Mostly one worker puts a delivery off and the other gives it up. Neither takes the event for a copy."""
    count = form(30, 2000)
    async with (
        worker(made.site) as first,
        worker(made.site) as second,
    ):
        made.clients.judge, made.expected = judge, {}
        made.publish_for(MENDED)

        await made.publisher.publish(range(count), rate=200)
        await send_again(made, count)
        await made.settle(first, second)
        tell(await made.account(), times=count)

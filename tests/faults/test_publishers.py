"""Publishers miss confirms and send again: one worker notifies no client twice, two workers do no harm."""

import random

import pytest

from tests.faults.conftest import Form, Record
from tests.faults.forgetful_publisher import ForgetfulPublisher
from tests.faults.rig import CLIENTS, Rig
from tests.system.broker import broker
from tests.system.waiting import until
from tests.system.worker_process import worker

PATIENCE = 120.0


async def until_each_has_its_letter(made: Rig) -> None:
    """Wait for the letters by event: a refused copy is refused again, so counting them is not enough."""

    async def dead_letters() -> set[str]:
        async with broker(made.urls[0], made.prefix) as rabbit:
            return {str(dead_letter.headers["event_id"]) for dead_letter in await rabbit.dead_letters()}

    await until(dead_letters, lambda found: found >= {event for event, _ in made.to_die}, PATIENCE)


@pytest.mark.fault(
    "publisher", "confirms lost, every event sent twice or more, to one worker: no client is notified twice"
)
@pytest.mark.timeout(900)
async def test_one_worker_recognises_every_copy(
    made: Rig, form: Form[int], chance: random.Random, record: Record
) -> None:
    """It does so before, between and after the attempts of the event."""
    count = form(100, 8000)
    async with worker(made.site) as running:
        publisher = made.publisher = ForgetfulPublisher(made.urls[0], made.prefix, CLIENTS, chance)
        await publisher.publish(range(count), rate=200)
        await made.until_settled()
        await until_each_has_its_letter(made)
        await running.until_metric(0, "queue_messages", queue="events")
        await running.until_metric(0, "queue_unsettled")  # no copy is on its way
        assert await running.metric("events_total", result="duplicate") > 0
        assert await running.stop() == 0
        record(await made.account(), times=publisher.hung_up, once=True)

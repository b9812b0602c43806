"""A publisher sends events again once they are dead letters. Each gets another attempt.

The client fails at first, so that every delivery is put off; then refuses it, whoever takes it; and then it is mended.
"""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import embedded
from tests.faults.http_publisher import HttpPublisher
from tests.faults.rig import PATIENCE, Publishes, rig
from tests.system import ledger
from tests.system.broker import broker
from tests.system.clients import Hit
from tests.system.publisher import Publisher
from tests.system.waiting import until
from tests.system.worker_process import worker

MENDED = ("refusing",)


def judge(hit: Hit) -> int:
    """What the client answers to the first, the second and every further request of one session."""
    return {1: 503, 2: 403}.get(hit.nth, 200)


async def send_again(publisher: Publishes, count: int, letters: Callable[[], Awaitable[set[str]]]) -> None:
    """Publish each event once more, as soon as its dead letter is there."""
    again: set[str] = set()

    async def new() -> set[str]:
        return await letters() - again

    while len(again) < count:
        seen = await until(new, bool, PATIENCE)
        again |= seen
        await publisher.publish(sorted(map(int, seen)), rate=1000)


@pytest.mark.fault("publisher", "sent again after its dead letter, two workers")
@pytest.mark.timeout(900)
async def test_with_two_workers(tmp_path: Path, amqp_url: str, prefix: str, form: Form[int], tell: Tell) -> None:
    """Mostly one worker puts a delivery off and the other gives it up. Neither takes the event for a copy."""
    count = form(80, 2000)
    async with (
        rig(tmp_path, amqp_url, prefix) as made,
        worker(made.site) as first,
        worker(made.site) as second,
        broker(amqp_url, prefix) as rabbit,
    ):
        made.clients.judge = judge
        made.publisher = Publisher(amqp_url, prefix, MENDED)

        async def letters() -> set[str]:
            return {str(letter.headers["event_id"]) for letter in await rabbit.dead_letters()}

        await made.publisher.publish(range(count), rate=200)
        await send_again(made.publisher, count, letters)
        await made.clients.until(lambda: len(made.clients.accepted) == count, PATIENCE)
        assert await first.stop() == 0
        assert await second.stop() == 0
        found = await ledger.in_rabbitmq(amqp_url, prefix)
        tell(ledger.account(made.publisher.confirmed, made.clients, found), times=count)


@pytest.mark.fault("embedded queue", "sent again after its dead letter, put off by a worker that was killed")
@pytest.mark.timeout(900)
async def test_with_one_worker_after_another(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """The second worker gives up what the first put off, and what it put off itself."""
    count = form(80, 2000)
    async with embedded(tmp_path) as made:
        made.clients.judge = judge
        made.publisher = HttpPublisher(made.port, MENDED)

        async def letters() -> set[str]:
            return {str(each.headers["event_id"]) for each in ledger.in_sqlite(made.file) if each.queue == "dead"}

        async with worker(made.site) as running:
            await made.publisher.publish(range(count), rate=200)
            running.send(signal.SIGKILL)
            await running.ended()
        async with worker(made.site) as running:
            await send_again(made.publisher, count, letters)
            await made.clients.until(lambda: len(made.clients.accepted) == count, PATIENCE)
            assert await running.stop() == 0
        tell(ledger.account(made.publisher.confirmed, made.clients, ledger.in_sqlite(made.file)), times=count)

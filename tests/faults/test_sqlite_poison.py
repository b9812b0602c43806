"""Poison on the embedded queue: a message that kills the process becomes a dead letter, and no other with it."""

from pathlib import Path

import pytest

from notifier.model.message import DEAD, DELIVERY_LIMIT, Lane
from notifier.queues.sqlite import SqliteOptions, SqliteQueue
from tests.contract.queues import Inbox, ready
from tests.faults.conftest import Form, Tell
from tests.faults.embedded_rig import EmbeddedRig, embedded
from tests.faults.rig import CLIENTS
from tests.faults.test_poison import PATIENCE, POISON, killed_by
from tests.faults.test_workers import KILLED
from tests.system import ledger
from tests.system.waiting import until
from tests.system.worker_process import worker


def waiting(made: EmbeddedRig) -> int:
    """Messages that have not found their fate."""
    return sum(found.queue != DEAD for found in ledger.in_sqlite(made.file))


async def look_away(file: Path) -> int:
    """Take what waits and give it back, until it is given up. Returns how often."""
    times = 0
    while any(found.queue != DEAD for found in ledger.in_sqlite(file)):
        queue, inbox = SqliteQueue(SqliteOptions(path=file)), Inbox()
        await queue.open()
        await queue.consume(inbox)
        if (await queue.depths())[Lane.EVENTS].ready or not inbox.empty():
            await inbox.next()
        await ready(queue, Lane.EVENTS, 0)
        await queue.close()
        times += 1
    return times


@pytest.mark.fault("embedded queue", "an event that kills whoever reads it, others taken beside it")
@pytest.mark.timeout(1200)
async def test_one_that_kills_the_process(tmp_path: Path, form: Form[int], tell: Tell) -> None:
    """Only the poison reaches the limit. All others are delivered, even those that come while workers die.

    In the short form workers die until it is the only one left, and the rest of its hundred lives are mere looks.
    """
    count, left = form(40, 800), form(1, 0)
    async with embedded(tmp_path) as made:
        async with worker(made.site, ready=False, command=killed_by("reading", CLIENTS[0])) as running:
            await made.publisher.publish(range(count), rate=200)
            made.expected = {**made.to_die, **{(str(POISON), who): "delivery_limit" for who in CLIENTS}}
            owed = len(CLIENTS) * count - len(made.to_die)
            await made.clients.until(lambda: len(made.clients.accepted) >= owed, PATIENCE)

            async def rest() -> int:
                return waiting(made)

            await until(rest, lambda rest: rest <= left, PATIENCE)
            await running.stop()
            deaths = len(running.said("killed"))
            highest = max((line["count"] for line in running.said("neighbour")), default=0)
        looks = await look_away(made.file)
        print(f"{deaths} deaths; the neighbours were given back {highest} times at most; {looks} looks")  # noqa: T201  as the account is
        assert deaths + looks >= DELIVERY_LIMIT - 1  # at which a worker that lives long enough buries it
        assert highest < DELIVERY_LIMIT / 2
        tell(await made.account(cause=KILLED), times=deaths)

"""Each hook into aiormq's and pamqp's inside switched off, on a real broker: nothing is lost.

What an update may change of an inside is changed here, in ways that leave the library itself working.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, Kind, Lane, Outgoing
from notifier.operators.doctor.doctor import Severity
from notifier.queues.rabbitmq import insides
from notifier.service.doctor_checks import libraries
from tests.contract.broker import Administrator, OpenWorker, publish_undecodable
from tests.contract.library_changes import CHANGES, OFF, Change, bearing, look_again, made
from tests.contract.parking import park
from tests.contract.queues import Inbox, dead, delay, eventually, names, outgoing, ready


@pytest.fixture(params=CHANGES, ids=lambda change: change.__name__)
async def changed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Change]:
    """An inside that is another."""
    with made(request.param, monkeypatch):
        yield request.param


def test_every_hook_fits_the_versions_that_are_shipped() -> None:
    """Each is in use."""
    look_again()

    async def look() -> dict[str, bool]:
        return dict(insides.prepare())

    assert all(asyncio.run(look()).values())


async def test_the_doctor_tells_which_and_what_to_do(changed: Change) -> None:
    """A warning each: all works, at another price."""
    found = await libraries()
    assert {finding.text.partition(":")[0] for finding in found} == OFF[changed]
    assert {(finding.level, finding.subject) for finding in found} == {(Severity.WARNING, "aiormq, pamqp")}


@pytest.mark.usefixtures("changed")
async def test_messages_are_published_taken_acked_and_given_back(worker: OpenWorker) -> None:
    """In order, small, empty and of many frames; what is acked is gone, and what is not comes again.

    A retry comes when it is due. A return is told to who published, and the others are confirmed. What is parked is
    fetched, and dead letters can be looked at.
    """
    inbox, again = Inbox(), Inbox()
    queue = await worker(inbox)
    await asyncio.gather(*(delay(queue, 1, outgoing(f"later-{nth}")) for nth in range(3)))
    bodies = [b"x" * 400_000, b"", *(b"%d" % number for number in range(40))]
    *published, nowhere = await asyncio.gather(
        *(
            queue.publish(Lane.EVENTS, Outgoing(kind=Kind.EVENT, body=body, message_id=f"m-{nth}"))
            for nth, body in enumerate(bodies)
        ),
        queue.publish("nowhere", outgoing("lost")),
        return_exceptions=True,
    )
    assert set(published) == {None}
    assert isinstance(nowhere, QueueUnavailable)
    taken = await inbox.some(len(bodies) + 3)
    events = [each for each in taken if each.lane is Lane.EVENTS]
    assert {each.message_id: each.body for each in events} == {f"m-{nth}": body for nth, body in enumerate(bodies)}
    assert {each.message_id for each in taken if each.lane is Lane.RETRIES} == {"later-0", "later-1", "later-2"}
    kept = events[-1]
    for each in taken:
        if each is not kept:
            queue.ack(each)
    await queue.close()
    queue = await worker(again)
    found = await again.next()
    assert (found.message_id, found.body, found.delivery_count) == (kept.message_id, kept.body, 1)
    queue.ack(found)
    await ready(queue, Lane.EVENTS, 0)
    assert again.empty()
    bucket = await park(queue, ("https://id.example.com", "shop"), *"abc")
    fetched = [*await queue.fetch(bucket, 2), *await queue.fetch(bucket, 2)]
    assert names(fetched) == ["a", "b", "c"]
    for each in fetched:
        queue.ack(each)
    await queue.close()
    queue = await worker()
    assert await queue.fetch(bucket, 1) == []
    await queue.publish(DEAD, outgoing("dead"))
    assert names(await dead(queue)) == ["dead"]


async def test_one_that_cannot_be_decoded_takes_no_neighbour_with_it(
    changed: Change, worker: OpenWorker, administrator: Administrator, prefix: str
) -> None:
    """It is taken too, without what could not be read; no connection ends over it."""
    inbox = Inbox()
    queue = await worker(inbox)
    await queue.publish(Lane.EVENTS, outgoing("before"))
    await publish_undecodable(administrator, f"{prefix}.events", b"micro")
    await queue.publish(Lane.EVENTS, outgoing("behind"))
    taken = await inbox.some(3)
    assert names(taken) == ["before", None if "decoding" in OFF[changed] else "micro", "behind"]
    assert (taken[1].body, taken[1].kind, taken[1].timestamp) == (b"{}", None, None)
    assert {each.delivery_count for each in taken} == {0}


async def test_where_nothing_bears_such_a_one_a_lane_takes_one_at_a_time(
    worker: OpenWorker, administrator: Administrator, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each loss of the connection counts against the message that caused it, and against no neighbour."""
    with made(bearing, monkeypatch):
        inbox = Inbox()
        queue = await worker(inbox)
        for name in "abc":
            await queue.publish(Lane.EVENTS, outgoing(name))
        for name in "abc":
            message = await inbox.next()
            assert message.message_id == name
            assert inbox.empty()
            queue.ack(message)
        await ready(queue, Lane.EVENTS, 0)
        await publish_undecodable(administrator, f"{prefix}.events", b"micro")
        await eventually(lambda: not queue.status().connected)
        await queue.close()

"""Messages of every size, on a real broker: what is published comes, in every way by which it can be taken."""

import asyncio

from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, Kind, Lane, Outgoing
from tests.contract.broker import OpenWorker
from tests.contract.parking import park
from tests.contract.queues import Inbox, dead, delay, names, outgoing, ready


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

"""What every queue keeps: the same facts on the embedded queue and on RabbitMQ, through the port alone.

"Nothing else came" is shown without waiting: another message is sent behind, and it is the next that comes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from notifier.model.errors import QueueUnavailable
from notifier.model.message import DEAD, MAX_PARKED_SECONDS, PARKED, Kind, Lane, MessageDraft, NewerKind
from notifier.queues.queue_port import Queue
from notifier.queues.queue_state import WorkerAnswers
from notifier.queues.rabbitmq.delays import DELAY_QUEUES
from notifier.queues.sqlite import SqliteQueue
from tests.contract.queues import PATIENCE, Inbox, Place, consuming, delay, eventually, names, outgoing, ready

SHOP = ("https://id.example.com", "shop")
ONE_BY_ONE = {Lane.EVENTS: 1, Lane.RETRIES: 1, Lane.BULK: 1}


async def test_published_is_taken_once(place: Place) -> None:
    """Published messages are delivered in order, once, and after the ack never again. No loss is reported."""
    queue, inbox = await place.consume()
    await asyncio.wait_for(queue.wait_until_available(), PATIENCE)  # while nothing is wrong, nobody waits
    for name in "abc":
        await queue.publish(Lane.EVENTS, outgoing(name))
    taken = await inbox.some(3)
    assert names(taken) == ["a", "b", "c"]
    assert {message.lane for message in taken} == {Lane.EVENTS}
    assert {message.delivery_count for message in taken} == {0}
    for message in taken:
        queue.ack(message)
    await queue.publish(Lane.EVENTS, outgoing("d"))
    queue.ack(await inbox.next())
    assert inbox.lost_lanes == []
    await queue.close()
    queue, inbox = await place.consume()
    await queue.publish(Lane.EVENTS, outgoing("behind"))
    assert names([await inbox.next()]) == ["behind"]


@pytest.mark.parametrize("kind", [Kind.DELIVERY, Kind.EVENT, NewerKind("notifier.batch")])
async def test_properties_survive(place: Place, kind: Kind | NewerKind) -> None:
    """Kind, headers, id, content type and body come as they went."""
    queue, inbox = await place.consume()
    headers = {"reason": "refused", "client_id": "a.b*#", "iss": "https://id.example.com/ü", "empty": ""}
    await queue.publish(
        Lane.RETRIES,
        MessageDraft(kind=kind, body=b'{"a":1}', message_id="id-1", headers=headers, content_type="application/x-own"),
    )
    message = await inbox.next()
    assert (message.kind, message.message_id, message.content_type) == (kind, "id-1", "application/x-own")
    assert message.body == b'{"a":1}'
    assert headers.items() <= message.headers.items()


async def test_publishers_message_has_no_kind(place: Place) -> None:
    """An event published by others has no kind, and keeps its id, content type and time."""
    queue, inbox = await place.consume()
    before = time.time()
    await queue.send_event(Lane.EVENTS, b"{}", message_id="m-1", content_type="application/cloudevents+json")
    await queue.send_event(Lane.EVENTS, b"\xff\x00 not text", message_id=None)
    first, second = await inbox.some(2)
    assert (first.kind, first.message_id, first.content_type) == (None, "m-1", "application/cloudevents+json")
    assert first.timestamp is not None
    assert before - 1 <= first.timestamp <= time.time() + 1  # in whole seconds
    assert (second.kind, second.content_type) == (None, "application/json")
    assert second.body == b"\xff\x00 not text"


async def test_a_publisher_reaches_two_lanes(place: Place) -> None:
    """Publishers write to events and to bulk; `retries` holds what we wrote ourselves."""
    queue, inbox = await place.consume()
    with pytest.raises(ValueError, match="retries"):
        await queue.send_event(Lane.RETRIES, b"{}", message_id="a")
    await queue.send_event(Lane.BULK, b"{}", message_id="b")
    message = await inbox.next()
    assert (message.lane, message.kind, message.message_id) == (Lane.BULK, None, "b")


@pytest.mark.parametrize("size", [0, 1, 128 * 1024])
async def test_bodies_survive(place: Place, size: int) -> None:
    """A body comes byte for byte, from none to the largest event (128 KiB)."""
    queue, inbox = await place.consume()
    body = (bytes(range(256)) * 512)[:size]
    await queue.publish(Lane.EVENTS, outgoing("a", body=body))
    assert (await inbox.next()).body == body


async def test_unacked_messages_are_redelivered(place: Place) -> None:
    """Unacked messages return after the worker has ended, in order, with a redelivery count."""
    queue, inbox = await place.consume()
    for name in "abc":
        await queue.publish(Lane.EVENTS, outgoing(name))
    await inbox.some(3)
    await queue.publish(Lane.RETRIES, outgoing("d"))
    await inbox.next()
    for count in (1, 2):
        await queue.close()
        queue, inbox = await place.consume()
        again = await inbox.some(4)
        assert names([message for message in again if message.lane is Lane.EVENTS]) == ["a", "b", "c"]
        assert {message.delivery_count for message in again} == {count}


async def test_acks_out_of_order(place: Place) -> None:
    """Acking the third and the first leaves the second, which alone comes again. A second ack acks nobody else's."""
    queue, inbox = await place.consume()
    for name in "abc":
        await queue.publish(Lane.EVENTS, outgoing(name))
    a, _, c = await inbox.some(3)
    queue.ack(c)
    queue.ack(a)
    queue.ack(a)
    await queue.close()
    queue, inbox = await place.consume()
    assert names([await inbox.next()]) == ["b"]
    await queue.publish(Lane.EVENTS, outgoing("behind"))
    assert names([await inbox.next()]) == ["behind"]


async def test_an_old_ack_has_no_effect(place: Place) -> None:
    """An ack from before a reconnect acks neither the redelivered message nor another."""
    queue, inbox = await place.consume()
    for name in "ab":
        await queue.publish(Lane.EVENTS, outgoing(name))
    old = await inbox.some(2)
    await queue.close()
    for message in old:
        queue.ack(message)  # on the closed one
    queue, inbox = await place.consume()
    await inbox.some(2)
    for message in old:
        queue.ack(message)  # on its successor
    await queue.close()
    _, inbox = await place.consume()
    assert [(message.message_id, message.delivery_count) for message in await inbox.some(2)] == [("a", 2), ("b", 2)]


@pytest.mark.parametrize("lane", list(Lane))
async def test_prefetch_bounds_the_unacked(place: Place, lane: Lane) -> None:
    """At most `prefetch` messages of a lane are out at a time; an ack makes room for the next."""
    queue, inbox = await place.consume(prefetch={lane: 2})
    for name in "abcde":
        await queue.publish(lane, outgoing(name))
    taken = await inbox.some(2)
    await ready(queue, lane, 3)
    assert inbox.empty()
    queue.ack(taken[1])
    assert names([await inbox.next()]) == ["c"]
    await ready(queue, lane, 2)
    assert inbox.empty()


async def test_messages_set_aside_make_room(place: Place) -> None:
    """As soon as a quarter of the prefetch is set aside. The rest of the prefetch bounds the unacked as before.

    A message that was set aside can be acked later, which makes no room again, or is redelivered.
    """
    for lane in (Lane.EVENTS, Lane.RETRIES):
        queue, inbox = await place.consume(prefetch={lane: 4})
        for number in range(20):
            await queue.publish(lane, outgoing(f"m-{number:02}"))
        late = await inbox.some(4)
        for message in late:
            queue.set_aside(message)
        others = await inbox.some(4)
        assert queue.status().consuming
        await ready(queue, lane, 12)
        for acked in (late[2], late[0], late[0], others[1]):
            queue.ack(acked)
        await inbox.next()
        await ready(queue, lane, 11)
        assert inbox.empty()
        assert inbox.lost_lanes == []
        await queue.close()
        queue, inbox = await place.consume()
        again = await inbox.some(17)
        assert {*names(again)} == {f"m-{number:02}" for number in range(20)} - {"m-00", "m-02", "m-05"}
        for message in again:
            queue.ack(message)
        await queue.close()


async def test_messages_set_aside_leave_the_prefetch_to_the_others(place: Place) -> None:
    """What is unacked and not set aside never exceeds the prefetch, and reaches it again once the others are acked."""
    queue, inbox = await place.consume(prefetch={Lane.EVENTS: 8})
    for number in range(40):
        await queue.publish(Lane.EVENTS, outgoing(f"m-{number:02}"))
    held = await inbox.some(8)
    for ready_count in (30, 28, 26, 24):
        late, held = held[:2], held[2:]
        for message in late:
            queue.set_aside(message)
        held += await inbox.some(2)
        await ready(queue, Lane.EVENTS, ready_count)
    for message in held:
        queue.ack(message)
    held = await inbox.some(8)
    await ready(queue, Lane.EVENTS, 16)
    assert inbox.empty()
    assert inbox.lost_lanes == []


async def test_lanes_are_separate(place: Place) -> None:
    """A lane that is full stops no other: events pass while bulk and retries wait for room."""
    queue, inbox = await place.consume(prefetch=ONE_BY_ONE)
    for lane in (Lane.BULK, Lane.RETRIES):
        for name in "ab":
            await queue.publish(lane, outgoing(f"{lane} {name}"))
    assert set(names(await inbox.some(2))) == {"bulk a", "retries a"}
    await queue.send_event(Lane.EVENTS, b"{}", message_id="fresh")
    message = await inbox.next()
    assert (message.lane, message.message_id) == (Lane.EVENTS, "fresh")
    assert inbox.empty()


async def test_depths_count_the_ready(place: Place) -> None:
    """Every queue is listed with its ready messages; unacked ones do not count until their worker has ended."""
    queue, inbox = await place.consume(prefetch=ONE_BY_ONE)
    for name in "abc":
        await queue.publish(Lane.EVENTS, outgoing(name))
    await delay(queue, 32, outgoing("d"))
    await queue.publish(DEAD, outgoing("e"))
    await inbox.next()
    await ready(queue, Lane.EVENTS, 2)
    depths = await queue.depths()
    assert set(depths) == {*Lane, DEAD, PARKED, *DELAY_QUEUES}
    assert {name: depth.ready for name, depth in depths.items() if depth.ready} == {
        "events": 2,
        "delay.32s": 1,
        DEAD: 1,
    }
    assert depths["events"].consumers == 1
    await eventually(lambda: queue.worker_count() == 1)
    await queue.close()
    observer = await place.open()
    await ready(observer, Lane.EVENTS, 3)
    assert (await observer.depths())["events"].consumers == 0


async def test_an_unknown_queue(place: Place) -> None:
    """A publish to a queue that is not there is refused, never lost in silence."""
    queue = await place.open()
    with pytest.raises(QueueUnavailable):
        await asyncio.wait_for(queue.publish("delay.3s", outgoing("a")), PATIENCE)
    await queue.publish(Lane.EVENTS, outgoing("b"))


async def test_closed_queue_refuses_every_use(place: Place) -> None:
    """Each use of a closed queue is refused at once, and its status reports that it is closed."""
    queue, _ = await place.consume()
    status = await consuming(queue)
    assert (status.connected, status.consuming, status.blocked, status.problem) == (True, True, False, None)
    await queue.close()
    assert (queue.status().connected, queue.status().consuming) == (False, False)
    bucket = queue.bucket(SHOP)
    for use in (
        lambda: queue.publish(Lane.EVENTS, outgoing("a")),
        lambda: queue.park(bucket, outgoing("a"), until=time.time() + MAX_PARKED_SECONDS),
        lambda: queue.fetch(bucket, 1),
        queue.count_parked,
    ):
        with pytest.raises(QueueUnavailable):
            await asyncio.wait_for(use(), PATIENCE)
    await queue.close()  # closing twice is nothing


async def test_many_at_once(place: Place) -> None:
    """A thousand publishes at the same time are all confirmed, all durable, and each comes once, in their order."""
    queue = await place.open()
    sent = [f"m-{number}" for number in range(1000)]
    await asyncio.gather(*(queue.publish(Lane.EVENTS, outgoing(name)) for name in sent))
    await queue.close()
    queue = await place.open()
    inbox = Inbox(on_take=queue.ack)
    await queue.consume(inbox)
    assert names(await inbox.some(1000)) == sent
    await queue.publish(Lane.EVENTS, outgoing("behind"))
    assert names([await inbox.next()]) == ["behind"]


async def test_acks_count_after_stopping(place: Place) -> None:
    """A worker that takes no more can still settle what it has: a drain loses nothing and repeats nothing."""
    queue, inbox = await place.consume()
    for name in "abc":
        await queue.publish(Lane.EVENTS, outgoing(name))
    a, b, _ = await inbox.some(3)
    await queue.stop_consuming()
    assert not queue.status().consuming
    await queue.publish(Lane.EVENTS, outgoing("d"))
    await ready(queue, Lane.EVENTS, 1)
    queue.ack(a)
    queue.ack(b)
    assert inbox.empty()
    await queue.close()
    _, inbox = await place.consume()
    assert [(message.message_id, message.delivery_count) for message in await inbox.some(2)] == [("c", 1), ("d", 0)]


async def echo(request: bytes) -> bytes:
    """Carries out a request."""
    return request


async def answering_worker(place: Place, do: Callable[[bytes], Awaitable[bytes]] = echo) -> tuple[Queue, Inbox]:
    """A worker that reports its state, and carries out requests."""
    queue, inbox = place.closed(), Inbox()
    queue.side_channel.listen(lambda: b"my state", lambda _id, _body: None)
    queue.side_channel.handle_requests(do)
    await queue.open()
    await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
    await queue.consume(inbox)
    await consuming(queue)
    return queue, inbox


async def test_overview_has_depths_and_worker_states(place: Place) -> None:
    """From the worker and from an unopened queue; the read leaves nothing open."""
    worker, _ = await answering_worker(place)
    observer = place.closed()
    await worker.publish(DEAD, outgoing("a"))
    await ready(worker, DEAD, 1)
    for queue in (observer, worker):
        async with asyncio.timeout(PATIENCE):
            while not (overview := await queue.read_overview(1.0)).worker_states:  # the side channel takes a moment
                pass
        assert overview.worker_states == [b"my state"]
        assert (overview.depths[DEAD].ready, overview.depths[Lane.EVENTS].consumers) == (1, 1)
    assert not observer.status().connected


async def test_a_worker_carries_out_a_request_and_answers(place: Place) -> None:
    """From an unopened queue and from the worker; without a worker no request is sent or kept."""
    observer, requests = place.closed(), list[bytes]()
    await place.open()
    assert await observer.request(b"too early", 0.1) == WorkerAnswers(seen=0, answers=[])

    async def do(request: bytes) -> bytes:
        requests.append(request)
        return b"did " + request

    worker, _ = await answering_worker(place, do)
    for queue in (observer, worker):
        async with asyncio.timeout(PATIENCE):
            while not (answered := await queue.request(b"it", 1.0)).answers:  # the side channel takes a moment
                pass
        assert answered == WorkerAnswers(seen=1, answers=[b"did it"])
    assert set(requests) == {b"it"}


class Announcer:
    """Announces a name without a pause, and records the announcements that arrive."""

    count = 0

    def __init__(self, name: str, received: asyncio.Queue[tuple[str, bytes]]) -> None:
        self._name = name
        self._received = received

    async def next_announcement(self) -> bytes:
        return self._name.encode()

    def on_announcement(self, document: bytes) -> None:
        self._received.put_nowait((self._name, document))


async def test_announcement_reaches_all_workers(place: Place) -> None:
    """The sender receives it too, unless the queue has one worker at most: its return
    shows that others can receive it.
    """
    received = asyncio.Queue[tuple[str, bytes]]()
    for name in ("first", "second"):
        queue = place.closed()
        if isinstance(queue, SqliteQueue):
            return  # nobody else serves the file
        queue.side_channel.listen(lambda: b"", lambda _id, _body: None)
        queue.side_channel.share_presence(Announcer(name, received))
        await queue.open()
        await asyncio.wait_for(queue.wait_until_ready(), PATIENCE)
        await queue.consume(Inbox())
    found = set[tuple[str, bytes]]()
    while len(found) < 4:
        found.add(await asyncio.wait_for(received.get(), PATIENCE))
    assert found == {(to, of) for to in ("first", "second") for of in (b"first", b"second")}


async def test_requested_replies_reach_the_publisher(place: Place) -> None:
    """The event brings the address of its publisher, and what the worker replies comes there."""
    worker, inbox = await answering_worker(place)
    publisher, received = place.closed(), asyncio.Queue[bytes]()
    publisher.receive_replies(received.put_nowait)
    await publisher.open()
    await asyncio.wait_for(publisher.wait_until_ready(), PATIENCE)
    await publisher.send_event(Lane.EVENTS, b"{}", message_id="e-1")
    asked = (await inbox.next()).reply_to
    assert asked is not None
    worker.side_channel.reply(asked.to, asked.correlation_id, b"delivered")
    assert await asyncio.wait_for(received.get(), PATIENCE) == b"delivered"

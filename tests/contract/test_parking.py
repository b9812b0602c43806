"""What every queue keeps of the deliveries that wait for a client that is down: they are parked, fetched and acked."""

import asyncio
import time
from collections.abc import Sequence

from notifier.model.message import MAX_PARKED_SECONDS, PARKED, Kind, Lane, Message, MessageDraft
from notifier.queues.queue_port import Queue
from tests.contract.parking import park, parked
from tests.contract.queues import Inbox, Place, names, outgoing, ready

SHOP = ("https://id.example.com", "shop")
WIKI = ("https://id.example.com", "wiki")


async def again(queue: Queue, inbox: Inbox, bucket: str, count: int) -> Sequence[Message]:
    """Return the messages that return after a restart: from the bucket, or as retries if the queue wakes parked
    messages.
    """
    found = await queue.fetch(bucket, count)
    return [*found, *await inbox.some(count - len(found))]


async def test_parked_stays_until_it_is_fetched(place: Place) -> None:
    """It does not come by itself, and comes as it was sent."""
    queue, inbox = await place.consume()
    bucket = queue.bucket(SHOP)
    headers = {"client_id": "shop", "iss": "https://id.example.com/ü"}
    message = MessageDraft(kind=Kind.DELIVERY, body=b'{"a":1}', message_id="a", headers=headers)
    await queue.park(bucket, message, until=time.time() + MAX_PARKED_SECONDS)
    await queue.publish(Lane.RETRIES, outgoing("behind"))
    assert names([await inbox.next()]) == ["behind"]
    [fetched] = await queue.fetch(bucket, 1)
    assert (fetched.lane, fetched.kind, fetched.message_id) == (Lane.RETRIES, Kind.DELIVERY, "a")
    assert (fetched.body, fetched.delivery_count) == (b'{"a":1}', 0)
    assert headers.items() <= fetched.headers.items()
    assert inbox.empty()


async def test_the_oldest_are_fetched_first(place: Place) -> None:
    """Never more than asked for; fewer mean that nothing else waits."""
    queue, _ = await place.consume()
    bucket = await park(queue, SHOP, *"abc")
    assert names(await queue.fetch(bucket, 2)) == ["a", "b"]
    assert names(await queue.fetch(bucket, 2)) == ["c"]
    assert list(await queue.fetch(bucket, 2)) == []


async def test_unacked_fetched_message_is_redelivered(place: Place) -> None:
    """After the worker has ended, oldest first, with a redelivery count; a message never fetched returns as new."""
    queue, _ = await place.consume()
    bucket = await park(queue, SHOP, *"abcd")
    a, b, c = await queue.fetch(bucket, 3)
    queue.ack(b)
    await queue.close()
    await parked(await place.open(), {bucket: 3})
    queue, inbox = await place.consume()
    counts = {message.message_id: message.delivery_count for message in await again(queue, inbox, bucket, 3)}
    assert counts == {"a": 1, "c": 1, "d": 0}
    for old in (a, c):
        queue.ack(old)  # of the worker before: without effect
    await queue.close()
    queue, inbox = await place.consume()
    assert sorted(map(str, names(await again(queue, inbox, bucket, 3)))) == ["a", "c", "d"]


async def test_parked_messages_of_a_stopped_worker_are_found(place: Place) -> None:
    """In one of the buckets that the queue names, each of which it names once, or as a retry."""
    queue, _ = await place.consume()
    await park(queue, SHOP, *"ab")
    await park(queue, WIKI, "c")
    await queue.close()
    queue, inbox = await place.consume()
    found = [message for bucket in queue.inherited_buckets(at_start=True) for message in await queue.fetch(bucket, 3)]
    found += await inbox.some(3 - len(found))
    assert sorted(map(str, names(found))) == ["a", "b", "c"]


async def test_each_client_fetches_only_its_messages(place: Place) -> None:
    """Its bucket may hold others' too, and nothing of anybody is lost."""
    queue, _ = await place.consume()
    shop = await park(queue, SHOP, "for shop", "also for shop")
    wiki = await park(queue, WIKI, "for wiki")
    assert shop == queue.bucket(SHOP)
    first = names(await queue.fetch(shop, 10))
    rest = names(await queue.fetch(wiki, 10))
    assert [name for name in first if name != "for wiki"] == ["for shop", "also for shop"]
    assert "for wiki" in (first if shop == wiki else rest)
    assert len(first) + len(rest) == 3


async def test_every_worker_finds_the_same_bucket(place: Place) -> None:
    """Whatever text issuer and client are."""
    one, other = await place.open(), place.closed()
    for odd in (("https://a\0b", "c"), ("", '"]'), ("ü" * 500, "\N{GRINNING FACE}")):
        assert one.bucket(odd) == other.bucket(odd)


async def test_parked_messages_are_counted(place: Place) -> None:
    """By bucket and in total; fetched messages do not count, and an empty bucket is not listed."""
    queue, _ = await place.consume()
    bucket = await park(queue, SHOP, *"abc")
    await parked(queue, {bucket: 3})
    await ready(queue, PARKED, 3)
    a, _ = await queue.fetch(bucket, 2)
    await parked(queue, {bucket: 1})
    await ready(queue, PARKED, 1)
    queue.ack(a)
    await parked(queue, {bucket: 1})
    assert await queue.count_parked([bucket]) == {bucket: 1}
    assert await queue.count_parked([]) == {}
    await queue.fetch(bucket, 1)
    await parked(queue, {})
    assert {name for name, depth in (await queue.depths()).items() if depth.ready} == set()


async def test_acks_of_fetched_messages_make_no_room_in_the_lane(place: Place) -> None:
    """They never took any: the prefetch of the retries bounds what the lane gives."""
    queue, inbox = await place.consume(prefetch={Lane.RETRIES: 1})
    for name in "ab":
        await queue.publish(Lane.RETRIES, outgoing(name))
    a = await inbox.next()
    bucket = await park(queue, SHOP, *"cd")
    for message in await queue.fetch(bucket, 2):
        queue.ack(message)
    await parked(queue, {})
    await ready(queue, Lane.RETRIES, 1)
    assert inbox.empty()
    queue.ack(a)
    assert names([await inbox.next()]) == ["b"]


async def test_many_fetch_at_once(place: Place) -> None:
    """Each message reaches one of them, in the order of the fetches, and its ack the queue.

    A channel of RabbitMQ may lose more than 32 acks that are followed at once by its end (see `queue_pass.py`).
    """
    queue, _ = await place.consume()
    sent = [f"m-{number}" for number in range(30)]
    bucket = await park(queue, SHOP, *sent)
    batches = await asyncio.gather(*(queue.fetch(bucket, 4) for _ in range(10)))
    fetched = [message for batch in batches for message in batch]
    assert names(fetched) == sent
    for message in fetched[1:]:
        queue.ack(message)
    await queue.close()
    queue, inbox = await place.consume()
    assert names(await again(queue, inbox, bucket, 1)) == names(fetched[:1])
    assert list(await queue.fetch(bucket, 1)) == []
    await queue.publish(Lane.RETRIES, outgoing("behind"))
    assert names([await inbox.next()]) == ["behind"]


async def test_parked_again_is_the_newest(place: Place) -> None:
    """A message that was fetched, parked again and acked is in the bucket once, behind the others."""
    queue, _ = await place.consume()
    bucket = await park(queue, SHOP, *"ab")
    [a] = await queue.fetch(bucket, 1)
    await park(queue, SHOP, "a")
    queue.ack(a)
    assert names(await queue.fetch(bucket, 10)) == ["b", "a"]

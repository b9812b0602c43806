"""Deferred messages in every queue: real seconds, in a separate module."""

import json
import time

from notifier.model.message import Kind, Lane, MessageDraft, NewerKind
from tests.contract.queues import Place, delay, names, outgoing


async def test_deferred_message_returns_unchanged_when_due(place: Place) -> None:
    """A message that is due in a second comes to `retries` then, and not before.

    It keeps its kind: a message of ours that the queue takes for a publisher's would become a dead letter.
    """
    queue, inbox = await place.consume()
    started = time.monotonic()
    kinds = {str(kind): kind for kind in (Kind.DELIVERY, Kind.EVENT, Kind.SOURCED, NewerKind("notifier.batch"))}
    for name, kind in kinds.items():
        await delay(queue, 1, MessageDraft(kind=kind, body=b"{}", message_id=name, headers={"source": "upstream/op"}))
    came = await inbox.some(len(kinds))
    assert time.monotonic() - started >= 0.99
    assert {message.message_id: message.kind for message in came} == kinds
    assert {(message.lane, message.headers["source"]) for message in came} == {(Lane.RETRIES, "upstream/op")}
    for message in came:
        queue.ack(message)
    assert (await queue.depths())["delay.1s"].ready == 0


async def test_delay_of_several_hops_returns_once(place: Place) -> None:
    """RabbitMQ keeps it in two delay queues, for 2 s and 1 s. Whoever consumes sees the message only after both."""
    queue, inbox = await place.consume()
    due = time.time() + 3.2
    body = json.dumps({"v": 1, "schedule": {"due": due}}, separators=(",", ":"))
    await queue.publish_later(outgoing("a", body=body.encode()), due=due)
    message = await inbox.next()
    assert time.time() >= due - 1.1  # a wait is rounded down to whole seconds
    assert (message.lane, message.message_id, message.kind) == (Lane.RETRIES, "a", Kind.DELIVERY)
    queue.ack(message)
    await queue.close()
    assert {depth.ready for depth in (await (await place.open()).depths()).values()} == {0}


async def test_delays_do_not_block_each_other(place: Place) -> None:
    """A long delay published first holds back no short one published after it; a delay outlives the worker."""
    queue, inbox = await place.consume()
    for seconds, name in ((65536, "tomorrow"), (2, "later"), (1, "soon")):
        await delay(queue, seconds, outgoing(name))
    assert names([await inbox.next()]) == ["soon"]
    await queue.close()
    queue, inbox = await place.consume()
    assert set(names(await inbox.some(2))) == {"soon", "later"}
    assert (await queue.depths())["delay.65536s"].ready == 1

"""Each hook into aiormq's and pamqp's inside switched off, on a real broker: nothing is lost.

What an update may change of an inside is changed here, in ways that leave the library itself working.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import FunctionType
from typing import Any

import aio_pika
import aiormq
import aiormq.connection
import pytest
from aiormq.abc import ChannelFrame
from aiormq.connection import FrameReceiver
from pamqp import commands, decode, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from structlog.testing import capture_logs

from notifier.adapters.queues.rabbitmq import insides, publishing
from notifier.adapters.queues.rabbitmq.feed_target import RabbitFeedTarget
from notifier.adapters.queues.rabbitmq.queue import RabbitQueue
from notifier.adapters.queues.rabbitmq.wire import frames
from notifier.app.doctor_checks import libraries
from notifier.domain.errors import QueueUnavailable
from notifier.domain.message import DEAD, Kind, Lane, Outgoing
from notifier.operations.doctor import Severity
from tests.contract.queues import PATIENCE, Inbox, consuming, delay, names, outgoing, ready
from tests.contract.test_rabbitmq_traps import publish_until_durable
from tests.rabbit_options import rabbit_options
from tests.rabbitmq_node import RabbitmqNode
from tests.system.waiting import until

Change = Callable[[pytest.MonkeyPatch], None]
HOOKS = (
    insides.reads,
    insides.hands_over,
    insides.writes,
    insides.tells_blocked,
    insides.decodes,
    insides.bears_anything,
)


def _wrapped(monkeypatch: pytest.MonkeyPatch, of: type, name: str) -> None:
    """The same, told in other words: what it names is not seen from outside any more."""
    original = vars(of)[name]

    async def later(*words: Any, **more: Any) -> Any:
        return await original(*words, **more)

    def at_once(*words: Any, **more: Any) -> Any:
        return original(*words, **more)

    monkeypatch.setattr(of, name, later if asyncio.iscoroutinefunction(original) else at_once)


def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight of a frame is counted in another way."""
    original = FrameReceiver.get_frame

    async def get_frame(self: FrameReceiver) -> Any:
        weight, channel, frame = await original(self)
        return weight + 1, channel, frame

    monkeypatch.setattr(aiormq.connection, "FrameReceiver", FrameReceiver)
    monkeypatch.setattr(FrameReceiver, "get_frame", get_frame)


def handing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections give their channels what they read in another way."""
    _wrapped(monkeypatch, aiormq.connection.Connection, "_Connection__reader")


def writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishes are entered in other books."""
    _wrapped(monkeypatch, aiormq.Channel, "basic_publish")


def blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ready` gives way to others first, so that one step of it tells nothing."""
    original = aiormq.connection.Connection.ready

    async def later(self: aiormq.connection.Connection) -> None:
        await asyncio.sleep(0)
        await original(self)

    monkeypatch.setattr(aiormq.connection.Connection, "ready", later)


def decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """pamqp looks its decoders up elsewhere."""
    tables = {"METHODS": dict(decode.METHODS), "TABLE_MAPPING": dict(decode.TABLE_MAPPING)}
    tables["METHODS"] |= {name: getattr(decode, of) for name, of in _STRICT.items()}  # type: ignore[operator]
    tables["TABLE_MAPPING"] |= {b"T": decode.timestamp, b"F": decode.field_table}  # type: ignore[operator]
    elsewhere = vars(decode) | tables
    for name in ("by_type", "embedded_value", "field_table", "field_array"):
        function = getattr(decode, name)
        elsewhere[name] = FunctionType(function.__code__, elsewhere, name, function.__defaults__)
    monkeypatch.setattr(decode, "by_type", elsewhere["by_type"])


_STRICT = {"timestamp": "timestamp", "shortstr": "short_str", "table": "field_table"}


def all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst update but one."""
    for change in CHANGES[:-1]:
        change(monkeypatch)


def bearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst: aiormq reads headers strictly, and by another name."""
    all_of_them(monkeypatch)
    original = FrameReceiver.get_frame

    async def get_frame(self: FrameReceiver) -> Any:
        with pytest.MonkeyPatch.context() as strictly:
            strictly.setattr(frame, "unmarshal", frames._strictly)
            return await original(self)

    monkeypatch.setattr(FrameReceiver, "get_frame", get_frame)


CHANGES = (reading, handing_over, writing, blocking, decoding, all_of_them)
OFF: dict[Change, set[str]] = {change: {change.__name__.replace("_", " ")} for change in CHANGES}
OFF[all_of_them] = {hook for change in CHANGES[:-1] for hook in OFF[change]}
OFF[bearing] = OFF[all_of_them] | {"bearing"}


@pytest.fixture(params=CHANGES, ids=lambda change: change.__name__)
async def changed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Change]:
    """An inside that is another, found so by the one hook that rests on it."""
    with _made(request.param, monkeypatch):
        yield request.param


@contextlib.contextmanager
def _made(change: Change, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _look_again()
    try:
        monkeypatch.setattr(frame, "unmarshal", frames._strictly)
        change(monkeypatch)
        with capture_logs() as log:
            found = insides.prepare()
        assert {hook for hook, fits in found.items() if not fits} == OFF[change]
        told = {line["hook"]: line["version"] for line in log if line["event"] == "library_hook_off"}
        assert told.keys() == OFF[change]
        assert all(told.values())
        yield
    finally:
        monkeypatch.undo()
        _look_again()


def _look_again() -> None:
    for hook in HOOKS:
        hook.cache_clear()


@pytest.fixture
async def worker(amqp_url: str, prefix: str) -> AsyncIterator[tuple[RabbitQueue, Inbox]]:
    """A worker's queue, consuming."""
    queue, inbox = RabbitQueue(rabbit_options(amqp_url, prefix)), Inbox()
    await queue.open()
    await asyncio.wait_for(queue.ready(), PATIENCE)
    await queue.consume(inbox)
    await consuming(queue)
    yield queue, inbox
    await queue.close()


def test_every_hook_fits_the_versions_that_are_shipped() -> None:
    """Each is in use."""
    _look_again()

    async def look() -> dict[str, bool]:
        return dict(insides.prepare())

    assert all(asyncio.run(look()).values())


async def test_the_doctor_tells_which_and_what_to_do(changed: Change) -> None:
    """A warning each: all works, at another price."""
    found = await libraries()
    assert {finding.text.partition(":")[0] for finding in found} == OFF[changed]
    assert {(finding.level, finding.subject) for finding in found} == {(Severity.WARNING, "aiormq, pamqp")}


@pytest.mark.usefixtures("changed")
async def test_messages_are_published_taken_acked_and_given_back(worker: tuple[RabbitQueue, Inbox]) -> None:
    """In order, small, empty and of many frames; what is acked is gone, and what is not comes again."""
    queue, inbox = worker
    bodies = [b"x" * 400_000, b"", *(b"%d" % number for number in range(40))]
    await asyncio.gather(
        *(
            queue.publish(Lane.EVENTS, Outgoing(kind=Kind.EVENT, body=body, message_id=f"m-{nth}"))
            for nth, body in enumerate(bodies)
        )
    )
    taken = [await inbox.next() for _ in bodies]
    assert {each.message_id: each.body for each in taken} == {f"m-{nth}": body for nth, body in enumerate(bodies)}
    *acked, kept = taken
    for each in acked:
        queue.ack(each)
    await queue.close()
    await queue.open()
    await asyncio.wait_for(queue.ready(), PATIENCE)
    again = Inbox()
    await queue.consume(again)
    found = await again.next()
    assert (found.message_id, found.body, found.delivery_count) == (kept.message_id, kept.body, 1)
    queue.ack(found)
    await ready(queue, Lane.EVENTS, 0)
    assert again.empty()


@pytest.mark.usefixtures("changed")
async def test_a_retry_comes_when_it_is_due_and_one_that_goes_nowhere_is_an_error(
    worker: tuple[RabbitQueue, Inbox], amqp_url: str, prefix: str
) -> None:
    """A return is told to who published, and the others are confirmed."""
    queue, inbox = worker
    await asyncio.gather(*(delay(queue, 1, outgoing(f"later-{nth}")) for nth in range(3)))
    assert {each.lane for each in await inbox.some(3)} == {Lane.RETRIES}
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(f"{prefix}.{DEAD}", ensure=False)).delete(if_unused=False, if_empty=False)
    with pytest.raises(QueueUnavailable):
        await queue.publish(DEAD, outgoing("nowhere"))
    await publish_until_durable(queue, DEAD, outgoing("there again"))


async def test_one_that_cannot_be_decoded_takes_no_neighbour_with_it(
    changed: Change, worker: tuple[RabbitQueue, Inbox], amqp_url: str, prefix: str
) -> None:
    """It is taken too, without what could not be read; no connection ends over it."""
    queue, inbox = worker
    for name in ("before", "bad", "behind"):
        await (_publish_unreadable(amqp_url, prefix) if name == "bad" else queue.publish(Lane.EVENTS, outgoing(name)))
    taken = await inbox.some(3)
    assert names(taken) == ["before", None, "behind"]
    assert (taken[1].body, taken[1].kind, taken[1].timestamp) == (b"{}", None, None)
    assert {each.delivery_count for each in taken} == {0}
    assert changed in OFF


async def test_where_nothing_bears_such_a_one_a_lane_takes_one_at_a_time(
    amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each loss of the connection counts against the message that caused it, and against no neighbour."""
    with _made(bearing, monkeypatch):
        queue, inbox = RabbitQueue(rabbit_options(amqp_url, prefix)), Inbox()
        await queue.open()
        await asyncio.wait_for(queue.ready(), PATIENCE)
        await queue.consume(inbox)
        await consuming(queue)
        for name in ("a", "b", "c"):
            await queue.publish(Lane.EVENTS, outgoing(name))
        for name in ("a", "b", "c"):
            message = await inbox.next()
            assert message.message_id == name
            assert inbox.empty()
            queue.ack(message)
        await ready(queue, Lane.EVENTS, 0)
        await _publish_unreadable(amqp_url, prefix)
        await until(lambda: _standing(queue), lambda standing: not standing)
        await queue.close()


async def _standing(queue: RabbitQueue) -> bool:
    return queue.status().connected


async def _publish_unreadable(url: str, prefix: str) -> None:
    """An event whose timestamp is in microseconds, as a careless publisher has it."""
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=False)
    assert isinstance(channel, aiormq.Channel)
    head = ContentHeader(properties=commands.Basic.Properties(delivery_mode=2), body_size=2).marshal()
    flags = int.from_bytes(head[12:14]) | 1 << 6
    payload = head[:12] + flags.to_bytes(2) + head[14:] + (2**60).to_bytes(8)
    raw = b"\x02" + channel.number.to_bytes(2) + len(payload).to_bytes(4) + payload + b"\xce"
    begun = commands.Basic.Publish(exchange=f"{prefix}.events", routing_key="x")
    whole = ChannelFrame.marshall(channel.number, [begun]).payload + raw
    whole += ChannelFrame.marshall(channel.number, [ContentBody(b"{}")]).payload
    await channel.write_queue.put(ChannelFrame(payload=whole, should_close=False))
    await channel.queue_declare(f"{prefix}.events", passive=True)
    await connection.close()


async def _publish_on(queue: RabbitQueue) -> None:
    while True:
        await queue.publish(DEAD, outgoing("b"))


@pytest.mark.parametrize("changed", [blocking, all_of_them], indirect=True)
@pytest.mark.usefixtures("changed")
async def test_an_alarm_is_met_by_the_confirm_that_does_not_come(
    worker: tuple[RabbitQueue, Inbox], rabbitmq: RabbitmqNode | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish ends with an error, taking and acking go on, and afterwards it publishes again."""
    if rabbitmq is None:
        pytest.skip("needs rabbitmqctl on the node")
    queue, inbox = worker
    monkeypatch.setattr(publishing, "CONFIRM_TIMEOUT", 1.0)
    await queue.publish(Lane.EVENTS, outgoing("a"))
    taken = await inbox.next()
    await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.0000001")
    try:
        with pytest.raises(QueueUnavailable, match="no confirm within"):
            await _publish_on(queue)
        queue.ack(taken)
        await ready(queue, Lane.EVENTS, 0)
    finally:
        await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
    await publish_until_durable(queue, DEAD, outgoing("c"))


@pytest.mark.usefixtures("changed")
async def test_letters_are_looked_at_and_outcomes_are_sent(
    worker: tuple[RabbitQueue, Inbox], amqp_url: str, prefix: str
) -> None:
    """What is beside the logouts goes on too."""
    queue, _ = worker
    await queue.publish(DEAD, outgoing("a"))
    await queue.publish(DEAD, outgoing("b"))
    assert names(await queue.browse(DEAD, 10)) == ["a", "b"]
    outcomes = RabbitFeedTarget(rabbit_options(amqp_url, prefix))
    running = asyncio.create_task(outcomes.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await outcomes.available()
            await outcomes.send([])
    finally:
        running.cancel()

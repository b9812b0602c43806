"""What dead letters keep on either queue: looking changes nothing, and a repair neither loses nor doubles one."""

import asyncio
import signal
import sys
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

import aiormq
import pytest

from notifier.model.documents.dead_letter import dead_letter_raw, dump_dead_letter, load_dead_letter
from notifier.model.documents.documents import dump_delivery, load_delivery
from notifier.model.errors import InputIssue, QueueBusy, QueueUnavailable
from notifier.model.message import DEAD, Kind, Lane, Message, MessageDraft
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import DeadLetterSummary, read_summary, summary_of
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, readmit
from notifier.operators.deliveries.repair import RepairPace, remove, repair_at_rate, replay
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.repair_result import STOPPED_TEXT, RepairResult
from notifier.queues.passes import RepairOptions, make_pass_reader, stopped_by
from notifier.queues.queue_port import DeadLetters, Queue
from notifier.queues.rabbitmq import dead_letters as dead_letters_module
from notifier.queues.rabbitmq.connection import HEARTBEAT_SECONDS
from notifier.queues.rabbitmq.dead_letters import BUSY_TIMEOUT_SECONDS, PassLock, RabbitDeadLetters
from notifier.queues.rabbitmq.queue_pass import RabbitPass
from tests.contract.broker import messages_held
from tests.contract.dead_letter_samples import DELIVERY, ISS, RULES, course, dead_letter, store_dead_letters
from tests.contract.queues import Inbox, Place, names, ready
from tests.support.rabbit_options import rabbit_options

MANY = 250  # more than are taken together on either queue
ALL = DeadLetterFilter()
ROWS = make_pass_reader(read_summary, ALL.matches, whole=False)


@pytest.fixture
def dead_letters(queue: Queue) -> DeadLetters:
    """The dead letters of the queue."""
    return queue.dead_letters()


async def seen(dead_letters: DeadLetters, wanted: DeadLetterFilter = ALL) -> list[str]:
    """The ids, oldest first."""
    async with aclosing(find_messages(dead_letters, wanted)) as found:
        return [row.id async for row, _ in found]


def ids(count: int, start: int = 0) -> list[str]:
    return [f"d-{number:04}" for number in range(start, start + count)]


async def test_looking_changes_nothing(place: Place, queue: Queue, dead_letters: DeadLetters) -> None:
    """A list, whole or broken off, keeps all dead letters in order, however often and after a restart.

    A queue of RabbitMQ 4.x without its own delivery limit drops a message at the 21st look.
    """
    await store_dead_letters(queue, *map(dead_letter, ids(MANY)))
    for _ in range(11):
        assert await seen(dead_letters) == ids(MANY)
        async with aclosing(find_messages(dead_letters, ALL)) as found:
            assert (await anext(found))[0].id == "d-0000"
        await ready(queue, DEAD, MANY)
    await queue.close()
    assert await seen((await place.open()).dead_letters()) == ids(MANY)


async def test_malformed_message_is_kept_byte_for_byte(queue: Queue, dead_letters: DeadLetters) -> None:
    """In a queue as in memory: its body, why, and which of its entries; an export has all of it."""
    came = Message(
        lane=Lane.EVENTS, body=b"\xff\0" * 1000, tag=None, content_type="text/plain", message_id="m", user_id="idp",
        headers={"cloudEvents:id": "e", "cloudEvents:source": "/"},
    )  # fmt: skip
    dead_lettered = dead_letter_raw(came, [InputIssue("", "no JSON")], 1000.0)
    await store_dead_letters(queue, dead_lettered, dead_letter("a"))
    async with aclosing(
        find_messages(dead_letters, DeadLetterFilter(ids=frozenset({dead_lettered.id})), whole=True)
    ) as found:
        ((row, message),) = [each async for each in found]
    assert message.body == came.body
    assert load_dead_letter(message) == dead_lettered
    assert row == summary_of(dead_lettered)


async def test_only_requested_parts_of_a_dead_letter_are_kept(queue: Queue, dead_letters: DeadLetters) -> None:
    """A list needs rows, a search for a user reads the bodies and keeps none; what is not meant is kept by nobody."""
    await store_dead_letters(queue, dead_letter("a"), dead_letter("b", client_id="mail"))
    async with aclosing(find_messages(dead_letters, DeadLetterFilter(subject="alice"))) as found:
        assert [(row.id, message.body) async for row, message in found] == [("a", b""), ("b", b"")]
    async with DeadLetterFilter(client_id="mail").open_pass(dead_letters, whole=True) as queue_pass:
        seen = [each for page in [await queue_pass.next_page(), await queue_pass.next_page()] for each in page]
    assert [(each.summary is None, bool(each.message.body)) for each in seen] == [(True, False), (False, True)]


async def test_large_dead_letters_are_read_in_small_pages(queue: Queue, dead_letters: DeadLetters) -> None:
    """A prefetch counts messages, and a page rows: bytes are bounded all the same, and the order is kept."""
    large = [
        dead_letter_raw(Message(lane=Lane.EVENTS, body=b"%d" % (n % 10) * 900_000, tag=None), [], 1000.0)
        for n in range(24)
    ]
    await store_dead_letters(queue, *large)
    async with ALL.open_pass(dead_letters, whole=True) as queue_pass:
        pages = []
        while page := await queue_pass.next_page():
            pages.append([each.summary.id for each in page if each.summary is not None])
    assert [id_ for page in pages for id_ in page] == [each.id for each in large]
    assert max(map(len, pages)) <= 20
    await ready(queue, DEAD, len(large))
    assert await seen(dead_letters) == [each.id for each in large]


async def test_dead_letter_added_during_a_pass_is_in_the_next(queue: Queue, dead_letters: DeadLetters) -> None:
    """So a client that refuses at once cannot make a replay endless."""
    await store_dead_letters(queue, dead_letter("a"), dead_letter("b"))
    async with dead_letters.open_pass(ROWS) as queue_pass:
        page = list(await queue_pass.next_page())
        await queue.publish(DEAD, dump_dead_letter(dead_letter("c")))
        while more := await queue_pass.next_page():
            page += more
        assert names([seen.message for seen in page]) == ["a", "b"]
    await ready(queue, DEAD, 3)
    assert await seen(dead_letters) == ["a", "b", "c"]


async def test_discard_keeps_the_order_of_the_rest(queue: Queue, dead_letters: DeadLetters) -> None:
    """Only the selected ones are deleted, wherever they are in the queue."""
    every = [dead_letter(name, client_id="mail" if number % 3 else "shop") for number, name in enumerate(ids(MANY))]
    await store_dead_letters(queue, *every)
    reported: list[DeadLetterSummary] = []
    account = await remove(dead_letters, DeadLetterFilter(client_id="shop"), course(), reported.append)
    shops = [each.id for each in every if each.client_id == "shop"]
    assert [row.id for row in reported] == shops
    assert (account.done, account.by_reason, account.unfinished) == (len(shops), {"refused": len(shops)}, None)
    assert account.by_client == {(ISS, "shop"): len(shops)}
    await ready(queue, DEAD, MANY - len(shops))
    assert await seen(dead_letters) == [each.id for each in every if each.client_id == "mail"]


async def test_replay_publishes_a_new_delivery(place: Place, queue: Queue, dead_letters: DeadLetters) -> None:
    """Its ages and its count begin again, what it met is remembered, and nothing of the letter's headers goes along."""
    await store_dead_letters(queue, dead_letter("d-1"))
    account = await replay(dead_letters, ALL, RULES, course())
    assert (account.done, account.kept, account.unfinished) == (1, {}, None)
    assert await seen(dead_letters) == []
    _, inbox = await place.consume()
    message = await inbox.next()
    assert (message.lane, message.kind, message.message_id) == (Lane.RETRIES, Kind.DELIVERY, "d-1")
    assert not {"x-death", "reason", "client_id"} & message.headers.keys()
    delivery = load_delivery(message.body)
    assert (delivery.id, delivery.sub, delivery.sid, delivery.iss) == ("d-1", "alice", "s-1", ISS)
    assert (delivery.progress.attempts, delivery.progress.first_attempt_at) == (0, None)
    assert [past.reason for past in delivery.progress.history] == ["server_error", "dns"]


async def test_stopped_replay_can_be_continued(place: Place, queue: Queue, dead_letters: DeadLetters) -> None:
    """Between two batches; in the end each was replayed exactly once."""
    await store_dead_letters(queue, *map(dead_letter, ids(MANY)))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    first = await replay(dead_letters, ALL, RULES, course(stop=stop))
    assert 0 < first.done < MANY
    assert first.unfinished
    assert not first.failed
    await ready(queue, DEAD, MANY - first.done)
    assert await seen(dead_letters) == ids(MANY)[first.done :]
    second = await replay(dead_letters, ALL, RULES, course())
    assert (second.done, second.unfinished) == (MANY - first.done, None)
    worker = await place.open()
    inbox = Inbox(worker.ack)
    await worker.consume(inbox)
    assert sorted(map(str, names(await inbox.some(MANY)))) == ids(MANY)
    await queue.send_event(Lane.EVENTS, b"{}", message_id="behind")
    assert names([await inbox.next()]) == ["behind"]


async def test_slow_replay_leaves_the_dead_letters_to_others(
    place: Place, queue: Queue, dead_letters: DeadLetters
) -> None:
    """It keeps its rate by short passes; between these, others have access."""
    await store_dead_letters(queue, *map(dead_letter, ids(12)))
    now, seen_counts = 0.0, list[int]()

    async def run_pass(options: RepairOptions, _arrived_by: float | None, pace: RepairPace | None) -> RepairResult:
        return await replay(dead_letters, ALL, RULES, options, pace=pace)

    async def pause(seconds: float) -> None:
        nonlocal now
        seen_counts.append(len(await seen(dead_letters)))
        now += seconds

    result = await repair_at_rate(run_pass, course(rate=2.0, pause=pause, monotonic=lambda: now))
    assert (result.done, result.unfinished) == (12, None)
    assert (seen_counts, now) == ([10, 8, 6, 4, 2], 5.0)
    _, inbox = await place.consume()
    assert sorted(map(str, names(await inbox.some(12)))) == ids(12)


async def test_a_limit_leaves_the_rest(queue: Queue, dead_letters: DeadLetters) -> None:
    """For requests that must end; the oldest come first."""
    await store_dead_letters(queue, *map(dead_letter, ids(5)))
    account = await replay(dead_letters, ALL, RULES, course(limit=2))
    assert account.done == 2
    assert account.unfinished is not None
    await ready(queue, DEAD, 3)
    assert await seen(dead_letters) == ids(3, start=2)
    last = await replay(dead_letters, ALL, RULES, course(limit=3))
    assert (last.done, last.unfinished) == (3, None)


async def test_lost_connection_during_a_pass_keeps_the_order(rabbit_place: Place) -> None:
    """The broker gives back what a pass held, in its old place."""
    queue = await rabbit_place.open()
    dead_letters = queue.dead_letters()
    await store_dead_letters(queue, *map(dead_letter, ids(MANY)))
    with suppress(QueueUnavailable):
        async with dead_letters.open_pass(ROWS) as queue_pass:
            await queue_pass.next_page()
            await queue_pass.next_page()
            assert isinstance(queue_pass, RabbitPass)
            await queue_pass._channel.connection.close()
            await queue_pass.remove([])
    await ready(queue, DEAD, MANY)
    assert await seen(dead_letters) == ids(MANY)


async def test_second_pass_waits_for_the_first(rabbit_place: Place, amqp_url: str, prefix: str) -> None:
    """On a broker the second waits, reports the reason, and then proceeds."""
    queue = await rabbit_place.open()
    await store_dead_letters(queue, dead_letter("a"))
    options = rabbit_options(amqp_url, prefix)
    impatient = RabbitDeadLetters(options, queue.publish, PassLock(options, DEAD), busy_for=0.0)
    async with queue.dead_letters().open_pass(ROWS):
        with pytest.raises(QueueUnavailable, match="held by another command"):
            await seen(impatient)
    assert await seen(impatient) == ["a"]


async def test_waiting_pass_asks_for_the_name_of_the_holder(
    rabbit_place: Place, amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error has the name."""
    monkeypatch.setattr(dead_letters_module, "NAMING_DELAY_SECONDS", 0.0)
    queue = await rabbit_place.open()
    options = rabbit_options(amqp_url, prefix)

    async def name() -> str:
        return "worker w-7"

    waiting = RabbitDeadLetters(options, queue.publish, PassLock(options, DEAD), name, busy_for=1.0)
    async with queue.dead_letters().open_pass(ROWS):
        with pytest.raises(QueueBusy, match="held by worker w-7; wait"):
            await seen(waiting)


async def test_waiting_pass_reports_the_holder_and_can_be_stopped(
    rabbit_place: Place, amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether this process or another one holds the messages. Nothing is deleted, and others get the messages next."""
    monkeypatch.setattr(dead_letters_module, "NAMING_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(dead_letters_module, "NAMING_INTERVAL_SECONDS", 0.1)
    queue = await rabbit_place.open()
    await store_dead_letters(queue, dead_letter("a"))
    options = rabbit_options(amqp_url, prefix)
    held = RabbitDeadLetters(options, queue.publish, own := PassLock(options, DEAD))
    for lock in (own, PassLock(options, DEAD)):
        stop, holders = asyncio.Event(), asyncio.Queue[str]()
        waiting = RabbitDeadLetters(options, queue.publish, lock)
        repair = replace(
            course(stop=stop.is_set), patient=True, opening=partial(stopped_by, stop), on_wait=holders.put_nowait
        )
        async with held.open_pass(ROWS):
            removing = asyncio.create_task(remove(waiting, ALL, repair))
            assert [await holders.get() for _ in range(2)] == ["another command or request"] * 2
            stop.set()
            result = await asyncio.wait_for(removing, 5.0)
        assert (result.done, result.unfinished, result.failed) == (0, STOPPED_TEXT, False)
        assert await seen(waiting) == ["a"]


async def test_passes_in_a_row_let_other_processes_in(
    rabbit_place: Place, amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process pauses before its next pass."""
    monkeypatch.setattr(dead_letters_module, "YIELD_SHARE", 1e6)
    monkeypatch.setattr(dead_letters_module, "MAX_YIELD_SECONDS", 3.0)
    queue = await rabbit_place.open()
    options, order = rabbit_options(amqp_url, prefix), list[str]()
    other = RabbitDeadLetters(options, queue.publish, PassLock(options, DEAD))

    async def look(dead_letters: DeadLetters, name: str) -> None:
        async with dead_letters.open_pass(ROWS):
            order.append(name)

    async with asyncio.TaskGroup() as group:
        async with queue.dead_letters().open_pass(ROWS):
            group.create_task(look(other, "other"))
        group.create_task(look(queue.dead_letters(), "own"))
    assert order == ["other", "own"]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
async def test_killed_or_frozen_holder_is_replaced(
    rabbit_place: Place, amqp_url: str, prefix: str, sign: signal.Signals
) -> None:
    """The broker ends its connection after three heartbeats: here of 1 s, by default of 10 s."""
    assert BUSY_TIMEOUT_SECONDS > 3 * HEARTBEAT_SECONDS + 5
    queue = await rabbit_place.open()
    await store_dead_letters(queue, *map(dead_letter, ids(50)))
    arguments = (sys.executable, "-m", "tests.contract.pass_holder", f"{amqp_url}?heartbeat=1", prefix)
    holder = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert holder.stdout is not None
        while (await holder.stdout.readline()).strip() != b"held":
            assert holder.returncode is None
        holder.send_signal(sign)
        async with asyncio.timeout(20):
            assert await seen(queue.dead_letters()) == ids(50)
    finally:
        with suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()


async def test_look_waits_for_the_messages_of_an_ended_pass(rabbit_place: Place, amqp_url: str, prefix: str) -> None:
    """The broker returns them a moment after it frees the lock: until then it counts none."""
    queue = await rabbit_place.open()
    await store_dead_letters(queue, *map(dead_letter, ids(5)))
    async with messages_held(amqp_url, f"{prefix}.{DEAD}", 5):
        looking = asyncio.create_task(seen(queue.dead_letters()))
        await asyncio.wait({looking}, timeout=1.0)
        assert not looking.done()
    assert await looking == ids(5)


async def test_publishers_event_moved_by_the_broker_is_replayed(
    rabbit_place: Place, amqp_url: str, prefix: str
) -> None:
    """It is an event of its publisher, without its `x-death` header, with which the broker would drop it."""
    queue = await rabbit_place.open()
    body = b'{"iss": "https://id.example.com", "sub": "alice", "clients": ["shop"], "id": "e-9"}'
    await queue.send_event(Lane.EVENTS, body, message_id=None)
    await moved_by_the_broker(queue, amqp_url, prefix, Lane.EVENTS)
    dead_letters = queue.dead_letters()
    async with aclosing(find_messages(dead_letters, DeadLetterFilter(subject="alice"))) as found:
        assert [(row.reason, row.event_id) async for row, _ in found] == [("delivery_limit", "e-9")]
    await ready(queue, DEAD, 1)
    assert (await replay(dead_letters, ALL, RULES, course())).done == 1
    _, inbox = await rabbit_place.consume()
    message = await inbox.next()
    assert (message.lane, message.kind, message.message_id) == (Lane.EVENTS, Kind.EVENT, "e-9")
    assert "x-death" not in message.headers


@pytest.mark.parametrize("lane", [Lane.EVENTS, Lane.RETRIES])
async def test_our_message_moved_by_the_broker_is_not_replayed(
    rabbit_place: Place, amqp_url: str, prefix: str, lane: Lane
) -> None:
    """A forgery looks the same: it stays, and the answer names the remedy."""
    queue = await rabbit_place.open()
    body = dump_delivery(replace(DELIVERY, id="d-1"))
    kind = Kind.EVENT if lane is Lane.EVENTS else Kind.DELIVERY
    await queue.publish(lane, MessageDraft(kind=kind, body=body, message_id="d"))
    await moved_by_the_broker(queue, amqp_url, prefix, lane)
    dead_letters = queue.dead_letters()
    account = await replay(dead_letters, ALL, RULES, course())
    assert (account.done, account.kept) == (0, {KeepReason.MALFORMED: 1})
    await ready(queue, DEAD, 1)
    [(_, stays)] = [each async for each in find_messages(dead_letters, ALL, whole=True)]
    judged = readmit(load_dead_letter(stays), RULES, 1000.0)
    assert isinstance(judged, KeptDeadLetter)
    assert "notifier publish" in judged.text


async def moved_by_the_broker(queue: Queue, amqp_url: str, prefix: str, lane: Lane) -> None:
    """Let the broker dead-letter the only message of this lane."""
    await ready(queue, lane, 1)
    connection = await aiormq.connect(amqp_url)
    channel = await connection.channel()
    taken = await channel.basic_get(f"{prefix}.{lane}")
    await channel.basic_reject(taken.delivery_tag or 0, requeue=False)
    await connection.close()
    await ready(queue, DEAD, 1)

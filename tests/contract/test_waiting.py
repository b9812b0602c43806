"""What every queue keeps of all that waits: a pass uses nothing up, and what is taken is neither lost nor doubled."""

import asyncio
import time
from contextlib import aclosing

import pytest

from notifier.model.delivery import Delivery
from notifier.model.documents.documents import dump_delivery, load_delivery
from notifier.model.errors import QueueUnavailable
from notifier.model.message import (
    DEAD,
    MAX_PARKED_SECONDS,
    MIN_SUSPECT_CRASHES,
    PARKED,
    Kind,
    Lane,
    MessageDraft,
    crash_headers,
)
from notifier.model.outcome import Cause
from notifier.model.pauses import Pause
from notifier.model.progress import PastOutcome
from notifier.model.registry import Registry
from notifier.operators.deliveries.pause_request import PauseRequests
from notifier.operators.deliveries.repair import CLIENT_DELAY, DUE_EARLIER, make_due, remove
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.waiting_filter import WaitingFilter, WaitingSummary, read_waiting
from notifier.operators.terminal.queue_access import opened
from notifier.queues.passes import make_pass_reader
from notifier.queues.queue_port import Queue
from notifier.queues.rabbitmq.dead_letters import WAITING, PassLock
from notifier.queues.rabbitmq.waiting import RabbitWaiting
from tests.contract.broker import messages_held
from tests.contract.dead_letter_samples import course
from tests.contract.queues import Place, names, ready
from tests.support.deliveries import make_delivery
from tests.support.rabbit_options import rabbit_options
from tests.system.waiting import until

ISS = "https://id.example.com"
SHOP, WIKI = (ISS, "shop"), (ISS, "wiki")
ALL = WaitingFilter()
WHOLE = make_pass_reader(read_waiting, ALL.matches, whole=True)
OF_SHOP = WaitingFilter(client_id="shop", iss=ISS)
MANY = 230  # more than are taken together on either queue


def delivery(name: str, client: tuple[str, str] = SHOP, **more: object) -> Delivery:
    """A delivery that was attempted once."""
    plain: dict[str, object] = {
        "id": name, "event_id": f"e-{name}", "id_given": True, "iss": client[0], "client_id": client[1],
        "sub": "alice", "sid": None, "attempts": 1, "first_taken_at": 900.0,
        "history": (PastOutcome(at=900.0, reason="server_error", status=503, text="busy"),),
    }  # fmt: skip
    return make_delivery(**(plain | more))


def message(waits: Delivery, due: float) -> MessageDraft:
    """As the settlement writes it, with the crashes of a suspect."""
    body = dump_delivery(waits, due=due)
    return MessageDraft(kind=Kind.DELIVERY, body=body, message_id=waits.id, headers=crash_headers(MIN_SUSPECT_CRASHES))


async def delayed(queue: Queue, *waiting: Delivery, seconds: float = 3000.0) -> float:
    """Put these off, in this order. Returns when they are due."""
    due = time.time() + seconds
    await asyncio.gather(*(queue.publish_later(message(each, due), due=due) for each in waiting))
    return due


async def parked(queue: Queue, *waiting: Delivery) -> None:
    """Park these, in this order."""
    until = time.time() + MAX_PARKED_SECONDS
    await asyncio.gather(*(queue.park(queue.bucket(each.key), message(each, until), until=until) for each in waiting))


async def listed(queue: Queue, meant: WaitingFilter = ALL) -> list[WaitingSummary]:
    """Return the summaries that a list of pending deliveries shows."""
    async with aclosing(find_messages(queue.waiting(), meant)) as found:
        return [one async for one, _ in found]


async def waits(queue: Queue, expected: set[str], meant: WaitingFilter = ALL) -> None:
    """Wait until exactly these deliveries are pending. A broker counts a moment after it confirms."""
    await until(lambda: listed(queue, meant), lambda found: {one.id for one in found} == expected)


async def test_list_shows_pending_deliveries_with_reasons(queue: Queue) -> None:
    """In delay queues and in buckets, of each client or of one."""
    due = await delayed(queue, delivery("a"), delivery("b", WIKI, delayed_by_client=True))
    await parked(queue, delivery("c", parked=True, deferred_for=Cause.CIRCUIT))
    await waits(queue, {"a", "b", "c"})
    shown = {one.id: one for one in await listed(queue)}
    assert shown["a"] == WaitingSummary(
        id="a", where="delayed", iss=ISS, client_id="shop", event_id="e-a", due=due, since=900.0, attempts=1,
        reason="server_error", failure="server_error", status=503, text="busy", session_at=900.0,
    )  # fmt: skip
    assert (shown["b"].asked, shown["c"].where, shown["c"].reason) == (True, "parked", "circuit")
    assert (shown["c"].failure, shown["c"].status, shown["c"].text) == ("server_error", 503, "busy")
    assert [one.id for one in await listed(queue, OF_SHOP)] == ["a", "c"]
    assert [one.id for one in await listed(queue, WaitingFilter(client_id="shop", parked=False))] == ["a"]


async def test_looking_changes_nothing(place: Place) -> None:
    """However often, also if a look is broken off: no order, no due time; and nothing is taken for a suspect."""
    queue, inbox = await place.consume()
    ids = [f"d-{number:03}" for number in range(MANY)]
    await delayed(queue, *map(delivery, ids))
    await delayed(queue, delivery("soon"), seconds=1.0)
    await parked(queue, *(delivery(f"p-{id_}", WIKI, parked=True) for id_ in ids[:40]))
    await waits(queue, {f"p-{id_}" for id_ in ids[:40]}, WaitingFilter(client_id="wiki"))
    for _ in range(4):
        shown = [one.id for one in await listed(queue, WaitingFilter(client_id="shop"))]
        assert [id_ for id_ in shown if id_ != "soon"] == ids
        assert [one.id for one in await listed(queue, WaitingFilter(client_id="wiki"))] == [f"p-{i}" for i in ids[:40]]
        async with aclosing(find_messages(queue.waiting(), ALL)) as found:
            await anext(found)
    assert names([await inbox.next()]) == ["soon"]
    fetched = await queue.fetch(queue.bucket(WIKI), 50)
    assert names(fetched) == [f"p-{id_}" for id_ in ids[:40]]
    assert max(each.delivery_count for each in fetched) < MIN_SUSPECT_CRASHES
    assert {each.crashes for each in fetched} == {MIN_SUSPECT_CRASHES}
    assert load_delivery(fetched[0].body) == delivery("p-d-000", WIKI, parked=True)
    assert (await queue.depths())[DEAD].ready == 0


async def test_delivery_made_due_arrives_at_once(place: Place) -> None:
    """Of one client, and not again into a delay queue. What its client asked to wait for stays, unless it is forced."""
    queue, inbox = await place.consume()
    await delayed(queue, delivery("a"), delivery("other", WIKI), delivery("b", delayed_by_client=True), seconds=45.0)
    await parked(queue, delivery("p", parked=True))
    await waits(queue, {"a", "b", "other", "p"})
    meant = WaitingFilter(client_id="shop", iss=ISS, parked=False)
    done = await make_due(queue.waiting(), meant, course(dry_run=True), force=False)
    assert (done.done, done.kept) == (1, {CLIENT_DELAY: 1})
    done = await make_due(queue.waiting(), meant, course(), force=False)
    assert (done.done, done.kept, done.by_reason) == (1, {CLIENT_DELAY: 1}, {"server_error": 1})
    came = await inbox.next()
    assert (came.lane, came.kind, load_delivery(came.body)) == (Lane.RETRIES, Kind.DELIVERY, delivery("a"))
    assert came.crashes == MIN_SUSPECT_CRASHES
    queue.ack(came)
    assert (await make_due(queue.waiting(), meant, course(), force=True)).done == 1
    assert names([await inbox.next()]) == ["b"]
    await waits(queue, {"other", "p"})
    assert inbox.empty()


async def test_deliveries_made_due_at_a_pace_arrive_in_order(place: Place) -> None:
    """The first at once. A message that is due earlier keeps its time, so a second pass changes nothing."""
    queue, inbox = await place.consume()
    ended = {("signing", ISS, "shop"), ("proxy", ISS, "wiki")}
    meant = WaitingFilter(has_ended=lambda *cause: cause in ended, parked=False)
    theirs = [delivery(f"s{number}", deferred_for="signing") for number in range(5)]
    others = [delivery("p", deferred_for="proxy"), delivery("other", ("https://other", "shop"), deferred_for="signing")]
    await delayed(queue, *theirs, delivery("w", WIKI, deferred_for="proxy"), *others, delivery("r"))
    ids = {*(each.id for each in theirs), "w"}
    await waits(queue, {*ids, "p", "other", "r"})
    assert (await make_due(queue.waiting(), meant, course(), force=False, pace=lambda _iss: 1.0)).done == 6
    assert names([await inbox.next()]) == ["s0"]
    rest = WaitingFilter(ids=frozenset(ids))
    await waits(queue, ids - {"s0"}, rest)
    dues = [one.due or 0 for one in await listed(queue, rest)]
    assert max(dues) - min(dues) == pytest.approx(4.0, abs=0.1)
    again = await make_due(queue.waiting(), meant, course(), force=False, pace=lambda _iss: 0.1)
    assert (again.done, set(again.kept)) == (
        1,
        {DUE_EARLIER},
    )  # the first is due now, and maybe others on a slow machine
    assert {each.message_id for each in await inbox.some(5)} == ids - {"s0"}
    await waits(queue, {"p", "other", "r"})


async def test_cancel_keeps_the_order_of_the_rest(place: Place) -> None:
    """Wherever it waits; a dry run only counts."""
    queue, inbox = await place.consume()
    ids = [f"d-{number:03}" for number in range(MANY)]
    await delayed(queue, *(delivery(id_, WIKI if number % 3 else SHOP) for number, id_ in enumerate(ids)))
    await parked(queue, *(delivery(f"p-{id_}", parked=True) for id_ in ids[:60]), delivery("w", WIKI, parked=True))
    of_shop = {*ids[::3], *(f"p-{id_}" for id_ in ids[:60])}
    await waits(queue, of_shop, OF_SHOP)
    assert (await remove(queue.waiting(), OF_SHOP, course(dry_run=True))).done == len(of_shop)
    reported: list[WaitingSummary] = []
    result = await remove(queue.waiting(), OF_SHOP, course(), reported.append)
    assert (result.done, result.unfinished) == (len(of_shop), None)
    assert {one.id for one in reported} == of_shop
    await waits(queue, set(), OF_SHOP)
    assert [one.id for one in await listed(queue)] == [*(id_ for n, id_ in enumerate(ids) if n % 3), "w"]
    assert inbox.empty()


async def test_concurrent_fetch_during_a_pass_gets_no_copy(rabbit_place: Place, amqp_url: str, prefix: str) -> None:
    """A message parked again is fetched once, also by a worker that empties the bucket while the pass ends."""
    queue = await rabbit_place.open()
    ids, anew, copied = [f"p-{number:02}" for number in range(60)], list[str | None](), asyncio.Event()
    await parked(queue, *(delivery(id_, parked=True) for id_ in ids))
    await ready(queue, PARKED, len(ids))
    assert [one.id for one in await listed(queue)] == ids  # the next look gives none of them back

    async def park(bucket: str, message: MessageDraft) -> None:
        await queue.park(bucket, message, until=time.time() + MAX_PARKED_SECONDS)
        anew.append(message.message_id)
        if len(anew) == len(ids):
            copied.set()

    async def fetch() -> list[str | None]:
        await copied.wait()
        found: list[str | None] = []
        while not looked.done() or await queue.count_parked():
            fetched = await queue.fetch(queue.bucket(SHOP), 8)
            found += names(fetched)
            for each in fetched:
                queue.ack(each)
        return found

    async def look() -> list[str]:
        options = rabbit_options(amqp_url, prefix)
        waiting = RabbitWaiting(options, queue.publish, park, PassLock(options, WAITING))
        async with aclosing(find_messages(waiting, OF_SHOP)) as found:
            return [one.id async for one, _ in found]

    async with asyncio.TaskGroup() as tasks:
        looked, fetched = tasks.create_task(look()), tasks.create_task(fetch())
    assert looked.result() == ids
    assert sorted(map(str, fetched.result())) == ids


async def test_delivery_that_is_due_during_a_pass_arrives(place: Place) -> None:
    """A pass that holds it lets it go, late at the most."""
    queue, inbox = await place.consume()
    held = False
    while not held:  # a machine that stands still for a second lets it come due before the pass
        due = await delayed(queue, delivery("a"), seconds=1.0)
        async with ALL.open_pass(queue.waiting(), whole=False) as queue_pass:
            held = bool(await queue_pass.next_page())
            await asyncio.sleep(due + 0.2 - time.time() if held else 0)
        assert names([await inbox.next()]) == ["a"]


async def test_killed_pass_loses_nothing(rabbit_place: Place, amqp_url: str, prefix: str) -> None:
    """The messages that it held are in their queues again. During a pass no other pass starts."""
    queue = await rabbit_place.open()
    ids = [f"d-{number:03}" for number in range(MANY)]
    await delayed(queue, *map(delivery, ids))
    await waits(queue, set(ids))
    options = rabbit_options(amqp_url, prefix)
    other = RabbitWaiting(options, queue.publish, queue.publish, PassLock(options, WAITING))
    async with other.open_pass(WHOLE) as queue_pass:
        busy = RabbitWaiting(options, queue.publish, queue.publish, PassLock(options, WAITING), busy_for=0.1)
        with pytest.raises(QueueUnavailable, match="another command"):
            await ALL.open_pass(busy, whole=True).__aenter__()
        assert await queue_pass.next_page()
        assert await queue_pass.next_page()
        await queue_pass._connection.close()  # as if it were killed
        with pytest.raises(QueueUnavailable):
            await queue_pass.next_page()
    await waits(queue, set(ids))
    assert sorted(one.id for one in await listed(queue)) == ids  # a pass that is killed may change the order


async def test_command_without_an_open_queue_counts_again(rabbit_place: Place) -> None:
    """As `notifier pauses`: from the second time on its pass parks messages that were returned before."""
    worker = await rabbit_place.open()
    await parked(worker, delivery("a"), delivery("b"))
    await ready(worker, PARKED, 2)
    pause = Pause(
        id="a", iss=SHOP[0], client_id=SHOP[1], who="alice", reason="deploy", since=0.0, until=time.time() + 1e7
    )
    for _ in range(3):
        queue = rabbit_place.closed()
        requests = PauseRequests(queue=queue, registry=Registry(), who="alice", opening=opened)
        assert await requests.count_expiring([pause]) is not None
        assert not queue.status().connected
    await ready(worker, PARKED, 2)


async def test_look_waits_for_the_messages_of_an_ended_pass(rabbit_place: Place, amqp_url: str, prefix: str) -> None:
    """In a delay queue as in a bucket: the broker returns them a moment after it frees the lock."""
    queue = await rabbit_place.open()
    bucket = queue.bucket(SHOP)
    await delayed(queue, delivery("a"))
    await parked(queue, delivery("b"))
    await waits(queue, {"a", "b"})
    for name in ("delay.2048s", bucket):
        async with messages_held(amqp_url, f"{prefix}.{name}", 1):
            looking = asyncio.create_task(listed(queue))
            await asyncio.wait({looking}, timeout=1.0)
            assert not looking.done()
        assert {one.id for one in await looking} == {"a", "b"}

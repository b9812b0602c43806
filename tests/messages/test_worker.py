"""The worker: every delivery of a message finds its fate before the message is acked."""

import asyncio
import json
from dataclasses import replace

import pytest

from notifier.delivery import fetches
from notifier.delivery.facts import Attempted, Deferred, EventTaken, Skipped, Unexpected
from notifier.delivery.slots import SlotPool
from notifier.messages.selection import GATHER_SECONDS
from notifier.model.client import FrontChannelClient, FrontChannelWay, Route
from notifier.model.errors import InternalFault
from notifier.model.message import Lane
from notifier.model.outcome import Cause, HttpResponse, Reason, StaleConnection, TransportFailure, TransportResult
from notifier.model.registry import ENDLESS_SECONDS, Issuer
from notifier.model.request import Request
from tests.delivery.worker_harness import ISS, OTHER, PATIENCE, WorkerHarness, answers, client, results_in, running


async def test_the_time_of_signing_is_not_the_clients() -> None:
    """A key service that takes three seconds makes no client slow, and is not in the seconds of an attempt."""
    async with running(WorkerHarness(client("shop"))) as harness:

        def sign_slowly() -> None:
            harness.now += 3.0

        harness.signer.signing = sign_slowly
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop"))
        [attempted] = [fact for fact in harness.facts if isinstance(fact, Attempted)]
        assert (attempted.seconds, attempted.at) == (0.0, harness.now)
        known = harness.worker.scheduler.clients[ISS, "shop"]
        assert (known.attempt_seconds, known.pool) == (0.0, SlotPool.QUICK)


async def test_event_is_acked_once_all_clients_are_notified() -> None:
    """One POST a client, one ack."""
    async with running(WorkerHarness(client("shop"), client("mail"))) as harness:
        message = harness.event("shop", "mail")
        await harness.until(lambda: harness.queue.acked == [message])
        assert sorted(harness.notified()) == ["mail", "shop"]
        assert [fact.result for fact in harness.facts if isinstance(fact, EventTaken)] == ["accepted"]


async def test_a_retry_is_durable_before_the_ack() -> None:
    """The record is not acked before its successor is confirmed."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop"))
        assert harness.queue.log == ["published delay.2s", "acked 1"]


async def test_every_attempt_carries_a_fresh_jti() -> None:
    """Also after a retry came back from its delay (R2)."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop", id="e1"))
        harness.now += 2
        await harness.acked(harness.retake("delay.2s"))
        jtis = [claims["jti"] for _, claims in harness.receivers.posts]
        assert len(jtis) == len(set(jtis)) == 2


async def test_stale_connection_is_retried_once_with_a_new_token() -> None:
    """At once, on a new connection, and it does not count as an attempt."""
    async with running(WorkerHarness(client("shop"))) as harness:
        seen: list[bool] = []

        async def stale_once(request: Request) -> TransportResult:
            seen.append(request.new_connection)
            return HttpResponse(status=200) if request.new_connection else StaleConnection()

        harness.receivers.behaviours["shop"] = stale_once
        await harness.acked(harness.event("shop"))
        assert seen == [False, True]
        assert harness.receivers.posts[0][1]["jti"] != harness.receivers.posts[1][1]["jti"]
        assert harness.queue.published == []


async def test_a_refusal_is_a_dead_letter_before_the_ack() -> None:
    """With its reason, and the client's status in its outcomes."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = answers(403)
        await harness.acked(harness.event("shop", id="e1"))
        assert harness.queue.log == ["published dead", "acked 1"]
        [dead_letter] = harness.dead()
        assert (dead_letter["reason"], dead_letter["client_id"], dead_letter["event_id"]) == ("refused", "shop", "e1")
        assert [outcome["status"] for outcome in dead_letter["outcomes"]] == [403]


async def test_unreachable_queue_acks_nothing_and_delays_no_others() -> None:
    """Undecided deliveries wait in memory; what can be delivered goes on."""
    async with running(WorkerHarness(client("shop"), client("down"))) as harness:
        harness.receivers.behaviours["down"] = answers(503)
        harness.queue.open.clear()
        failing = harness.event("down")
        well = harness.event("shop")
        await harness.until(lambda: harness.queue.acked == [well])
        harness.queue.open.set()
        await harness.until(lambda: harness.queue.acked == [well, failing])


async def test_repeated_body_without_id_is_delivered_twice() -> None:
    """A user may sign out twice: a made-up id suppresses nothing."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.event("shop")
        harness.event("shop")
        await harness.until(lambda: len(harness.queue.acked) == 2)
        assert harness.notified() == ["shop", "shop"]


async def test_repeated_id_is_delivered_once() -> None:
    """In flight the second joins the first; later it is known."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.event("shop", id="e1")
        harness.event("shop", id="e1")
        await harness.until(lambda: len(harness.queue.acked) == 2)
        await harness.acked(harness.event("shop", id="e1"))
        assert harness.notified() == ["shop"]
        results = [fact.result for fact in harness.facts if isinstance(fact, EventTaken)]
        assert sorted(results) == ["accepted", "duplicate", "duplicate"]


async def test_the_same_ids_at_two_issuers_are_two_logouts() -> None:
    """Issuer and client together are the key."""
    async with running(WorkerHarness(client("shop"), client("shop", iss=OTHER))) as harness:
        harness.event("shop", id="e1")
        harness.event("shop", id="e1", iss=OTHER)
        await harness.until(lambda: len(harness.queue.acked) == 2)
        assert sorted(claims["iss"] for _, claims in harness.receivers.posts) == [ISS, OTHER]


async def test_invalid_entry_affects_no_other() -> None:
    """It becomes a dead letter alone."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await harness.acked(harness.event("shop", {"client_id": 7}, id="e1"))
        assert harness.notified() == ["shop"]
        assert [dead_letter["reason"] for dead_letter in harness.dead()] == ["malformed_event"]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 4000, b"{}", b'{"iss": 1}', b"x" * 5000, b"null"])
async def test_malformed_input_is_a_dead_letter(body: bytes) -> None:
    """Empty, not UTF-8, deeply nested, oversized: the worker is untouched."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await harness.acked(harness.take(body))
        assert [dead_letter["reason"] for dead_letter in harness.dead()] == ["malformed_event"]
        await harness.acked(harness.event("shop"))


async def test_an_event_of_many_clients_is_split() -> None:
    """Into parts of a hundred, confirmed before the ack; bulk stays bulk."""
    names = [f"c{number}" for number in range(250)]
    harness = WorkerHarness(*(client(name) for name in names))
    harness.worker._planner._max_event = 1 << 20
    async with running(harness):
        await harness.acked(harness.event(*names, lane=Lane.BULK))
        assert harness.queue.log == ["published bulk"] * 3 + ["acked 1"]
        assert harness.notified() == []


async def test_a_missing_signing_key_is_a_deferral() -> None:
    """It is our fault: no attempt counts, and other issuers are served."""
    async with running(WorkerHarness(client("shop"))) as harness:
        harness.receivers.behaviours["shop"] = results_in(InternalFault(Cause.SIGNING, "no key"))
        await harness.acked(harness.event("shop"))
        [fact] = [fact for fact in harness.facts if isinstance(fact, Deferred)]
        assert fact.cause is Cause.SIGNING


@pytest.mark.parametrize("by_worker", [False, True])
async def test_client_moved_by_a_list_is_deferred(*, by_worker: bool) -> None:
    """Before egress is judged, and before a token is made: neither a dead letter nor a bare request comes of it."""
    reported = FrontChannelClient(frontchannel_logout_uri="http://10.0.0.1/out", way=FrontChannelWay.SERVER)
    moved = replace(client("shop"), backchannel_logout_uri="http://10.0.0.1/out", route=Route(withheld="add it"))
    if by_worker:
        moved = replace(moved, backchannel_logout_uri=None, front_channel=reported)
    async with running(WorkerHarness(moved, client("mail"))) as harness:
        await harness.acked(harness.event("shop", "mail"))
        [fact] = [fact for fact in harness.facts if isinstance(fact, Deferred)]
        assert (fact.cause, fact.text, fact.client_id) == (Cause.ORIGIN, "add it", "shop")
        assert fact.delivery is not None
        assert fact.delivery.progress.uncounted_seconds > 0, "its age stands still"
        assert [name for name, _ in harness.receivers.posts] == ["mail"]
        assert not harness.dead()


async def test_internal_error_is_reported_and_the_delivery_deferred() -> None:
    """Neither is the worker stopped, nor the delivery lost."""
    async with running(WorkerHarness(client("shop"), client("mail"))) as harness:
        harness.receivers.behaviours["shop"] = results_in(ZeroDivisionError())
        await harness.acked(harness.event("shop", "mail"))
        assert [type(fact.error) for fact in harness.facts if isinstance(fact, Unexpected)] == [ZeroDivisionError]
        assert harness.queue.log == ["published delay.2s", "acked 1"]


async def test_internal_error_in_a_decision_is_reported_and_the_delivery_deferred() -> None:
    """As one in an attempt: the others are delivered."""
    async with running(WorkerHarness(client("shop"), client("mail"))) as harness:

        def fail_once() -> float:
            harness.jitter = lambda: 0.5
            raise ZeroDivisionError

        harness.jitter, harness.receivers.behaviours["shop"] = fail_once, answers(400)
        await harness.acked(harness.event("shop", "mail"))
        assert [type(fact.error) for fact in harness.facts if isinstance(fact, Unexpected)] == [ZeroDivisionError]
        assert (harness.notified(), harness.queue.log) == (["shop", "mail"], ["published delay.2s", "acked 1"])


async def test_a_suspect_of_several_clients_is_rewritten() -> None:
    """As single deliveries, confirmed before the ack."""
    async with running(WorkerHarness(client("shop"), client("mail"))) as harness:
        harness.event("shop", "mail", delivery_count=3)
        harness.now += GATHER_SECONDS
        await harness.until(lambda: bool(harness.queue.acked))
        assert harness.queue.log == ["published delay.1s"] * 2 + ["acked 1"]
        harness.retake("delay.1s")
        await harness.until(lambda: harness.notified() == ["mail"])


async def test_no_more_than_twice_the_window_exists() -> None:
    """Events expand lazily, however many clients they name."""
    names = [f"c{number}" for number in range(60)]
    harness = WorkerHarness(*(client(name) for name in names), max_in_flight=20)
    async with running(harness):
        release = harness.hold(*names)
        for _ in range(10):
            harness.event(*names)
        await harness.until(lambda: len(harness.notified()) == 10)
        assert sum(harness.worker.ledger.unsettled_deliveries.values()) <= 40
        release.set()
        await harness.until(lambda: len(harness.queue.acked) == 10)


async def test_drain_finishes_started_deliveries_and_returns_the_rest() -> None:
    """A partly sent event is finished, so that no client is notified twice; an unstarted event is not acked."""
    harness = WorkerHarness(client("a"), client("b", max_concurrent=1), max_in_flight=1)
    async with running(harness):
        release = harness.hold("a")
        begun = harness.event("a", "b")
        harness.event("a")
        await harness.until(lambda: harness.notified() == ["a"])
        run = asyncio.create_task(harness.worker.run())
        harness.worker.stop()
        await asyncio.sleep(0)
        harness.event("b")  # too late: it goes back
        release.set()
        await run
        assert harness.notified() == ["a", "b"]
        assert harness.queue.acked == [begun]
        assert harness.worker.given_back == 2  # the unstarted one, and the one that came too late


async def test_deliveries_beyond_the_grace_are_returned() -> None:
    """It is not acked, so another worker gets it; nothing new is started."""
    harness = WorkerHarness(client("a", max_concurrent=1), shutdown_grace=0.05)
    harness.hold("a")
    run = asyncio.create_task(harness.worker.run())
    harness.event("a")
    harness.event("a")
    await harness.until(lambda: harness.notified() == ["a"])
    harness.worker.stop()
    await asyncio.wait_for(run, PATIENCE)
    assert harness.notified() == ["a"]
    assert harness.queue.acked == []
    assert harness.worker.given_back == 2


async def test_a_settlement_that_breaks_stops_the_worker() -> None:
    """A message without a fate must not be passed over in silence: the process ends, and the queue gives it again."""
    harness = WorkerHarness(client("shop"), shutdown_grace=0.05)
    harness.receivers.behaviours["shop"] = answers(503)
    harness.queue.fault = ZeroDivisionError()
    run = asyncio.create_task(harness.worker.run())
    harness.event("shop")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(run, PATIENCE)
    assert harness.queue.acked == []


async def test_a_look_at_the_buckets_that_breaks_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise parked deliveries would never be fetched."""
    monkeypatch.setattr(fetches, "FIRST_FETCH_SECONDS", 0.0)
    harness = WorkerHarness()

    async def parked(_buckets: object = None) -> dict[str, int]:
        raise ZeroDivisionError

    harness.queue.count_parked = parked  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(harness.worker.run(), PATIENCE)


async def test_a_tick_that_breaks_stops_the_worker() -> None:
    """Otherwise deliveries in memory would never start."""
    harness = WorkerHarness(client("shop", max_concurrent=1), shutdown_grace=0.05)
    harness.hold("shop")
    run = asyncio.create_task(harness.worker.run())
    for number in range(2):
        harness.event("shop", id=str(number))
    await harness.until(lambda: bool([*harness.worker.scheduler.waiting_counts()]))
    harness.jumped = None  # type: ignore[assignment]  # no clock any more
    harness.now += 5
    with pytest.raises(TypeError):
        await asyncio.wait_for(run, PATIENCE)
    assert harness.queue.acked == []


async def test_messages_of_a_lost_lane_are_forgotten() -> None:
    """After a loss of the connection, unstarted messages are forgotten, because the broker redelivers them."""
    harness = WorkerHarness(client("shop", max_concurrent=1), max_in_flight=1)
    async with running(harness):
        release = harness.hold("shop")
        harness.event("shop", id="e1")
        harness.event("shop", id="e2")
        await harness.until(lambda: harness.notified() == ["shop"])
        harness.worker.on_lost(Lane.EVENTS)
        again = [harness.event("shop", id="e1"), harness.event("shop", id="e2")]
        release.set()
        await harness.until(lambda: set(map(id, again)) <= set(map(id, harness.queue.acked)))
        assert harness.notified() == ["shop", "shop"]


async def test_cancellation_at_exit_raises_no_error() -> None:
    """Another part broke, so nothing drains: the end of an attempt finds one cancelled that waited for its slot."""
    harness = WorkerHarness(client("shop", max_concurrent=1))
    run = asyncio.create_task(harness.worker.run())
    await harness.prove("shop")
    harness.hold("shop")
    for number in range(3):
        harness.event("shop", id=str(number))
    await harness.until(lambda: (harness.worker.scheduler.waiting, harness.notified()) == (2, ["shop"]))
    tasks = [run, *harness.worker._tasks]
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 4


async def test_lost_queue_affects_no_other() -> None:
    """A source's queue feeds the lane of events too: messages of one queue are kept when the other is lost."""
    harness = WorkerHarness(client("shop", max_concurrent=1), max_in_flight=1)
    async with running(harness):
        release = harness.hold("shop")
        harness.event("shop", id="busy")
        await harness.until(lambda: harness.notified() == ["shop"])
        ours = harness.event("shop", id="ours")
        theirs = harness.take(b"{}", source="kc")
        harness.worker.on_lost(Lane.EVENTS, "duende")
        assert harness.worker.ledger.unsettled_by_queue()["source.kc"].messages == 1
        harness.worker.on_lost(Lane.EVENTS, "kc")
        held = {queue: each.messages for queue, each in harness.worker.ledger.unsettled_by_queue().items()}
        assert held == {"events": 2, "retries": 0, "bulk": 0, "source.kc": 0}
        again = harness.take(b"{}", source="kc", delivery_count=1)
        harness.worker.on_lost(Lane.EVENTS)
        held = {queue: each.messages for queue, each in harness.worker.ledger.unsettled_by_queue().items()}
        assert held == {"events": 0, "retries": 0, "bulk": 0, "source.kc": 1}
        release.set()
        await harness.acked(again)
        assert theirs not in harness.queue.acked
        assert ours not in harness.queue.acked


async def test_corrected_registration_applies_to_pending_deliveries() -> None:
    """Each attempt looks the client up again."""
    harness = WorkerHarness(client("shop"))
    async with running(harness):
        await harness.prove("shop")
        harness.receivers.behaviours["shop"] = answers(503)
        await harness.acked(harness.event("shop", id="e1"))
        moved = replace(client("shop"), backchannel_logout_uri="https://moved.example/out")
        harness.registry = replace(harness.registry, clients={ISS: {"shop": moved}})
        harness.now += 2
        await harness.acked(harness.retake("delay.2s"))
        assert harness.notified() == ["shop", "moved"]


async def test_inline_uri_reaches_an_unregistered_client() -> None:
    """With the defaults, and nobody else's secrets."""
    async with running(WorkerHarness(inline="allow")) as harness:
        await harness.acked(harness.event({"client_id": "new", "backchannel_logout_uri": "https://new.example/out"}))
        assert harness.notified() == ["new"]


async def test_a_timeout_after_the_request_was_written_is_remembered_as_ambiguous() -> None:
    """So that a 400 on the next attempt is not read as a fault of configuration (R3)."""
    async with running(WorkerHarness(client("shop"))) as harness:
        broken = TransportFailure(reason=Reason.TIMEOUT, ambiguous=True, text="no answer")
        harness.receivers.behaviours["shop"] = results_in(broken)
        await harness.acked(harness.event("shop"))
        assert json.loads(harness.queue.published[0][1].body)["delivery"]["ambiguous"] is True


async def test_client_with_most_pending_is_deferred_when_memory_is_full() -> None:
    """A flood for one client, which does not answer, leaves room for the next client's delivery."""
    harness = WorkerHarness(client("flooded"), client("shop"), max_in_flight=12)
    async with running(harness):
        release = harness.hold("flooded")
        flood = [harness.event("flooded", id=str(number)) for number in range(20)]  # as much as one lane may hold
        await harness.until(lambda: harness.notified() == ["flooded"])
        harness.now += 0.2
        await harness.acked(harness.event("shop"))
        assert harness.notified() == ["flooded", "shop"]
        await harness.until(lambda: flood[-1] in harness.queue.acked)
        assert {fact.client_id for fact in harness.facts if isinstance(fact, Deferred)} == {"flooded"}
        assert next(message for message in flood if message not in harness.queue.acked) is flood[0]
        assert len(harness.queue.published) == len(harness.queue.acked) - 1
        release.set()


async def test_a_mass_logout_of_an_issuer_not_known_yet_stays_bulk() -> None:
    """It comes back by the retries, and its parts must not stand before a person who has just signed out."""
    async with running(WorkerHarness(client("shop"))) as harness:
        await harness.acked(harness.event("shop", lane=Lane.BULK, iss="https://new.example", clients="*"))
        known = replace(client("shop"), iss="https://new.example")
        harness.registry = replace(
            harness.registry,
            issuers={"https://new.example": Issuer(iss="https://new.example")},
            clients={"https://new.example": {"shop": known}},
        )
        harness.now += 3
        await harness.acked(harness.retake("delay.2s"))
        assert [queue for queue, _ in harness.queue.published] == ["delay.2s", "bulk"]


@pytest.mark.parametrize("address", [None, "https://silent.example/out"])
async def test_no_client_is_skipped_while_a_source_is_unread(address: str | None) -> None:
    """It may have the address that a file lacks. The others are notified; these wait, and then it is decided."""
    silent = replace(client("silent"), backchannel_logout_uri=None)
    none = {"client_id": "native", "backchannel_logout_uri": None}
    async with running(WorkerHarness(client("shop"), silent)) as harness:
        read, queue = harness.registry, ""
        harness.registry = replace(read, grace=ENDLESS_SECONDS, incomplete={ISS: "registry source db was never read"})
        for look in range(3):
            came = harness.event("shop", "silent", none, id="e1") if not look else harness.retake(queue)
            await harness.acked(came)
            assert harness.notified() == ["shop"]
            queue, sent = harness.queue.published[-1]
            assert queue == f"delay.{2 ** (look + 1)}s"
            names = [entry["client_id"] for entry in json.loads(sent.body)["event"]["clients"]]
            assert names == ["silent", "native"]
            harness.now += 2.0 ** (look + 1)
        known = replace(silent, backchannel_logout_uri=address)
        harness.registry = replace(read, clients={ISS: {"shop": client("shop"), "silent": known}})
        await harness.acked(harness.retake(queue))
        assert harness.notified() == (["shop"] if address is None else ["shop", "silent"])
        skipped = [fact.client_id for fact in harness.facts if isinstance(fact, Skipped)]
        assert skipped == (["silent", "native"] if address is None else ["native"])
        assert harness.dead() == []

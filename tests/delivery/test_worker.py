"""The worker: every delivery of a message finds its fate before the message is acked."""

import asyncio
import json
from dataclasses import replace

import pytest

from notifier.delivery import pulls
from notifier.delivery.admission import Side
from notifier.delivery.facts import Attempted, Deferred, EventTaken, Skipped, Unexpected
from notifier.delivery.selection import GATHER_SECONDS
from notifier.model.client import FrontChannelClient, FrontChannelWay, Route
from notifier.model.errors import InternalFault
from notifier.model.message import Lane
from notifier.model.outcome import Answer, Break, Cause, Reason, StaleConnection, Wire
from notifier.model.registry import ENDLESS_SECONDS, Issuer
from notifier.model.request import Request
from tests.delivery.stage import ISS, OTHER, PATIENCE, Behaviour, Stage, answers, client, running


def answers_after(release: asyncio.Event) -> Behaviour:
    """A client that answers once it is let."""

    async def behave(_request: Request) -> Wire:
        await release.wait()
        return Answer(status=200)

    return behave


async def test_the_time_of_signing_is_not_the_clients() -> None:
    """A key service that takes three seconds makes no client slow, and is not in the seconds of an attempt."""
    async with running(Stage(client("shop"))) as stage:

        def sign_slowly() -> None:
            stage.now += 3.0

        stage.signer.signing = sign_slowly
        stage.receivers.behaviours["shop"] = answers(503)
        await stage.acked(stage.event("shop"))
        [attempted] = [fact for fact in stage.facts if isinstance(fact, Attempted)]
        assert (attempted.seconds, attempted.at) == (0.0, stage.now)
        known = stage.worker.gate.clients[ISS, "shop"]
        assert (known.attempt_seconds, known.side) == (0.0, Side.QUICK)


async def test_an_event_is_acked_once_all_its_clients_are_told() -> None:
    """One POST a client, one ack."""
    async with running(Stage(client("shop"), client("mail"))) as stage:
        message = stage.event("shop", "mail")
        await stage.until(lambda: stage.queue.acked == [message])
        assert sorted(stage.told()) == ["mail", "shop"]
        assert [fact.result for fact in stage.facts if isinstance(fact, EventTaken)] == ["accepted"]


async def test_a_retry_is_durable_before_the_ack() -> None:
    """The record is not acked before its successor is confirmed."""
    async with running(Stage(client("shop"))) as stage:
        await stage.prove("shop")
        stage.receivers.behaviours["shop"] = answers(503)
        await stage.acked(stage.event("shop"))
        assert stage.queue.log == ["published delay.2s", "acked 1"]


async def test_every_attempt_carries_a_fresh_jti() -> None:
    """Also after a retry came back from its delay (R2)."""
    async with running(Stage(client("shop"))) as stage:
        await stage.prove("shop")
        stage.receivers.behaviours["shop"] = answers(503)
        await stage.acked(stage.event("shop", id="e1"))
        stage.now += 2
        await stage.acked(stage.retake("delay.2s"))
        jtis = [claims["jti"] for _, claims in stage.receivers.posts]
        assert len(jtis) == len(set(jtis)) == 2


async def test_a_stale_connection_gets_one_more_go_with_a_new_token() -> None:
    """At once, on a new connection, and it does not count as an attempt."""
    async with running(Stage(client("shop"))) as stage:
        seen: list[bool] = []

        async def stale_once(request: Request) -> Wire:
            seen.append(request.new_connection)
            return Answer(status=200) if request.new_connection else StaleConnection()

        stage.receivers.behaviours["shop"] = stale_once
        await stage.acked(stage.event("shop"))
        assert seen == [False, True]
        assert stage.receivers.posts[0][1]["jti"] != stage.receivers.posts[1][1]["jti"]
        assert stage.queue.published == []


async def test_a_refusal_is_a_dead_letter_before_the_ack() -> None:
    """With its reason, and the client's status in its outcomes."""
    async with running(Stage(client("shop"))) as stage:
        stage.receivers.behaviours["shop"] = answers(403)
        await stage.acked(stage.event("shop", id="e1"))
        assert stage.queue.log == ["published dead", "acked 1"]
        [letter] = stage.dead()
        assert (letter["reason"], letter["client_id"], letter["event_id"]) == ("refused", "shop", "e1")
        assert [outcome["status"] for outcome in letter["outcomes"]] == [403]


async def test_while_the_queue_is_away_nothing_is_acked_and_others_are_served() -> None:
    """Undecided deliveries wait in memory; what can be delivered goes on."""
    async with running(Stage(client("shop"), client("down"))) as stage:
        stage.receivers.behaviours["down"] = answers(503)
        stage.queue.open.clear()
        failing = stage.event("down")
        well = stage.event("shop")
        await stage.until(lambda: stage.queue.acked == [well])
        stage.queue.open.set()
        await stage.until(lambda: stage.queue.acked == [well, failing])


async def test_the_same_body_twice_without_an_id_is_told_twice() -> None:
    """A user may sign out twice: a made-up id suppresses nothing."""
    async with running(Stage(client("shop"))) as stage:
        stage.event("shop")
        stage.event("shop")
        await stage.until(lambda: len(stage.queue.acked) == 2)
        assert stage.told() == ["shop", "shop"]


async def test_the_same_id_twice_is_told_once() -> None:
    """In flight the second joins the first; later it is known."""
    async with running(Stage(client("shop"))) as stage:
        stage.event("shop", id="e1")
        stage.event("shop", id="e1")
        await stage.until(lambda: len(stage.queue.acked) == 2)
        await stage.acked(stage.event("shop", id="e1"))
        assert stage.told() == ["shop"]
        results = [fact.result for fact in stage.facts if isinstance(fact, EventTaken)]
        assert sorted(results) == ["accepted", "duplicate", "duplicate"]


async def test_the_same_ids_at_two_issuers_are_two_logouts() -> None:
    """Issuer and client together are the key."""
    async with running(Stage(client("shop"), client("shop", iss=OTHER))) as stage:
        stage.event("shop", id="e1")
        stage.event("shop", id="e1", iss=OTHER)
        await stage.until(lambda: len(stage.queue.acked) == 2)
        assert sorted(claims["iss"] for _, claims in stage.receivers.posts) == [ISS, OTHER]


async def test_a_wrong_entry_takes_no_other_with_it() -> None:
    """It becomes a dead letter alone."""
    async with running(Stage(client("shop"))) as stage:
        await stage.acked(stage.event("shop", {"client_id": 7}, id="e1"))
        assert stage.told() == ["shop"]
        assert [letter["reason"] for letter in stage.dead()] == ["malformed_event"]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 4000, b"{}", b'{"iss": 1}', b"x" * 5000, b"null"])
async def test_malformed_input_is_a_dead_letter(body: bytes) -> None:
    """Empty, not UTF-8, deeply nested, oversized: the worker is untouched."""
    async with running(Stage(client("shop"))) as stage:
        await stage.acked(stage.take(body))
        assert [letter["reason"] for letter in stage.dead()] == ["malformed_event"]
        await stage.acked(stage.event("shop"))


async def test_an_event_of_many_clients_is_split() -> None:
    """Into parts of a hundred, confirmed before the ack; bulk stays bulk."""
    names = [f"c{number}" for number in range(250)]
    stage = Stage(*(client(name) for name in names))
    stage.worker._intake._max_event = 1 << 20
    async with running(stage):
        await stage.acked(stage.event(*names, lane=Lane.BULK))
        assert stage.queue.log == ["published bulk"] * 3 + ["acked 1"]
        assert stage.told() == []


async def test_a_missing_signing_key_is_a_deferral() -> None:
    """It is our fault: no attempt counts, and other issuers are served."""
    async with running(Stage(client("shop"))) as stage:

        async def broken(_request: Request) -> Wire:
            raise InternalFault(Cause.SIGNING, "no key")

        stage.receivers.behaviours["shop"] = broken
        await stage.acked(stage.event("shop"))
        [fact] = [fact for fact in stage.facts if isinstance(fact, Deferred)]
        assert fact.cause is Cause.SIGNING


@pytest.mark.parametrize("by_worker", [False, True])
async def test_a_client_that_a_list_has_moved_is_put_off(*, by_worker: bool) -> None:
    """Before egress is judged, and before a token is made: neither a dead letter nor a bare request comes of it."""
    told = FrontChannelClient(frontchannel_logout_uri="http://10.0.0.1/out", way=FrontChannelWay.SERVER)
    moved = replace(client("shop"), backchannel_logout_uri="http://10.0.0.1/out", route=Route(withheld="add it"))
    if by_worker:
        moved = replace(moved, backchannel_logout_uri=None, front_channel=told)
    async with running(Stage(moved, client("mail"))) as stage:
        await stage.acked(stage.event("shop", "mail"))
        [fact] = [fact for fact in stage.facts if isinstance(fact, Deferred)]
        assert (fact.cause, fact.text, fact.client_id) == (Cause.ORIGIN, "add it", "shop")
        assert fact.delivery is not None
        assert fact.delivery.held > 0, "its age stands still"
        assert [name for name, _ in stage.receivers.posts] == ["mail"]
        assert not stage.dead()


async def test_a_fault_in_our_code_is_told_and_the_delivery_deferred() -> None:
    """Neither is the worker stopped, nor the delivery lost."""
    async with running(Stage(client("shop"), client("mail"))) as stage:

        async def crashes(_request: Request) -> Wire:
            raise ZeroDivisionError

        stage.receivers.behaviours["shop"] = crashes
        await stage.acked(stage.event("shop", "mail"))
        assert [type(fact.error) for fact in stage.facts if isinstance(fact, Unexpected)] == [ZeroDivisionError]
        assert stage.queue.log == ["published delay.2s", "acked 1"]


async def test_a_suspect_of_several_clients_is_rewritten() -> None:
    """As single deliveries, confirmed before the ack."""
    async with running(Stage(client("shop"), client("mail"))) as stage:
        stage.event("shop", "mail", delivery_count=3)
        stage.now += GATHER_SECONDS
        await stage.until(lambda: bool(stage.queue.acked))
        assert stage.queue.log == ["published delay.1s"] * 2 + ["acked 1"]
        stage.retake("delay.1s")
        await stage.until(lambda: stage.told() == ["mail"])


async def test_no_more_than_twice_the_window_exists() -> None:
    """Events expand lazily, however many clients they name."""
    names = [f"c{number}" for number in range(60)]
    stage = Stage(*(client(name) for name in names), max_in_flight=20)
    async with running(stage):
        release = asyncio.Event()
        stage.receivers.behaviours |= dict.fromkeys(names, answers_after(release))
        for _ in range(10):
            stage.event(*names)
        await stage.until(lambda: len(stage.told()) == 10)
        assert sum(stage.worker.ledger.without_fate.values()) <= 40
        release.set()
        await stage.until(lambda: len(stage.queue.acked) == 10)


async def test_a_drain_finishes_what_was_begun_and_gives_the_rest_back() -> None:
    """A partly sent event is finished, so that no client is notified twice; an unstarted event is not acked."""
    stage = Stage(client("a"), client("b", max_concurrent=1), max_in_flight=1)
    async with running(stage):
        release = asyncio.Event()
        stage.receivers.behaviours["a"] = answers_after(release)
        begun = stage.event("a", "b")
        stage.event("a")
        await stage.until(lambda: stage.told() == ["a"])
        run = asyncio.create_task(stage.worker.run())
        stage.worker.stop()
        await asyncio.sleep(0)
        stage.event("b")  # too late: it goes back
        release.set()
        await run
        assert stage.told() == ["a", "b"]
        assert stage.queue.acked == [begun]


async def test_what_outlives_the_grace_is_given_back() -> None:
    """It is not acked, so another worker gets it; nothing new is started."""
    stage = Stage(client("a", max_concurrent=1), shutdown_grace=0.05)
    never = asyncio.Event()
    stage.receivers.behaviours["a"] = answers_after(never)
    run = asyncio.create_task(stage.worker.run())
    stage.event("a")
    stage.event("a")
    await stage.until(lambda: stage.told() == ["a"])
    stage.worker.stop()
    await asyncio.wait_for(run, PATIENCE)
    assert stage.told() == ["a"]
    assert stage.queue.acked == []


async def test_a_settlement_that_breaks_stops_the_worker() -> None:
    """A message without a fate must not be passed over in silence: the process ends, and the queue gives it again."""
    stage = Stage(client("shop"), shutdown_grace=0.05)
    stage.receivers.behaviours["shop"] = answers(503)
    stage.queue.fault = ZeroDivisionError()
    run = asyncio.create_task(stage.worker.run())
    stage.event("shop")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(run, PATIENCE)
    assert stage.queue.acked == []


async def test_a_look_at_the_buckets_that_breaks_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise parked deliveries would never be fetched."""
    monkeypatch.setattr(pulls, "FIRST_PASS_SECONDS", 0.0)
    stage = Stage()

    async def parked(_buckets: object = None) -> dict[str, int]:
        raise ZeroDivisionError

    stage.queue.count_parked = parked  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(stage.worker.run(), PATIENCE)


async def test_a_tick_that_breaks_stops_the_worker() -> None:
    """Otherwise deliveries in memory would never start."""
    stage = Stage(client("shop", max_concurrent=1), shutdown_grace=0.05)
    stage.receivers.behaviours["shop"] = answers_after(asyncio.Event())
    run = asyncio.create_task(stage.worker.run())
    for number in range(2):
        stage.event("shop", id=str(number))
    await stage.until(lambda: bool([*stage.worker.gate.waiting_counts()]))
    stage.jumped = None  # type: ignore[assignment]  # no clock any more
    stage.now += 5
    with pytest.raises(TypeError):
        await asyncio.wait_for(run, PATIENCE)
    assert stage.queue.acked == []


async def test_what_is_lost_is_let_go() -> None:
    """After a loss of the connection, unstarted messages are forgotten, because the broker redelivers them."""
    stage = Stage(client("shop", max_concurrent=1), max_in_flight=1)
    async with running(stage):
        release = asyncio.Event()
        stage.receivers.behaviours["shop"] = answers_after(release)
        stage.event("shop", id="e1")
        stage.event("shop", id="e2")
        await stage.until(lambda: stage.told() == ["shop"])
        stage.worker.on_lost(Lane.EVENTS)
        again = [stage.event("shop", id="e1"), stage.event("shop", id="e2")]
        release.set()
        await stage.until(lambda: set(map(id, again)) <= set(map(id, stage.queue.acked)))
        assert stage.told() == ["shop", "shop"]


async def test_what_is_cancelled_as_the_process_ends_breaks_nothing() -> None:
    """Another part broke, so nothing drains: the end of an attempt finds one cancelled that waited for its slot."""

    async def hangs(_request: Request) -> Wire:
        await asyncio.Event().wait()
        raise AssertionError

    stage = Stage(client("shop", max_concurrent=1))
    run = asyncio.create_task(stage.worker.run())
    await stage.prove("shop")
    stage.receivers.behaviours["shop"] = hangs
    for number in range(3):
        stage.event("shop", id=str(number))
    await stage.until(lambda: (stage.worker.gate.waiting, stage.told()) == (2, ["shop"]))
    tasks = [run, *stage.worker._tasks]
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 4


async def test_a_lost_queue_takes_nothing_else_with_it() -> None:
    """A source's queue feeds the lane of events too: messages of one queue are kept when the other is lost."""
    stage = Stage(client("shop", max_concurrent=1), max_in_flight=1)
    async with running(stage):
        release = asyncio.Event()
        stage.receivers.behaviours["shop"] = answers_after(release)
        stage.event("shop", id="busy")
        await stage.until(lambda: stage.told() == ["shop"])
        ours = stage.event("shop", id="ours")
        theirs = stage.take(b"{}", source="kc")
        stage.worker.on_lost(Lane.EVENTS, "duende")
        assert stage.worker.ledger.unsettled()["source.kc"].messages == 1
        stage.worker.on_lost(Lane.EVENTS, "kc")
        held = {queue: each.messages for queue, each in stage.worker.ledger.unsettled().items()}
        assert held == {"events": 2, "retries": 0, "bulk": 0, "source.kc": 0}
        again = stage.take(b"{}", source="kc", delivery_count=1)
        stage.worker.on_lost(Lane.EVENTS)
        held = {queue: each.messages for queue, each in stage.worker.ledger.unsettled().items()}
        assert held == {"events": 0, "retries": 0, "bulk": 0, "source.kc": 1}
        release.set()
        await stage.acked(again)
        assert theirs not in stage.queue.acked
        assert ours not in stage.queue.acked


async def test_a_corrected_registration_serves_what_waits() -> None:
    """Each attempt looks the client up again."""
    stage = Stage(client("shop"))
    async with running(stage):
        await stage.prove("shop")
        stage.receivers.behaviours["shop"] = answers(503)
        await stage.acked(stage.event("shop", id="e1"))
        moved = replace(client("shop"), backchannel_logout_uri="https://moved.example/out")
        stage.registry = replace(stage.registry, clients={ISS: {"shop": moved}})
        stage.now += 2
        await stage.acked(stage.retake("delay.2s"))
        assert stage.told() == ["shop", "moved"]


async def test_an_inline_uri_reaches_a_client_nobody_registered() -> None:
    """With the defaults, and nobody else's secrets."""
    async with running(Stage(inline="allow")) as stage:
        await stage.acked(stage.event({"client_id": "new", "backchannel_logout_uri": "https://new.example/out"}))
        assert stage.told() == ["new"]


async def test_a_timeout_after_the_request_was_written_is_remembered_as_ambiguous() -> None:
    """So that a 400 on the next attempt is not read as a fault of configuration (R3)."""
    async with running(Stage(client("shop"))) as stage:

        async def breaks(_request: Request) -> Wire:
            return Break(reason=Reason.TIMEOUT, ambiguous=True, text="no answer")

        stage.receivers.behaviours["shop"] = breaks
        await stage.acked(stage.event("shop"))
        assert json.loads(stage.queue.published[0][1].body)["delivery"]["ambiguous"] is True


async def test_who_waits_most_gives_way_when_memory_is_full() -> None:
    """A flood for one client, which does not answer, leaves room for the next client's delivery."""
    stage = Stage(client("flooded"), client("shop"), max_in_flight=12)
    async with running(stage):
        never = asyncio.Event()
        stage.receivers.behaviours["flooded"] = answers_after(never)
        flood = [stage.event("flooded", id=str(number)) for number in range(20)]  # as much as one lane may hold
        await stage.until(lambda: stage.told() == ["flooded"])
        stage.now += 0.2
        await stage.acked(stage.event("shop"))
        assert stage.told() == ["flooded", "shop"]
        await stage.until(lambda: flood[-1] in stage.queue.acked)
        assert {fact.client_id for fact in stage.facts if isinstance(fact, Deferred)} == {"flooded"}
        assert next(message for message in flood if message not in stage.queue.acked) is flood[0]
        assert len(stage.queue.published) == len(stage.queue.acked) - 1
        never.set()


async def test_a_mass_logout_of_an_issuer_not_known_yet_stays_bulk() -> None:
    """It comes back by the retries, and its parts must not stand before a person who has just signed out."""
    async with running(Stage(client("shop"))) as stage:
        await stage.acked(stage.event("shop", lane=Lane.BULK, iss="https://new.example", clients="*"))
        known = replace(client("shop"), iss="https://new.example")
        stage.registry = replace(
            stage.registry,
            issuers={"https://new.example": Issuer(iss="https://new.example")},
            clients={"https://new.example": {"shop": known}},
        )
        stage.now += 3
        await stage.acked(stage.retake("delay.2s"))
        assert [queue for queue, _ in stage.queue.published] == ["delay.2s", "bulk"]


@pytest.mark.parametrize("address", [None, "https://silent.example/out"])
async def test_nobody_is_skipped_while_a_registry_source_was_never_read(address: str | None) -> None:
    """It may have the address that a file lacks. The others are notified; these wait, and then it is decided."""
    silent = replace(client("silent"), backchannel_logout_uri=None)
    none = {"client_id": "native", "backchannel_logout_uri": None}
    async with running(Stage(client("shop"), silent)) as stage:
        read, queue = stage.registry, ""
        stage.registry = replace(read, grace=ENDLESS_SECONDS, unsure={ISS: "registry source db was never read"})
        for look in range(3):
            came = stage.event("shop", "silent", none, id="e1") if not look else stage.retake(queue)
            await stage.acked(came)
            assert stage.told() == ["shop"]
            queue, sent = stage.queue.published[-1]
            assert queue == f"delay.{2 ** (look + 1)}s"
            names = [entry["client_id"] for entry in json.loads(sent.body)["event"]["clients"]]
            assert names == ["silent", "native"]
            stage.now += 2.0 ** (look + 1)
        known = replace(silent, backchannel_logout_uri=address)
        stage.registry = replace(read, clients={ISS: {"shop": client("shop"), "silent": known}})
        await stage.acked(stage.retake(queue))
        assert stage.told() == (["shop"] if address is None else ["shop", "silent"])
        skipped = [fact.client_id for fact in stage.facts if isinstance(fact, Skipped)]
        assert skipped == (["silent", "native"] if address is None else ["native"])
        assert stage.dead() == []

"""Test the status summed up over the workers: clients with problems first, malformed answers ignored."""

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from notifier.configuration.clients.client_rows import SourceState
from notifier.delivery import facts
from notifier.model.client import RetryPolicy
from notifier.model.delivery import Delivery
from notifier.model.message import Depth, Lane, Message
from notifier.model.moment import format_moment, format_moment_for_people
from notifier.model.outcome import Cause, DeadReason, Failed, Reason
from notifier.model.pauses import Pause
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.model.trouble import Trouble, TroubleKind
from notifier.operators.deliveries.waiting_filter import read_waiting
from notifier.operators.doctor.manual import parse_sections
from notifier.operators.status.client_status import MAX_REPORTED_CLIENTS, ClientStatus, WorkerClients, merge_states
from notifier.operators.status.health_observer import MAX_CLIENTS, UNREGISTERED_SECONDS, HealthObserver
from notifier.operators.status.lifetime import lifetime_of
from notifier.operators.status.service_status import (
    MAX_STATE_BYTES,
    LaneState,
    RelayState,
    WorkerState,
    dump_state,
    rates_of,
    status_of,
    troubles_of,
)
from notifier.operators.status.status_document import document_of
from notifier.operators.status.status_page import status_page
from tests.delivery.worker_harness import ISS, WorkerHarness, client, running
from tests.support.deliveries import make_delivery
from tests.support.outcome_facts import attempted, delivered

NOW = 1_800_000_000.0


def worker(name: str, *clients: ClientStatus, **more: object) -> bytes:
    """Return the answer of a worker."""
    plain: dict[str, object] = {
        "worker": name, "version": "1", "since": NOW - 60, "draining": False, "in_flight": 1,
        "held": {"events": LaneState(unsettled=2, oldest=NOW - 5)}, "rates": {"delivered": 1.5}, "clients": clients,
    }  # fmt: skip
    return dump_state(WorkerState(**(plain | more)))  # type: ignore[arg-type]


def all_of(
    health: HealthObserver, circuits: Any, waiting: Any, *, which: Any = MAX_REPORTED_CLIENTS, **more: Any
) -> tuple[list[ClientStatus], int]:
    """Return the clients and the number of omitted ones."""
    known = WorkerClients(health=health, circuits=circuits, waiting=waiting, **({"pauses": {}} | more))
    states, left_out = known.list_states(which)
    return list(states), left_out


def stands(client_id: str, **more: object) -> ClientStatus:
    """Return the state of a client."""
    return ClientStatus(iss=ISS, client_id=client_id, **more)  # type: ignore[arg-type]


def test_state_of_clients_with_long_names_is_bounded() -> None:
    """The side channel drops larger answers, and the worker would be missing. The clients in the worst state remain."""
    name = "\N{GRINNING FACE}" * 1000
    clients = [stands(f"{name}{number}") for number in range(500)]
    short = Trouble(kind=TroubleKind.CLOCK, text="the clock is ahead")
    unknown = Trouble(kind=TroubleKind.UNKNOWN_CLIENT, text=f"no client {name}", iss=ISS, client_id=name)
    document = worker("a", *clients, left_out=7, troubles=[unknown] * 500 + [short])
    assert len(document) <= MAX_STATE_BYTES
    status = status_of({}, [document], now=NOW)
    kept = len(status.clients)
    assert 0 < kept < 500
    assert status.left_out == 7 + 500 - kept
    assert {client.client_id for client in status.clients} == {client.client_id for client in clients[:kept]}
    assert short in status.workers[0].troubles


def test_parts_of_a_state_are_merged() -> None:
    """The first part has all but the clients, and the last part has the number of the omitted clients."""
    trouble = Trouble(kind=TroubleKind.CLOCK, text="the clock is ahead")
    parts = [worker("a", left_out=5, troubles=[trouble]), worker("a", stands("b"), left_out=4)]
    status = status_of({}, parts, now=NOW)
    assert (len(status.clients), status.left_out, list(status.workers[0].troubles)) == (1, 4, [trouble])


def test_worker_that_is_not_ready_is_shown() -> None:
    """With the reason, and counted as a worker."""
    status = status_of({}, [worker("a", consuming=False, problem="the queue differs"), worker("b")], now=NOW, seen=3)
    Console(file=(page := io.StringIO()), width=200).print(status_page(status, every_client=False))
    shown = page.getvalue()
    assert "2 of 3 workers answered" in shown
    assert shown.count("not ready: the queue differs") == shown.count("not ready") == 1


def test_workers_of_different_versions_are_marked() -> None:
    """With the number of workers of each. Nothing is added if all have the same."""
    old, new = {"version": "0.1.0+g1a2b3c4d"}, {"version": "0.1.0+gfeedf00d"}
    pages = []
    for versions in ((old, new, old), (new, new, new)):
        answers = [worker(name, **version) for name, version in zip("abc", versions, strict=True)]
        Console(file=(page := io.StringIO()), width=200).print(
            status_page(status_of({}, answers, now=NOW), every_client=False)
        )
        pages.append(page.getvalue())
    assert "! 2 versions, as during an upgrade: 0.1.0+g1a2b3c4d at 2, 0.1.0+gfeedf00d at 1." in pages[0]
    assert "versions" not in pages[1]


def test_a_relay_has_one_line() -> None:
    """With the keys of the worker that is worst off, and the last token of all. An issuer's token sees only its own."""
    held, away = (RelayState(relay="dex", iss=ISS, keys=keys, last_token=NOW - 9) for keys in ("held", "away"))
    fresh = RelayState(relay="dex", iss=ISS, keys="fresh")
    other = RelayState(relay="app", iss="https://other.example.com", keys="fresh")
    pages, documents = [], list[Any]()
    for relays in ((fresh, held), (held, fresh), (fresh, away), (other, other)):
        answers = [worker(name, relays=[relay]) for name, relay in zip("ab", relays, strict=True)]
        status = status_of({}, answers, now=NOW)
        Console(file=(page := io.StringIO()), width=200).print(status_page(status, every_client=False))
        pages.append(page.getvalue())
        documents.append(document_of(status, lambda iss: iss == ISS)["relays"])
    assert all("relay dex  keys held, last token: 9 s ago" in page for page in pages[:2])
    assert "relay dex  ! its JWK Set is not served (away), last token: 9 s ago" in pages[2]
    assert "relay app  keys fresh, last token: none" in pages[3]
    assert [relay["keys"] for relays in documents for relay in relays] == ["held", "held", "away"]
    assert documents[3] == []


def test_counts_name_what_happened() -> None:
    """A deferred delivery is not called a delivery, nor is a deferral: of one delivery there may be many."""
    kinds = {
        TroubleKind.SIGNING: "5 deliveries deferred", TroubleKind.UNKNOWN_ISSUER: "5 messages deferred",
        TroubleKind.SESSION_ONLY: "5 deliveries skipped", TroubleKind.EVENTS_REFUSED: "5 events refused",
    }  # fmt: skip
    troubles = [Trouble(kind=kind, text="", count=5, iss=ISS) for kind in kinds]
    status = status_of({}, [worker("a", troubles=troubles, rates={"deferred": 2.5})], now=NOW)
    Console(file=(page := io.StringIO()), width=200).print(status_page(status, every_client=False))
    assert [counted for counted in kinds.values() if f", {counted}\n" not in page.getvalue()] == []
    assert "2.5 deferrals" in page.getvalue()


def test_workers_are_summed_up() -> None:
    """The most recent result of a client wins; the oldest delivery is that of all workers."""
    one = worker(
        "a",
        stands(
            "shop", delivered=2, waiting=1, last_success=NOW - 9, last_failure=NOW - 8, reason="tls",
            parked=-2, waits_for="slot", next_try=NOW + 6, delayed=1, next_delayed=NOW + 3,
        ),
    )  # fmt: skip
    other = worker(
        "b",
        stands(
            "shop", delivered=3, waiting=2, last_success=NOW - 1, last_failure=NOW - 7, reason="dns", circuit=2,
            parked=7, waits_for="retry_after", next_try=NOW + 5, delayed=2, next_delayed=NOW + 4,
        ),
        held={"events": LaneState(unsettled=1, set_aside=2, oldest=NOW - 50)},
    )  # fmt: skip
    depths = {"events": Depth(ready=7, consumers=3), "delay.4s": Depth(ready=5, consumers=0)}
    depths["parked"] = Depth(ready=9, consumers=0)
    status = status_of(depths, [other, b"nonsense", b'{"v": 2}', one], now=NOW, seen=3)
    document = document_of(status)
    [shop] = status.clients
    assert (shop.delivered, shop.waiting, shop.circuit) == (5, 3, 2)
    assert (shop.last_success, shop.last_failure, shop.reason) == (NOW - 1, NOW - 7, "dns")
    assert (shop.parked, shop.cause, shop.next_try) == (5, "retry_after", NOW + 5)
    assert (shop.pending_count, shop.delayed, shop.next_delayed, shop.next_attempt) == (11, 3, NOW + 3, NOW + 5)
    assert stands("a", delayed=1, next_delayed=NOW).next_attempt == NOW
    assert rates_of(status)["delivered"] == 3.0
    queues = json.loads(json.dumps(document))["queues"]
    assert queues["events"] == {"ready": 7, "held": 3, "set_aside": 2, "oldest": "2027-01-15T07:59:10.000000Z"}
    assert (queues["delayed"], queues["parked"]) == ({"ready": 5}, {"ready": 9})
    assert document["workers"] == {
        "seen": 3,
        "answered": 2,
        "each": [
            {
                "worker": name, "version": "1", "since": "2027-01-15T07:59:00.000000Z", "draining": False,
                    "consuming": None, "problem": None,
                "in_flight": 1, "rates": {"delivered": 1.5}, "replies_dropped": 0, "registry": [],
            }
            for name in ("a", "b")
        ],
    }  # fmt: skip


async def test_results_of_attempts_are_kept() -> None:
    """Successes, failures by reason, retries and dead letters per client."""
    harness = WorkerHarness(client("well"))
    health = HealthObserver(clock=lambda: harness.now, monotonic=lambda: 0.0)
    async with running(harness):
        taken = harness.event("well", "nobody")
        await harness.until(lambda: taken in harness.queue.acked)
    for fact in harness.facts:
        health.observe(fact)
    told, left_out = all_of(
        health, [(ISS, "nobody", 2)], [(ISS, "well", 4)],
        parked=[(ISS, "well", -3)], next_tries=[(ISS, "nobody", harness.now + 9)],
    )  # fmt: skip
    assert left_out == 0
    assert [(each.client_id, each.circuit, each.waiting) for each in told] == [("nobody", 2, 0), ("well", 0, 4)]
    nobody, well = told
    assert (nobody.cause, nobody.next_try, well.cause, well.parked) == ("circuit", harness.now + 9, "", -3)
    assert (well.delivered, well.last_success, well.is_failing) == (1, harness.now, False)
    assert (nobody.put_off, nobody.next_due is not None) == (1, True)
    assert health.counts == {"attempts": 1, "delivered": 1, "retried": 0, "deferred": 1, "dead": 0}


async def test_deadline_of_pending_deliveries_is_reported() -> None:
    """The first deadline of each kind, until it has passed; an unregistered client has none."""
    registry = WorkerHarness(client("shop")).registry
    health = HealthObserver(
        clock=lambda: NOW, monotonic=lambda: 0.0, get_lifetime=lambda delivery: lifetime_of(delivery, registry)
    )

    def put_off(client_id: str, since: float, sid: str | None) -> Delivery:
        delivery = delivery_of(client_id, sid=sid, first_taken_at=since)
        health.observe(facts.RetryScheduled(delivery=delivery, due=NOW + 9))
        return delivery

    def told(client_id: str) -> ClientStatus:
        states, _ = all_of(health, [(ISS, client_id, 2)], [(ISS, client_id, 3)])
        return next(state for state in states if state.client_id == client_id)

    first, _ = put_off("shop", NOW - 30, None), put_off("shop", NOW - 10, "one")
    put_off("shop", NOW - 20, "two")
    assert (told("shop").expires_without_sid, told("shop").expires_with_sid) == (NOW + 570, NOW - 20 + 86_400)
    assert told("shop").expires == NOW + 570
    assert health.count_expiring_clients() == {"yes": 0, "no": 1}
    health.observe(delivered(first))
    assert told("shop").expires == NOW - 20 + 86_400
    put_off("nobody", NOW, None)
    assert told("nobody").expires is None


@pytest.mark.parametrize("reason", ["paused", "unknown client", "unknown issuer"])
async def test_deadline_is_when_a_delivery_is_given_up_if_its_reason_lasts(reason: str) -> None:
    """As a worker does then, at the end of the wait in which it falls. The list knows it from the first wait on."""
    policy = RetryPolicy(max_age=3000.0, max_paused=1500.0)
    async with running(WorkerHarness(client("shop", paused=True, retry=policy))) as harness:
        named: dict[str, Any] = {"iss": "https://new.example"} if reason == "unknown issuer" else {}
        await harness.acked(harness.event("shop" if reason == "paused" else "nobody", **named))
        _, sent = harness.queue.published[-1]
        message = Message(lane=Lane.RETRIES, body=sent.body, kind=sent.kind, tag=None)
        summary = read_waiting(message, lambda pending: lifetime_of(pending, harness.registry))
        began_at = harness.now
        await harness.through_delays(most=6000.0)
        assert summary.expires == began_at + (4500.0 if reason == "paused" else 300.0)
        assert -8.0 <= harness.now - summary.expires <= 512.0


def failed(health: HealthObserver, client_id: str, at: float) -> None:
    """Observe an attempt that did not connect."""
    health.observe(
        attempted(delivery_of(client_id), Failed(reason=Reason.CONNECT, text="refused"), at=at, next_due=None)
    )


def test_oldest_of_very_many_clients_are_removed() -> None:
    """Memory and answers are bounded; clients with problems come first."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    for number in range(MAX_CLIENTS + 5):
        failed(health, f"c{number}", NOW + number)
    assert len(health.clients) == MAX_CLIENTS
    told, left_out = all_of(health, [(ISS, "c9", 1)], [])
    assert told[0].client_id == "c9"
    assert len(told) + left_out == MAX_CLIENTS


def test_failing_ones_of_very_many_clients_are_kept() -> None:
    """Otherwise reports of thousands of healthy clients would displace them."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    failed(health, "down", NOW)
    for number in range(2 * MAX_CLIENTS):
        health.observe(delivered(delivery_of(f"c{number}")))
    assert len(health.clients) == MAX_CLIENTS
    assert health.clients[ISS, "down"].last_failure == NOW
    assert (ISS, "c0") not in health.clients
    circuits, silent = [(ISS, "rests", 2), (ISS, "up", 0)], [(ISS, "hangs", 9.0)]
    known = WorkerClients(health=health, circuits=circuits, silent=silent, pauses={})
    assert known.list_troubled() == [(ISS, "rests"), (ISS, "hangs"), (ISS, "down")]


def delivery_of(client_id: str, *, iss: str = ISS, sub: str = "s", sid: str | None = None, **more: Any) -> Delivery:
    """Return a delivery for a client."""
    return make_delivery(id="d", event_id="e", id_given=True, iss=iss, client_id=client_id, sub=sub, sid=sid, **more)


def test_headline_counts_unreachable_clients() -> None:
    """Those whose circuit is not closed, also if the table omits them. One client needs no headline."""
    for count, lines in ((50, 1), (1, 0)):
        clients = [stands(f"c{number}", circuit=1 + number % 2) for number in range(count)]
        status = status_of({}, [worker("a", *clients, stands("well"))], now=NOW)
        Console(file=(page := io.StringIO()), width=200).print(status_page(status, every_client=False))
        assert page.getvalue().count(f"✗ {count} clients are unreachable") == lines


def pause_of(client_id: str, until: float = NOW + 7200, who: str = "alice") -> Pause:
    """Return a pause in force."""
    return Pause(id="p", iss=ISS, client_id=client_id, who=who, reason="deploy", since=NOW, until=until)


def test_paused_client_is_paused_before_anything_else() -> None:
    """Unreachable, deferred, unknown to the worker: its state, the cause and the next attempt are the pause's."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    failed(health, "down", NOW)
    deferred(health, "later", Cause.SIGNING)
    pauses = {(ISS, client_id): pause_of(client_id) for client_id in ("down", "later", "new")}
    states, left_out = all_of(health, [(ISS, "down", 2)], [], next_tries=[(ISS, "down", NOW + 9)], pauses=pauses)
    shown = {each.client_id: (each.state, each.cause, each.next_attempt) for each in states}
    assert shown == dict.fromkeys(("down", "later", "new"), ("paused", "paused", NOW + 7200))
    assert left_out == 0
    assert (ISS, "new") in WorkerClients(health=health, circuits=[], pauses=pauses).list_troubled()
    [chosen], _ = all_of(health, [], [], pauses=pauses, which=[(ISS, "new")])
    assert chosen.state == "paused"


def test_pause_that_one_worker_has_read_is_shown() -> None:
    """With the later end, if they differ; in JSON and on the page, where the client does not count as unreachable."""

    def paused(client_id: str, seconds: float) -> ClientStatus:
        pause = copy_record(pause_of(client_id, NOW + seconds), reason="deploy\x1b[2J")
        return stands(client_id, pause=pause, circuit=2, text="connection refused")

    workers = [
        worker("a", stands("shop", circuit=2), paused("mail", 60)),
        worker("b", paused("shop", 7200), paused("mail", 90)),
    ]
    status = status_of({}, workers, now=NOW)
    by_id = {client["client_id"]: client for client in document_of(status)["clients"]}  # type: ignore[attr-defined]
    shop = by_id["shop"]
    assert (shop["state"], shop["paused_by"], shop["paused_until"]) == ("paused", "alice", format_moment(NOW + 7200))
    assert by_id["mail"]["paused_until"] == format_moment(NOW + 90)
    Console(file=(page := io.StringIO()), width=200).print(status_page(status, every_client=False))
    assert "unreachable" not in page.getvalue()
    assert re.search(r"shop +paused .* paused +in 2 h", page.getvalue())
    assert f"shop: paused by alice until {format_moment_for_people(NOW + 7200)}: deploy" in page.getvalue()
    assert "connection refused" not in page.getvalue()


def test_headline_says_that_workers_omit_clients() -> None:
    """A worker reports at most 500 clients."""
    cut = worker("a", *(stands(f"c{number}", circuit=2) for number in range(50)), left_out=7)
    Console(file=(page := io.StringIO()), width=200).print(
        status_page(status_of({}, [cut], now=NOW), every_client=False)
    )
    assert "✗ at least 50 clients are unreachable" in page.getvalue()


def test_late_messages_do_not_count_for_oldest() -> None:
    """The embedded queue cannot distinguish them. With ready messages, or without an answer, its time is shown."""
    late = worker("a", held={"events": LaneState(unsettled=3, set_aside=3)})
    for ready, answers, shown in ((0, [late], None), (1, [late], NOW - 17), (0, [], NOW - 17)):
        depths = {"events": Depth(ready=ready, consumers=1)}
        status = status_of(depths, answers, now=NOW, oldest={"events": NOW - 17})
        assert status.oldest.get("events") == shown


def test_worker_may_report_its_clients_in_parts() -> None:
    """The parts of one worker are merged."""
    parts = [worker("a", stands("one")), worker("b", stands("one")), worker("a", stands("two"))]
    status = status_of({}, parts, now=NOW)
    assert [(each.worker, len(each.clients)) for each in status.workers] == [("a", 2), ("b", 1)]
    assert {client.client_id for client in status.clients} == {"one", "two"}


def deferred(health: HealthObserver, client_id: str, cause: Cause) -> None:
    """Observe a deferral without an attempt."""
    health.observe(facts.Deferred(iss=ISS, client_id=client_id, event_id="e", cause=cause, due=NOW + 2))


def test_client_with_only_deferrals_is_not_healthy() -> None:
    """Whatever the cause; a client that accepts tokens and sometimes waits for a slot is healthy."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    for client_id, cause in (("new", Cause.SLOT), ("unsigned", Cause.SIGNING), ("busy", Cause.SLOT)):
        deferred(health, client_id, cause)
    health.clients[ISS, "busy"].last_success = NOW - 1
    health.clients[ISS, "unsigned"].last_success = NOW - 1
    states = {each.client_id: each.state for each in all_of(health, [], [])[0]}
    assert states == {"new": "put_off", "unsigned": "put_off", "busy": "well"}
    failed(health, "unsigned", NOW + 1)
    assert {each.client_id: each.state for each in all_of(health, [], [])[0]}["unsigned"] == "fails"


def test_dead_letters_that_a_pass_holds_are_counted() -> None:
    """The broker omits them; a worker has their number from before. Without a pass the broker's number counts."""
    for ready, held, count in ((2, True, 680), (700, True, 700), (2, False, 2)):
        depths = {"dead": Depth(ready=ready, consumers=0)}
        status = status_of(depths, [worker("a", dead_letters=680), worker("b")], now=0.0, dead_letters_held=held)
        assert status.depths["dead"].ready == count


def test_waiting_reason_is_the_last_outcome() -> None:
    """After a signing key is repaired the outcome of its attempts counts, and no longer the key."""
    waiting = {"waits_for": "signing", "deferred_at": 100.0, "delayed": 30}
    assert stands("shop", **waiting, last_success=90.0).cause == "signing"
    assert stands("shop", **waiting, last_failure=101.0, reason="server_error").cause == "server_error"
    assert stands("shop", **waiting, last_failure=101.0, reason="server_error", circuit=2).cause == "circuit"
    assert stands("shop", **waiting, last_success=101.0).cause == ""
    in_line = {"waits_for": "slot", "deferred_at": 100.0, "waiting": 2}
    assert stands("shop", **in_line, last_success=101.0).cause == "slot"
    assert stands("shop", last_failure=101.0, reason="timeout", delayed=1).cause == "timeout"
    assert stands("shop", last_failure=101.0, reason="timeout").cause == ""
    elsewhere = stands("shop", last_failure=101.0, reason="server_error")
    assert merge_states(stands("shop", **waiting), elsewhere).cause == "server_error"


def test_dead_letter_without_an_attempt_sets_no_waiting_reason() -> None:
    """A dead letter without an attempt does not change the cause of pending deliveries."""
    assert stands("shop", last_failure=101.0, reason="no_sub", delayed=1).cause == ""
    waiting = {"waits_for": "signing", "deferred_at": 100.0, "delayed": 30}
    assert stands("shop", **waiting, last_failure=101.0, reason="no_sid").cause == "signing"


def buried(
    health: HealthObserver, client_id: str, reason: DeadReason, text: str = "why", delivery: Delivery | None = None
) -> None:
    """Observe a dead letter without an attempt."""
    letter: dict[str, Any] = {"iss": ISS, "client_id": client_id, "event_id": "e", "reason": reason, "text": text}
    health.observe(facts.DeadLettered(**letter, delivery=delivery))


def test_late_event_is_no_failure_of_its_client() -> None:
    """Its state stays. The dead letter is counted."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    buried(health, "late", DeadReason.EXPIRED)
    buried(health, "unknown", DeadReason.UNKNOWN_CLIENT)
    states = {state.client_id: (state.state, state.dead) for state in all_of(health, [], [])[0]}
    assert states == {"late": ("well", 1), "unknown": ("fails", 1)}


def test_client_that_only_events_name_is_removed() -> None:
    """An hour after its last report, since no attempt may ever follow."""
    now = [NOW]
    health = HealthObserver(clock=lambda: now[0], monotonic=lambda: 0.0)
    for name in ("shop", "inline", "waits"):
        failed(health, name, NOW)
    health.clients[ISS, "waits"].next_due = NOW + 600
    registry = Registry(clients={ISS: {"shop": client("shop")}})
    now[0] += UNREGISTERED_SECONDS
    health.forget(registry)
    assert len(health.clients) == 3
    now[0] += 1
    health.forget(registry)
    assert set(health.clients) == {(ISS, "shop"), (ISS, "waits")}


def test_unresponsive_client_is_not_healthy() -> None:
    """From its first second, since its attempts fail only at their deadline."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    deferred(health, "busy", Cause.SLOT)
    health.clients[ISS, "busy"].last_success = NOW
    told, left_out = all_of(health, [], [], silent=[(ISS, "busy", 2.04), (ISS, "new", 1.5)])
    assert {state.client_id: (state.state, state.silent) for state in told} == {
        "busy": ("hangs", 2.0),
        "new": ("hangs", 1.5),
    }
    assert left_out == 0


def test_invented_clients_displace_no_registered_client() -> None:
    """Half of the memory is for registered clients."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    failed(health, "shop", NOW)
    for number in range(MAX_CLIENTS + 10):
        deferred(health, f"made-up-{number}", Cause.UNKNOWN)
    assert len(health.clients) == MAX_CLIENTS // 2
    assert (ISS, "shop") in health.clients


def test_shortened_dead_letter_text_keeps_the_remedy() -> None:
    """The remedy stays, because it comes last, after names of others."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    text = f"the registry has no client of alice-77 {'w' * 300}; register it, then replay"
    buried(health, "shop", DeadReason.UNKNOWN_CLIENT, text, delivery_of("shop", sub="alice-77"))
    told = health.clients[ISS, "shop"].text
    assert told.endswith("; register it, then replay")
    assert "alice-77" not in told


def test_failure_is_reported_without_the_user() -> None:
    """Nor with a token, if the client returns it."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    outcome = Failed(reason=Reason.SERVER_ERROR, status=500, text="no session of Alice-77 in eyJhbGciOiJSUzI1NiJ9.e.x")
    health.observe(attempted(delivery_of("shop", sub="alice-77"), outcome, at=NOW, next_due=None))
    status = status_of({}, [worker("a", *all_of(health, [], [])[0])], now=NOW)
    told = document_of(status)["clients"]
    assert isinstance(told, list)
    assert [(each["state"], each["text"]) for each in told] == [("fails", "no session of [sub] in [token]")]


def test_problems_of_all_workers_are_merged() -> None:
    """The most urgent first. A text that may name clients of any issuer is empty for a token of one issuer."""
    refused = Trouble(kind="reload_refused", text="3 of 7 clients", since=NOW - 9)
    unknown = Trouble(kind="unknown_issuer", text="not one", since=NOW - 9, iss=f"{ISS}/", count=2)
    later = Trouble(kind="of_a_later_release", text="new", since=NOW)
    answers = [
        worker("a", troubles=[later, unknown, refused]),
        worker("b", troubles=[Trouble(kind="unknown_issuer", text="not one", since=NOW - 5, iss=f"{ISS}/", count=1)]),
    ]
    status = status_of({}, answers, now=NOW)
    told = document_of(status)["troubles"]
    assert isinstance(told, list)
    assert [(each["kind"], each["count"], each["workers"], each["explained"]) for each in told] == [
        ("reload_refused", 0, ["a"], "NotifierReloadFailed"),
        ("unknown_issuer", 3, ["a", "b"], "unknown"),
        ("of_a_later_release", 0, ["a"], None),
    ]
    assert told[1]["since"] == "2027-01-15T07:59:51.000000Z"
    of_one = document_of(status, lambda iss: iss == ISS)["troubles"]
    assert [(each["kind"], each["text"]) for each in of_one] == [("reload_refused", ""), ("of_a_later_release", "")]  # type: ignore[attr-defined]


def test_many_clients_with_one_problem_are_one_problem() -> None:
    """Without their number a list that lacks half of its clients hides all other problems."""
    texts: dict[str, Any] = {"text": "the registry has no such client (yet)", "iss": ISS, "kind": "unknown_client"}
    lost = [Trouble(client_id=f"c{number}", since=NOW - number, count=2, **texts) for number in range(9)]
    few = [Trouble(kind="encryption", text="no key", iss=ISS, client_id=f"c{number}", count=1) for number in range(5)]
    status = status_of({}, [worker("a", troubles=[*lost[:6], *few]), worker("b", troubles=lost[3:])], now=NOW)
    told: Any = document_of(status)["troubles"]
    assert [(each["kind"], each["client_id"], each["count"], each["workers"]) for each in told] == [
        ("unknown_client", None, 24, ["a", "b"]),
        *(("encryption", f"c{number}", 1, ["a"]) for number in range(5)),
    ]
    assert told[0]["text"] == "the registry has no such client (yet); 9 clients: c3, c4, c5 and 6 more"
    assert told[0]["since"] == "2027-01-15T07:59:52.000000Z"


def test_workers_with_different_clients_of_a_source_are_a_problem() -> None:
    """A worker that started while a list was halved knows fewer clients than the others, which hold back the loss."""

    def told(*counts: int, **more: object) -> list[tuple[str, str]]:
        answers = [
            worker(name, registry=[SourceState(name="kc", kind="keycloak", up=True, age=1.0, clients=count)], **more)
            for name, count in zip("abc", counts, strict=False)
        ]
        return [(shared.trouble.text, *shared.workers) for shared in troubles_of(status_of({}, answers, now=NOW))]  # type: ignore[misc]

    assert told(100, 48, 100) == [("workers know 48 to 100 clients of it, and b the fewest", "b")]
    assert told(100, 90, 81) == told(2, 1) == told(7) == []  # read at different times
    assert told(100, 0, consuming=False) == []  # it has not read the source yet


def test_each_problem_has_a_runbook_section() -> None:
    """Each kind of problem names an existing section."""
    known = {section.name for section in parse_sections().values()}
    assert {kind.section for kind in TroubleKind} <= known


def test_worker_without_pending_deliveries_does_not_override_another() -> None:
    """A client that has answered another worker since is healthy, unless a delivery waits here."""
    rests = ClientStatus(iss=ISS, client_id="shop", circuit=2, last_failure=NOW, failing_since=NOW - 9)
    answered = ClientStatus(iss=ISS, client_id="shop", last_success=NOW + 1)
    for merged in (merge_states(rests, answered), merge_states(answered, rests)):
        assert (merged.state, merged.failing_since) == ("well", NOW + 1)
    rests.parked = 1
    assert merge_states(answered, rests).state == "rests"
    assert merge_states(rests, ClientStatus(iss=ISS, client_id="shop", last_success=NOW - 1)).state == "rests"


def test_start_of_a_failure_survives_a_restart() -> None:
    """A delivery contains its first attempt. A success ends the failure, and earlier attempts do not count."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    failed(health, "shop", NOW)
    record = health.clients[ISS, "shop"]
    assert record.failing_since == NOW
    failure = Failed(reason=Reason.CONNECT, text="")
    third = attempted(delivery_of("shop", first_attempt_at=NOW - 600), failure, number=3, at=NOW + 1, next_due=None)
    health.observe(third)
    assert record.failing_since == NOW - 600
    record.last_success, record.failing_since = NOW + 2, None
    health.observe(copy_record(third, at=NOW + 3))
    assert record.failing_since == NOW + 2


def test_last_response_survives_expired_deliveries() -> None:
    """While the circuit is open, its deliveries expire without an attempt; expiry is not a response of the client."""
    health = HealthObserver(clock=lambda: NOW, monotonic=lambda: 0.0)
    buried(health, "shop", DeadReason.EXPIRED, "never attempted in 600 s")
    record = health.clients[ISS, "shop"]
    assert (record.reason, record.last_failure) == ("expired", None)
    failed(health, "shop", NOW)
    buried(health, "shop", DeadReason.EXPIRED, "never attempted in 600 s")
    assert (record.reason, record.text, record.dead) == ("connect", "refused", 2)

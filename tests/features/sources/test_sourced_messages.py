"""A worker's handling of source messages: no event is lost, and no client is notified twice without need."""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from notifier.delivery.facts import Deferred, EventTaken, MembersMisspelt
from notifier.features.sources.source import Source
from notifier.features.sources.source_intake import SourceIntake, read_again
from notifier.messages.message_planner import MessagePlanner
from notifier.messages.replacements import Replacement
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.documents.sourced import to_sourced
from notifier.model.message import LAST_CHANCE, Kind, Lane, Message, MessageDraft
from notifier.model.outcome import Cause, DeadReason
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.model.reply import ReplyTo
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.dead_letter_summary import read_summary
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmission, ReplayRules, readmit
from tests.delivery.worker_harness import ISS, WorkerHarness, client, running
from tests.features.sources.source_documents import source

DOCUMENT = {"user": "alice", "session": "s1", "apps": ["shop", "mail"], "at": "2026-11-21T10:00:00Z"}
EVENT = {"sub": "user", "sid": "session", "clients": "apps", "ended_at": "at"}
LIST = {"envelope": ["@"], "event": EVENT, "when": "user != 'nobody'"}


class Sourced(WorkerHarness):
    """A worker that knows two clients, and sources."""

    def __init__(self, **sources: Source) -> None:
        super().__init__(client("shop"), client("mail"))
        self.sources: Mapping[str, Source] = sources
        self.readers[""] = SourceIntake(
            lambda: self.sources, new_id=lambda: "new", max_event=4096, observe=self.facts.append
        )


def harness(**settings: Any) -> Sourced:
    """A worker that knows the source `shop`."""
    return Sourced(shop=mapped(**settings))


def mapped(**settings: Any) -> Source:
    """The source, at the stage's issuer."""
    return dataclasses.replace(source(**{"event": EVENT} | settings), issuer=ISS)


def taken(harness: WorkerHarness) -> list[tuple[str, str | None]]:
    """The results of events, and the sources that they came from."""
    return [(fact.result, fact.source) for fact in harness.facts if isinstance(fact, EventTaken)]


def all_dead(harness: WorkerHarness) -> list[Message]:
    """The dead letters, as they lie in the queue."""
    return [as_taken(sent, Lane.EVENTS) for queue, sent in harness.queue.published if queue == "dead"]


def as_taken(sent: MessageDraft, lane: Lane) -> Message:
    """The message as a worker gets it back."""
    return Message(
        lane=lane, body=sent.body, tag="taken", kind=sent.kind, headers=sent.headers, message_id=sent.message_id,
        content_type=sent.content_type,
    )  # fmt: skip


def rules(harness: Sourced) -> ReplayRules:
    readers = {"": partial(read_again, harness.sources, 4096)}
    return ReplayRules(registry=harness.registry, new_id=lambda: "new", max_event=4096, readers=readers)


async def replay(harness: Sourced, dead: Message) -> Readmission:
    """Replay the dead letter, and wait until the worker has acked the message."""
    back = readmit(load_dead_letter(dead), rules(harness), harness.now)
    assert isinstance(back, Readmission)
    assert (back.queue, back.outgoing.kind) == (Lane.EVENTS, Kind.SOURCED)
    sent = back.outgoing
    await harness.acked(
        harness.take(
            sent.body, kind=Kind.SOURCED, headers=sent.headers, message_id=sent.message_id,
            content_type=sent.content_type,
        )
    )  # fmt: skip
    return back


async def test_a_document_of_another_server_notifies_its_clients() -> None:
    """As notifier's own events do."""
    async with running(harness()) as on:
        await on.acked(on.take(json.dumps(DOCUMENT).encode(), source="shop"))
        assert (sorted(on.notified()), taken(on), on.dead()) == (["mail", "shop"], [("accepted", "shop")], [])


async def test_misspelt_members_are_reported_by_their_source() -> None:
    """Once, of a single event, of an event in a list, and of an event that is split or delivered in parts."""
    whole = DOCUMENT | {"apps": [{"client_id": "shop", "sessionid": "s1"}]}
    many = whole | {"apps": [*whole["apps"], *(f"c{n}" for n in range(250))]}
    for documents, settings in (([whole, DOCUMENT], LIST), ([whole], LIST), (whole | {"user": "ann"}, {}), (many, {})):
        async with running(harness(**settings)) as on:
            await on.acked(on.take(json.dumps(documents).encode(), source="shop", message_id="m"))
            sent, on.queue.published[:] = [*on.queue.published], []
            for _, each in sent:
                await on.acked(on.take(each.body, kind=each.kind, message_id=each.message_id))
            [found] = [fact for fact in on.facts if isinstance(fact, MembersMisspelt)]
            assert (found.source, [member.written for member in found.members]) == ("shop", ["clients[0].sessionid"])


async def test_dropped_members_are_reported_once() -> None:
    """Also of an event in a list, and of an event that is delivered in parts."""
    many = DOCUMENT | {"at": "soon", "apps": [f"c{n}" for n in range(250)]}
    async with running(harness(**LIST)) as on:
        await on.acked(on.take(json.dumps([many, DOCUMENT]).encode(), source="shop", message_id="m"))
        for _ in range(2):
            sent, on.queue.published[:] = [*on.queue.published], []
            for _, each in sent:
                await on.acked(on.take(each.body, kind=each.kind, message_id=each.message_id))
        found = [fact.unread for fact in on.facts if isinstance(fact, EventTaken) and fact.unread]
        assert found == [("ended_at",)]


async def test_an_ignored_document_is_acked_and_counted() -> None:
    """It leaves nothing else."""
    async with running(harness(when="user != 'alice'")) as on:
        await on.acked(on.take(json.dumps(DOCUMENT).encode(), source="shop"))
        assert (on.notified(), taken(on), on.queue.published) == ([], [("ignored", "shop")], [])


async def test_wrong_clients_become_a_dead_letter_and_others_are_notified() -> None:
    """Its replay, by a corrected mapping, notifies only those clients."""
    async with running(harness()) as on:
        body = DOCUMENT | {"apps": ["shop", {"id": "mail"}]}
        await on.acked(on.take(json.dumps(body).encode(), source="shop", headers={"Authorization": "s3cret", "k": 1}))
        (dead,) = all_dead(on)
        shown = load_dead_letter(dead)
        assert (on.notified(), shown.source, shown.events, shown.iss) == (["shop"], "shop", "0:1", ISS)
        assert "s3cret" not in str(dead)
        summary = read_summary(dead)
        assert summary.document()["source"] == "shop"
        assert [DeadLetterFilter(source=name).matches(dead, summary) for name in ("shop", "duende")] == [True, False]
        assert [DeadLetterFilter(subject=name).matches(dead, summary) for name in ("alice", "bob")] == [True, False]
        kept = readmit(shown, rules(on), on.now)
        assert isinstance(kept, KeptDeadLetter)
        assert (kept.reason, "sources.shop" in kept.text) == (KeepReason.MALFORMED, True)
        corrected = mapped(event=EVENT | {"clients": "[apps[0], apps[1].id]"})
        on.sources = {"shop": corrected}
        on.receivers.posts.clear()
        await replay(on, dead)
        assert on.notified() == ["mail"]


async def test_each_event_of_a_list_becomes_durable_before_the_ack() -> None:
    """The good ones as events of ours, the wrong ones as one dead letter, what is ignored as nothing."""
    async with running(harness(**LIST)) as on:
        events = [DOCUMENT, {"user": "nobody"}, DOCUMENT | {"session": 7}, DOCUMENT | {"session": "s2"}]
        await on.acked(on.take(json.dumps(events).encode(), source="shop", message_id="m"))
        assert [queue for queue, _ in on.queue.published] == ["dead", "events", "events"]
        assert on.queue.log[-1].startswith("acked")
        assert taken(on) == [("split", "shop")]
        for _, sent in list(on.queue.published[1:]):
            await on.acked(on.take(sent.body, kind=sent.kind, message_id=sent.message_id))
        assert len(on.notified()) == 4
        (dead,) = all_dead(on)
        on.sources = {"shop": mapped(**LIST | {"event": EVENT | {"sid": "to_string(session)"}})}
        on.receivers.posts.clear()
        await replay(on, dead)
        assert sorted(on.notified()) == ["mail", "shop"]


async def wait_for_the_source(on: Sourced, message: Message) -> list[str]:
    """Redeliver the message until it is no longer delayed. Return the delay queues."""
    waits: list[str] = []
    while True:
        written = len(on.queue.published)
        on.worker.take(message)
        await on.acked(message)
        delayed = [each for each in on.queue.published[written:] if each[0].startswith("delay.")]
        if not delayed:
            return waits
        ((queue, sent),) = delayed
        waits.append(queue)
        message = as_taken(sent, Lane.RETRIES)


@pytest.mark.parametrize("kind", [None, Kind.SOURCED])
async def test_a_source_that_only_another_worker_has_is_waited_for(kind: Kind | None) -> None:
    """As during an update that adds it. What the source sent, and which of its events count, is kept meanwhile."""
    async with running(Sourced()) as on:
        body = json.dumps([DOCUMENT, DOCUMENT | {"user": "bob"}]).encode()
        came = Message(
            lane=Lane.EVENTS, body=body, tag=1, source="shop", headers={"sid": "h", "Cookie": "s3cret"}, app_id="idp"
        )
        if kind is Kind.SOURCED:
            came = copy_record(as_taken(to_sourced(came, "id", "1"), Lane.EVENTS), message_id="id")
        on.worker.take(came)
        await on.acked(came)
        ((queue, sent),) = on.queue.published
        assert queue == "delay.2s"
        assert "s3cret" not in str(sent)
        assert sent.message_id == ("id" if kind is Kind.SOURCED else "made-up-0")
        (fact,) = on.facts
        assert isinstance(fact, Deferred)
        assert (fact.cause, fact.text) == (Cause.UNKNOWN, "the source shop is not configured (yet)")
        on.sources = {"shop": mapped(event=EVENT | {"sid": '"$headers".sid'}, envelope=["@"])}
        on.queue.published.clear()
        on.worker.take(back := as_taken(sent, Lane.RETRIES))
        await on.acked(back)
        for _, event in on.queue.published:
            on.worker.take(again := as_taken(event, Lane.EVENTS))
            await on.acked(again)
        found = {(claims["sub"], claims["sid"]) for _, claims in on.receivers.posts}
        assert found == ({("bob", "h")} if kind is Kind.SOURCED else {("alice", "h"), ("bob", "h")})


async def test_a_removed_source_is_named_by_the_dead_letter() -> None:
    """After `registry.grace`. It waits there until the source is configured again, with what the mapping needs."""
    async with running(harness(event=EVENT | {"sid": '"$headers".sid'})) as on:
        sources, on.sources = on.sources, {}
        came = Message(
            lane=Lane.EVENTS, body=json.dumps(DOCUMENT).encode(), tag=1, source="shop",
            headers={"sid": "h", "Cookie": "s3cret"}, app_id="idp",
        )  # fmt: skip
        waits = await wait_for_the_source(on, came)
        assert waits == [f"delay.{wait}s" for wait in (2, 4, 8, 16, 32, 64, 128, 32)]
        (dead,) = all_dead(on)
        shown = load_dead_letter(dead)
        assert "the source shop is not configured" in shown.text
        assert (shown.source, taken(on)) == ("shop", [("malformed", "shop")])
        assert isinstance(readmit(shown, rules(on), on.now), KeptDeadLetter)
        on.sources = sources
        await replay(on, dead)
        assert {claims["sid"] for _, claims in on.receivers.posts} == {"h"}
        assert "s3cret" not in str(dead)


def test_a_source_message_at_the_delivery_limit_is_dead_lettered() -> None:
    """Also a message by HTTP, or a replay of some of its events: the queue itself would drop it."""
    readers = {"": SourceIntake(lambda: {"shop": mapped()}, new_id=lambda: "new", max_event=4096)}
    intake = MessagePlanner(
        Registry, clock=lambda: 0.0, monotonic=lambda: 0.0, new_id=lambda: "new", max_event=4096, readers=readers
    )
    came = Message(lane=Lane.EVENTS, body=b"{}", tag=1, source="shop", delivery_count=LAST_CHANCE)
    sent = as_taken(to_sourced(came, "id", "3"), Lane.EVENTS)
    for message, events in ((came, None), (copy_record(sent, delivery_count=LAST_CHANCE), "3")):
        move = intake.plan(message)
        assert isinstance(move, Replacement)
        (send,) = move.messages
        dead = load_dead_letter(as_taken(send.message, Lane.EVENTS))
        assert (dead.reason, dead.source, dead.events) == (DeadReason.DELIVERY_LIMIT, "shop", events)
        assert dead.raw is not None
        assert dead.raw.body == b"{}"


async def test_clients_are_found_by_their_other_names() -> None:
    """An unknown name waits; it is found once the registry knows it."""
    async with running(harness()) as on:
        on.registry = dataclasses.replace(on.registry, aliases={ISS: {"uuid-1": "shop"}})
        await on.acked(on.take(json.dumps(DOCUMENT | {"apps": ["uuid-1", "uuid-2"]}).encode(), source="shop"))
        assert on.notified() == ["shop"]
        on.registry = dataclasses.replace(on.registry, aliases={ISS: {"uuid-1": "shop", "uuid-2": "mail"}})
        on.now += 10
        await on.acked(on.retake(on.queue.published[-1][0]))
        assert on.notified() == ["shop", "mail"]


async def test_a_client_that_has_no_address_is_skipped_unless_it_is_registered() -> None:
    """It never waits as an unknown one."""
    async with running(harness()) as on:
        nobody = [{"client_id": name, "backchannel_logout_uri": None} for name in ("native", "shop")]
        await on.acked(on.event(*nobody))
        assert (on.notified(), on.queue.published) == (["shop"], [])


async def test_a_foreign_reply_to_gets_no_fate() -> None:
    """Its reply-to belongs to their own request."""
    async with running(harness()) as on:
        await on.acked(on.take(json.dumps(DOCUMENT).encode(), source="shop", reply_to=ReplyTo(to="theirs")))
        assert all(getattr(fact, "reply_to", None) is None for fact in on.facts)

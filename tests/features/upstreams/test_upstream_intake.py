"""The end of an upstream's session becomes events, a deferred message or a dead letter."""

import json

from notifier.delivery.facts import Deferred, Fact
from notifier.delivery.settlement import OutgoingMessage
from notifier.features.upstreams.upstream import (
    SOURCE_PREFIX,
    LocalSession,
    LocalSessions,
    SessionsLookedUp,
    SessionsUnavailable,
    UpstreamSession,
    UpstreamSessionEnd,
    dump_session_end,
)
from notifier.features.upstreams.upstream_intake import UpstreamIntake, read_again
from notifier.messages.message_planner import MessagePlanner
from notifier.messages.replacements import Replacement
from notifier.model.client import Client
from notifier.model.documents.dead_letter import DeadLetter, load_dead_letter
from notifier.model.documents.sourced import to_received, to_sourced
from notifier.model.message import DEAD, Kind, Lane, Message
from notifier.model.outcome import DeadReason
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmission, ReplayRules, readmit
from tests.delivery.worker_harness import ISS

NOW = 1_800_000_000.0
DEFAULTS = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False)
TWO = (LocalSession(sub="alice", sid="l1", clients=("shop",)), LocalSession(sub="alice", sid="l2", clients="*"))


class Place:
    """A resolver with these sessions, or unavailable. A message passes it as it passes a worker and the queue."""

    def __init__(self, answer: LocalSessions | SessionsUnavailable | None) -> None:
        self.answer = answer
        self.now = NOW
        self.facts: list[Fact] = []
        self.registry = Registry(unregistered=DEFAULTS)
        upstreams = UpstreamIntake(
            self.find, lambda: self.registry, clock=lambda: self.now, new_id=lambda: "new", observe=self.facts.append
        )
        self.intake = MessagePlanner(
            lambda: self.registry,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            new_id=lambda: "new",
            max_event=4096,
            readers={"upstream": upstreams},
        )

    def find(self, upstream: str) -> "Place | None":
        assert upstream == "op"
        return None if self.answer is None else self

    async def look_up(self, upstream_session: UpstreamSession) -> LocalSessions | SessionsUnavailable:
        assert upstream_session.iss == "https://op.example.com"
        assert self.answer is not None
        return self.answer

    async def sends(self, message: Message) -> list[OutgoingMessage]:
        """What must be durable in place of the message."""
        move = self.intake.plan(message)
        assert isinstance(move, Replacement)
        return list(move.messages if move.make_messages is None else await move.make_messages())

    def results(self) -> list[str]:
        return [fact.result for fact in self.facts if isinstance(fact, SessionsLookedUp)]


def came(sid: str | None = "raw-sid", body: bytes | None = None, delivery_count: int = 0) -> Message:
    """The message as a worker takes it from the queue."""
    question = UpstreamSession(iss="https://op.example.com", sub="raw-sub", sid=sid)
    ending = UpstreamSessionEnd(upstream="op", upstream_session=question, id="e1", ended_at=NOW - 5)
    posted = Message(
        lane=Lane.EVENTS, body=dump_session_end(ending) if body is None else body, tag=None, timestamp=NOW,
        user_id="op", source=f"{SOURCE_PREFIX}op", content_type="application/json",
    )  # fmt: skip
    return queued(OutgoingMessage(message=to_sourced(posted, "m1")), delivery_count)


def queued(send: OutgoingMessage, delivery_count: int = 0) -> Message:
    """Return the sent message as the queue redelivers it."""
    out = send.message
    return Message(
        lane=Lane.EVENTS, body=out.body, tag="t", kind=Kind(out.kind), headers=out.headers, message_id=out.message_id,
        content_type=out.content_type, delivery_count=delivery_count,
    )  # fmt: skip


def dead_letter_of(send: OutgoingMessage) -> DeadLetter:
    assert send.queue == DEAD
    return load_dead_letter(queued(send))


async def test_each_session_becomes_an_event_with_a_stable_id() -> None:
    """So after a kill between two of them, others recognise the copies."""
    place = Place(LocalSessions(iss=ISS, sessions=TWO))
    sends = await place.sends(came())
    events = [json.loads(send.message.body)["event"] for send in sends]
    assert [(each["sid"], each["clients"], each["publisher"]) for each in events] == [
        ("l1", [{"client_id": "shop"}], "op"),
        ("l2", "*", "op"),
    ]
    assert {(send.queue, send.due, send.message.kind) for send in sends} == {(Lane.EVENTS, None, Kind.EVENT)}
    again = [json.loads(send.message.body)["event"]["id"] for send in await place.sends(came(delivery_count=1))]
    assert again == [each["id"] for each in events]
    assert len(set(again)) == 2
    assert [send.fact is None for send in sends] == [True, False]


async def test_events_of_a_suspect_message_are_delayed() -> None:
    """They may be what kills the process."""
    sends = await Place(LocalSessions(iss=ISS, sessions=TWO)).sends(came(delivery_count=3))
    assert all(send.due is not None and send.due > NOW for send in sends)


async def test_an_end_without_local_sessions_is_counted() -> None:
    """Nothing is written."""
    place = Place(LocalSessions(iss=ISS, sessions=()))
    assert await place.sends(came()) == []
    assert place.results() == ["no_session"]
    assert await place.sends(came(sid=None)) == []
    texts = [fact.text for fact in place.facts if isinstance(fact, SessionsLookedUp)]
    assert texts == ["none has the sub and sid of the token", "none has the sub of the token"]


async def test_unavailable_lookup_backs_off_then_dead_letters() -> None:
    """For a day. A replay repeats the look-up, for a day."""
    place = Place(SessionsUnavailable(text="connection refused"))
    message, waits = came(), []
    while True:
        [send] = await place.sends(message)
        if send.queue == DEAD:
            break
        assert send.due is not None
        assert isinstance(send.fact, SessionsLookedUp)
        waits.append(send.due - place.now)
        place.now, message = send.due, queued(send)
    assert waits[:4] == sorted(waits[:4])
    assert 86_400 <= place.now - NOW <= 86_400 + 600
    dead = dead_letter_of(send)
    assert (dead.reason, dead.source, place.results()) == (DeadReason.UNRESOLVED, "upstream/op", ["given_up"])
    assert "connection refused" in dead.text
    back = readmit(dead, rules(place.registry), place.now)
    assert isinstance(back, Readmission)
    replayed = queued(OutgoingMessage(message=back.outgoing))
    assert to_received(replayed).body == to_received(came()).body
    [send] = await place.sends(replayed)
    assert send.due is not None
    assert send.due < place.now + 10


def rules(registry: Registry | None, *, end_newer_sessions: bool = False) -> ReplayRules:
    return ReplayRules(
        registry=registry, new_id=lambda: "new", max_event=4096, end_newer_sessions=end_newer_sessions,
        readers={"upstream": read_again},
    )  # fmt: skip


async def test_a_token_without_sid_is_looked_up_for_a_short_time() -> None:
    """All sessions of the user would end, also newer ones (B13). A replay needs the operator's permission."""
    place = Place(SessionsUnavailable(text="away"))
    place.now = NOW + 599
    [send] = await place.sends(came(sid=None))
    assert send.due is not None
    place.now = NOW + 601
    [send] = await place.sends(came(sid=None))
    kept = readmit(dead_letter_of(send), rules(place.registry), place.now)
    assert isinstance(kept, KeptDeadLetter)
    assert kept.reason is KeepReason.STALE
    allowed = rules(None, end_newer_sessions=True)
    assert isinstance(readmit(dead_letter_of(send), allowed, place.now), Readmission)


async def test_an_upstream_that_only_another_worker_has_is_waited_for() -> None:
    """As during an update that adds it. Each worker counts its failed look-ups separately."""
    new, old = Place(SessionsUnavailable(text="away")), Place(None)
    message, waits = came(), list[float]()
    for place in (*[new] * 9, old, new, old, old):
        [send] = await place.sends(message)
        assert send.due is not None
        waits.append(send.due - place.now)
        message = queued(send)
    assert waits[-4:] == [2, 256, 2, 4]
    new.answer = LocalSessions(iss=ISS, sessions=TWO)
    assert len(await new.sends(message)) == 2


async def test_removed_upstreams_and_broken_messages_are_dead_letters() -> None:
    """The first after `registry.grace`. It can be replayed once it is configured again."""
    place, message, waits = Place(None), came(), list[float]()
    while (send := (await place.sends(message))[0]).queue != DEAD:
        assert send.due is not None
        assert isinstance(send.fact, Deferred)
        waits.append(send.due - place.now)
        message = queued(send)
    assert waits == [2, 4, 8, 16, 32, 64, 128, 32]
    assert "add upstreams.op, then replay" in dead_letter_of(send).text
    assert isinstance(readmit(dead_letter_of(send), rules(None), NOW), Readmission)
    for body in (b"", b"[]", b'{"id": 1}'):
        [send] = await Place(SessionsUnavailable(text="away")).sends(came(body=body))
        assert dead_letter_of(send).reason is DeadReason.MALFORMED_EVENT
        kept = readmit(dead_letter_of(send), rules(None), NOW)
        assert isinstance(kept, KeptDeadLetter)
        assert kept.reason is KeepReason.MALFORMED


async def test_a_message_at_the_delivery_limit_is_dead_lettered_unread() -> None:
    """As any other: to read it may be what kills the process."""
    move = Place(None).intake.plan(copy_record(came(), delivery_count=99))
    assert isinstance(move, Replacement)
    assert move.make_messages is None
    assert [dead_letter_of(send).reason for send in move.messages] == [DeadReason.DELIVERY_LIMIT]

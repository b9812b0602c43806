"""The published events of a spool: their ages count from the receipt, at the workers and at a replay."""

from notifier.features.upstreams.upstream import LocalSession, UpstreamSession, UpstreamSessionEnd, to_local_event
from notifier.messages.message_planner import make_deliveries
from notifier.model.ages import is_too_old
from notifier.model.client import Client, RetryPolicy
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import dead_letter_event
from notifier.model.documents.documents import load_event
from notifier.model.documents.sourced import to_received, to_sourced
from notifier.model.message import Kind, Lane, Message
from notifier.model.outcome import DeadReason
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.model.session_ended import SessionEnded
from notifier.operators.deliveries.readmission import KeepReason, KeptDeadLetter, Readmission, ReplayRules, readmit
from tests.features.spool.sign_outs import NOW, dumped, entry, event, line, sourced

SHOP = Client(
    iss=event().iss, client_id="shop", backchannel_logout_uri="https://shop.example.com/bcl",
    retry=RetryPolicy(max_age=3600.0, sub_only_max_age=600.0),
)  # fmt: skip


def planned(of: SessionEnded) -> Delivery:
    """The only delivery of an event."""
    registry = Registry(issuers={}, clients={SHOP.iss: {"shop": SHOP}})
    [delivery] = make_deliveries(of, registry, NOW)
    assert isinstance(delivery, Delivery)
    return delivery


def test_the_age_of_a_delivery_counts_from_the_receipt() -> None:
    """So an hour in the spool counts as an hour; without one it begins with the first worker."""
    published = load_event(entry(line(sid=None)).to_draft().body).event
    delivery = planned(published)
    assert (is_too_old(delivery, SHOP, NOW + 599), is_too_old(delivery, SHOP, NOW + 601)) == (False, True)
    assert planned(event()).progress.first_taken_at is None


def test_the_events_of_an_upstream_have_the_receipt_of_its_token() -> None:
    """The look-up of the sessions takes it from the message."""
    draft = entry(dumped(sourced(), "x1", "partner")).to_draft()
    assert (draft.kind, f'"received_at":{NOW}' in draft.headers["received"]) == (Kind.SOURCED, True)
    ended = UpstreamSessionEnd(
        upstream="partner", upstream_session=UpstreamSession(iss="https://op", sub="a", sid=None), id="x1", ended_at=NOW
    )
    local = to_local_event(ended, SHOP.iss, LocalSession(sub="a", sid=None, clients="*"), NOW)
    assert local.received_at == NOW


def replayed(of: SessionEnded, age: float, *, end_newer_sessions: bool = False) -> Readmission | KeptDeadLetter:
    """Replay the dead letter of an event."""
    letter = dead_letter_event(of, DeadReason.EXPIRED, "kept in the spool", NOW)
    rules = ReplayRules(registry=None, new_id=str, max_event=1000, end_newer_sessions=end_newer_sessions)
    return readmit(letter, rules, NOW + age)


def test_a_replay_ends_no_newer_session_unless_that_is_requested() -> None:
    """Of an event without `sid`. A replayed event begins a new age."""
    late = replayed(copy_record(event(sid=None), received_at=NOW), 601)
    assert isinstance(late, KeptDeadLetter)
    assert late.reason is KeepReason.STALE
    for again in (
        replayed(copy_record(event(sid=None), received_at=NOW), 599),
        replayed(copy_record(event(sid=None), received_at=NOW), 601, end_newer_sessions=True),
        replayed(copy_record(event(), received_at=NOW), 90_000),
        replayed(event(sid=None), 90_000),  # which no spool had
    ):
        assert isinstance(again, Readmission)
        assert load_event(again.outgoing.body).event.received_at is None


def test_a_message_keeps_its_receipt_while_it_is_postponed() -> None:
    """A worker that does not know its source writes it again."""
    draft = entry(dumped(sourced(b"{}", "shop"), "x1", "source/shop")).to_draft()
    taken = Message(lane=Lane.EVENTS, body=draft.body, tag=None, kind=draft.kind, headers=draft.headers)
    again = to_sourced(to_received(taken), "m2")
    assert f'"received_at":{NOW}' in again.headers["received"]

"""What the pipeline does for the channel of a feature: skipped sessions, the time of the event, the user's e-mail."""

from dataclasses import replace
from typing import Any

import pytest

from notifier.delivery.facts import Attempted, Skipped, notice_of
from notifier.messages.event_clients import count_notices, split_event
from notifier.messages.message_planner import make_deliveries
from notifier.model.client import Client
from notifier.model.client_channel import ClientChannel
from notifier.model.delivery import Delivery
from notifier.model.logout_token import has_session
from notifier.model.notice import DeliveryResult, SkipReason
from notifier.model.registry import Issuer, Registry
from notifier.model.session_ended import ClientEntry, SessionEnded
from tests.delivery.worker_harness import ISS, WorkerHarness, answers, client, running

ALL = ClientChannel(kind="back_channel", uri="https://all.example.com/", member="notifier.channel.x.uri", ends_all=True)
ONE = replace(ALL, ends_all=False, names_session=True)


def registered(**changes: Any) -> Registry:
    """Return a registry with three clients: logout tokens, a channel for whole users, and one for sessions."""
    clients = [client("shop"), replace(client("all"), channel=ALL), replace(client("one"), channel=ONE)]
    by_id = {each.client_id: each for each in clients}
    return Registry(issuers={ISS: Issuer(iss=ISS)}, clients={ISS: by_id}, **changes)


def ended(*clients: Any, sid: str | None = "s1", **members: Any) -> SessionEnded:
    """Return an event; without clients for all."""
    return SessionEnded(id="e", id_given=True, iss=ISS, sub="alice", sid=sid, clients=clients or "*", **members)


def plan(event: SessionEnded, registry: Registry) -> tuple[list[str], list[str]]:
    """Return the clients with a delivery, and the clients skipped for `session_only`."""
    parts = split_event(event, registry, 0.0) if event.clients == "*" else [event]
    steps = [step for part in parts for step in make_deliveries(part, registry, 0.0)]
    assert count_notices(event, registry, 0.0) == len(steps)
    skipped = [step for step in steps if isinstance(step, Skipped)]
    assert all(step.reason is SkipReason.SESSION_ONLY for step in skipped)
    return [step.client_id for step in steps if isinstance(step, Delivery)], [step.client_id for step in skipped]


@pytest.mark.parametrize("clients", [("shop", "all", "one"), ()])
def test_ended_session_skips_channels_that_end_all(clients: tuple[str, ...]) -> None:
    """By name and by `"*"`. The end of all sessions reaches every client. Each notice is counted."""
    assert plan(ended(*clients), registered()) == (["shop", "one"], ["all"])
    assert plan(ended(*clients, sid=None), registered()) == (["shop", "all", "one"], [])


def test_entry_has_the_session() -> None:
    """Its own `sid` skips the client as well."""
    assert plan(ended(ClientEntry(client_id="all", sid="s9"), sid=None), registered()) == ([], ["all"])


def test_address_of_an_event_changes_nothing() -> None:
    """Neither the address nor that the client is skipped."""
    entry = ClientEntry(client_id="all", backchannel_logout_uri="https://evil.example.com/")
    registry = registered(inline="allow")
    assert plan(ended(entry), registry) == ([], ["all"])
    [step] = make_deliveries(ended(entry, sid=None), registry, 0.0)
    assert isinstance(step, Delivery)
    found = registry.client_of(step)
    assert found is not None
    assert found.logout_uri == ALL.uri


def test_skipped_client_has_a_notice() -> None:
    """With the reason, for the publisher and the feed."""
    fact = Skipped(iss=ISS, client_id="all", event_id="e", reason=SkipReason.SESSION_ONLY)
    notice = notice_of(fact)
    assert notice is not None
    assert (notice.fate, notice.reason) == (DeliveryResult.SKIPPED, "session_only")


@pytest.mark.parametrize(("channel", "sid", "named"), [(ONE, "s1", True), (ONE, None, False), (ALL, "s1", False)])
def test_request_names_the_session(channel: ClientChannel, sid: str | None, *, named: bool) -> None:
    """Otherwise it ends newer sessions, too, and has the shorter age limit."""
    to = Client(iss=ISS, client_id="x", backchannel_logout_uri=None, channel=channel)
    delivery = Delivery(id="d", event_id="e", id_given=True, iss=ISS, client_id="x", sub="alice", sid=sid)
    assert has_session(delivery, to) is named


@pytest.mark.parametrize(
    ("inline", "publishers", "vouched", "email"),
    [
        ("publishers", None, False, None),
        ("publishers", frozenset({"idp"}), False, "a@example.com"),
        ("publishers", frozenset({"other"}), False, None),
        ("publishers", None, True, "a@example.com"),
        ("allow", None, False, "a@example.com"),
        ("deny", frozenset({"idp"}), False, None),
    ],
)
def test_email_counts_from_publishers_whose_addresses_count(
    inline: Any, publishers: Any, email: str | None, *, vouched: bool
) -> None:
    """Anybody else could revoke any user by e-mail address."""
    registry = replace(registered(inline=inline), issuers={ISS: Issuer(iss=ISS, publishers=publishers)})
    event = ended("one", email="a@example.com", publisher="idp", vouched=vouched)
    [step] = make_deliveries(event, registry, 0.0)
    assert isinstance(step, Delivery)
    assert step.email == email


async def test_time_of_the_first_take_does_not_change() -> None:
    """From the first attempt on, so that a request may contain it."""
    to = replace(client("shop"), channel=replace(ONE, uri="https://shop.example.com/"))
    async with running(WorkerHarness(to)) as harness:
        harness.receivers.behaviours["shop"] = answers(503)
        began_at = harness.now
        await harness.acked(harness.event("shop"))
        [first] = [fact for fact in harness.facts if isinstance(fact, Attempted)]
        assert first.delivery.progress.first_taken_at == began_at

"""The plan of an event: deliveries, skipped clients, parts; and the publishers' permissions."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.facts import IgnoredOverrides, Skipped
from notifier.messages.event_clients import (
    PART_CLIENTS,
    add_followers,
    count_notices,
    find_ignored_overrides,
    find_publisher_objection,
    split_event,
)
from notifier.messages.message_planner import make_deliveries
from notifier.model.client import Algorithm, Client
from notifier.model.client_channel import ClientChannel
from notifier.model.delivery import ClientOverrides, Delivery
from notifier.model.outcome import DeadReason
from notifier.model.registry import Followers, Issuer, Registry
from notifier.model.session_ended import ClientEntry, SessionEnded

A, B = "https://a.example.com", "https://b.example.com"
URI = "https://rp.example.com/bcl"
NOW = 1000.0  # by the monotonic clock


def registry(count: int = 3, **changes: Any) -> Registry:
    """Clients c0 … of issuer A, and `silent`, which has no URI; issuer B has c0 alone."""
    of_a = {f"c{n}": Client(iss=A, client_id=f"c{n}", backchannel_logout_uri=URI) for n in range(count)}
    of_a["silent"] = Client(iss=A, client_id="silent", backchannel_logout_uri=None)
    of_b = {"c0": Client(iss=B, client_id="c0", backchannel_logout_uri=URI)}
    return Registry(clients={A: of_a, B: of_b}, **({"inline": "allow"} | changes))


def event(*clients: ClientEntry | str, **changes: Any) -> SessionEnded:
    plain = SessionEnded(id="e-1", id_given=True, iss=A, sub="ann", sid="s-1", clients=clients)
    return replace(plain, **changes)


def plan(of: SessionEnded, by: Registry | None = None) -> list[Delivery | Skipped]:
    by = by or registry()
    parts = split_event(of, by, NOW) if of.clients == "*" else [of]
    return [step for part in parts for step in make_deliveries(part, by, NOW)]


def planned(of: SessionEnded, by: Registry | None = None) -> list[Delivery]:
    return [step for step in plan(of, by) if isinstance(step, Delivery)]


def test_each_client_gets_one_delivery_with_the_events_members() -> None:
    """The event's members are copied into the delivery; those of the registry are not."""
    reported = event(
        "c0", ended_at=1.0, not_after=2.0, reason="r", source="/s", publisher="idp", claimed_publisher="app"
    )
    (delivery,) = planned(reported)
    assert delivery == Delivery(
        id=delivery.id,
        event_id="e-1",
        id_given=True,
        iss=A,
        client_id="c0",
        sub="ann",
        sid="s-1",
        ended_at=1.0,
        not_after=2.0,
        reason="r",
        source="/s",
        publisher="idp",
        claimed_publisher="app",
    )


def test_entry_overrides_sub_and_sid() -> None:
    """Pairwise subjects: the entry's before the event's, and marked as such."""
    own_sub, own_sid, plain = planned(
        event(ClientEntry(client_id="c0", sub="x"), ClientEntry(client_id="c1", sid="y"), "c2")
    )
    assert (own_sub.sub, own_sub.sid, own_sub.entry_sub) == ("x", "s-1", True)
    assert (own_sid.sub, own_sid.sid, own_sid.entry_sub) == ("ann", "y", False)
    assert (plain.sub, plain.sid, plain.entry_sub) == ("ann", "s-1", False)


def test_only_inline_members_are_stored_in_the_delivery() -> None:
    """An entry that gives nothing makes no `ClientOverrides`."""
    given_uri, given_flag, plain = planned(
        event(
            ClientEntry(client_id="c0", backchannel_logout_uri=URI),
            ClientEntry(client_id="c1", backchannel_logout_session_required=False),
            "c2",
        )
    )
    assert given_uri.inline == ClientOverrides(backchannel_logout_uri=URI)
    assert given_flag.inline == ClientOverrides(backchannel_logout_session_required=False)
    assert plain.inline is None


def test_entry_that_repeats_its_registration_is_a_duplicate() -> None:
    """Of the name alone, in any order, and in other parts of the event. Another address or session is not."""
    same = ClientEntry(client_id="c0", backchannel_logout_uri=URI, backchannel_logout_session_required=False)
    fillers = [f"x{nth}" for nth in range(2 * PART_CLIENTS)]
    orders: list[list[ClientEntry | str]] = [[same, "c0"], ["c0", same], [same, *fillers, "c0"], ["c0", *fillers, same]]
    for entries in orders:
        parts = [*split_event(event(*entries), registry(), NOW)] if len(entries) > 2 else [event(*entries)]
        steps = [step for part in parts for step in planned(part)]
        assert [step.client_id for step in steps if step.client_id == "c0"] == ["c0"]
        assert count_notices(event(*entries), registry(), NOW) == len(steps)
    for other in ({"backchannel_logout_uri": f"{URI}/2"}, {"backchannel_logout_session_required": True}, {"sid": "2"}):
        assert len(planned(event(replace(same, **other), "c0"))) == 2
    (kept,) = planned(event(same, "c0"))
    assert kept.inline == same.overrides


def test_address_of_an_event_makes_no_second_delivery_to_a_channel() -> None:
    """It does not count there. Of a follower neither, which its leader's entry notifies."""
    channel = ClientChannel(kind="security_event", uri=URI, member="notifier.channel.security_event.uri")
    by = registry()
    c0 = replace(by.clients_of(A)["c0"], channel=channel)
    by = replace(by, clients={A: {**by.clients_of(A), "c0": c0}})
    entry = ClientEntry(client_id="c0", backchannel_logout_uri="https://other.example.com/bcl")
    for of in (event(entry, "c0"), event("c0", entry)):
        assert (len(planned(of, by)), count_notices(of, by, NOW)) == (1, 1)
    led = replace(by, followers={A: Followers(of={"c1": ("c0",)}, leaders={"c0": "c1"})})
    for of in (event(entry, "c1"), event("c1", entry)):
        whole = add_followers(of, led)
        assert sorted(step.client_id for step in planned(whole, led)) == ["c0", "c1"]
        assert count_notices(whole, led, NOW) == 2


def test_a_registered_client_without_uri_is_skipped() -> None:
    """Unless the event brings a URI, and may."""
    inline = event(ClientEntry(client_id="silent", backchannel_logout_uri=URI))
    assert plan(event("silent")) == [Skipped(iss=A, client_id="silent", event_id="e-1")]
    assert [step.client_id for step in planned(inline)] == ["silent"]
    assert plan(inline, registry(inline="deny")) == [Skipped(iss=A, client_id="silent", event_id="e-1")]


def test_a_client_without_an_address_is_skipped_unless_it_is_registered() -> None:
    """By the event's own word, also where no address of an event counts."""
    none = ClientEntry(client_id="who", no_address=True)
    for by in (registry(), registry(inline="deny"), Registry()):
        assert plan(event(none), by) == [Skipped(iss=A, client_id="who", event_id="e-1")]
        assert count_notices(event(none), by, NOW) == 1
    known, bare = replace(none, client_id="c0"), "c0"
    for by in (registry(), registry(inline="deny")):
        (step,), (other,) = planned(event(known), by), planned(event(bare), by)
        assert step.id == other.id  # it is not another logout


def test_client_that_lost_its_address_recently_is_unknown() -> None:
    """Registered without one, or removed, whatever the event contains; by name, by `"*"`, and in the count of fates."""
    moments = {A: {"silent": NOW - 299.0, "who": NOW - 299.0}}
    none = [ClientEntry(client_id=name, no_address=True) for name in ("silent", "who")]
    for of in (event("silent", "who"), event(*none)):
        assert [step.client_id for step in planned(of, registry(lost_at=moments))] == ["silent", "who"]
        assert count_notices(of, registry(lost_at=moments), NOW) == 2
    for grace, names in ((300.0, ["c0", "c1", "c2", "silent", "who"]), (299.0, ["c0", "c1", "c2"])):
        by = registry(lost_at=moments, grace=grace)
        assert [step.client_id for step in planned(event(clients="*"), by)] == names
        assert count_notices(event(clients="*"), by, NOW) == len(names)
    assert plan(event(none[1]), registry(lost_at=moments, grace=299.0)) == [
        Skipped(iss=A, client_id="who", event_id="e-1")
    ]


@pytest.mark.parametrize("vouched", [False, True])
def test_recently_accepted_address_of_an_event_is_kept(*, vouched: bool) -> None:
    """A client that has no other is unknown then. The id is as before, and the address counts again when it may."""
    override = ClientEntry(client_id="silent", backchannel_logout_uri=URI)
    of = event("silent", override, publisher="idp", vouched=vouched)
    before = registry(issuers={A: IDP} if not vouched else {A: Issuer(iss=A)}, inline="publishers")
    denied = replace(before, inline="deny", narrowed_at=NOW - 299.0)
    skipped, kept = plan(of, denied)
    assert (skipped, count_notices(of, denied, NOW)) == (Skipped(iss=A, client_id="silent", event_id="e-1"), 2)
    assert isinstance(kept, Delivery)
    assert kept.id == planned(of, before)[0].id
    assert kept.inline is None
    assert (of_deny := denied.client_of(kept)) is not None
    assert of_deny.logout_uri is None
    assert (again := before.client_of(kept)) is not None
    assert again.logout_uri == URI
    assert planned(of, replace(denied, narrowed_at=NOW - 300.0)) == []


def test_an_unknown_client_gets_its_delivery() -> None:
    """It may become known while the delivery waits."""
    assert [step.client_id for step in planned(event("who"))] == ["who"]


def test_repeated_client_is_notified_once() -> None:
    """It gets two deliveries only for two sessions."""
    other = ClientEntry(client_id="c0", sid="s-2")
    assert [step.sid for step in planned(event("c0", "c1", "c0", other, other))] == ["s-1", "s-1", "s-2"]


@pytest.mark.parametrize(
    "more",
    [
        {"backchannel_logout_uri": f"{URI}?other"},
        {"backchannel_logout_session_required": True},
        {"id_token_signed_response_alg": Algorithm.ES256},
    ],
)
def test_entries_with_different_members_are_separate_deliveries(more: dict[str, Any]) -> None:
    """Each delivery has a distinct id, so that neither is taken for a copy of the other."""
    entry = ClientEntry(client_id="c0", backchannel_logout_uri=f"{URI}?one")
    both = event("c0", entry, replace(entry, **more), replace(entry, **more))
    reported = planned(both)
    assert [step.inline for step in reported] == [None, planned(event(entry))[0].inline, reported[2].inline]
    assert len({step.id for step in reported}) == count_notices(both, registry(), NOW) == 3


def test_denied_inline_members_make_no_separate_delivery() -> None:
    """Ignored members distinguish nothing: the id is that of an entry without them."""
    deny = registry(inline="deny")
    both = event(*(ClientEntry(client_id="c0", backchannel_logout_uri=f"{URI}?{n}") for n in range(2)))
    assert [step.id for step in planned(both, deny)] == [planned(event("c0"))[0].id]
    assert count_notices(both, deny, NOW) == 1


IDP = Issuer(iss=A, publishers=frozenset({"idp"}))


@pytest.mark.parametrize(
    ("inline", "issuer", "speaker", "counts"),
    [
        ("publishers", Issuer(iss=A), {"publisher": "idp"}, False),  # a name alone proves nothing: anybody may publish
        ("publishers", Issuer(iss=A), {}, False),
        ("publishers", IDP, {"publisher": "idp"}, True),
        ("publishers", IDP, {"publisher": "app"}, False),
        ("publishers", IDP, {}, False),
        ("publishers", Issuer(iss=B, publishers=frozenset({"idp"})), {"publisher": "idp"}, False),
        ("publishers", Issuer(iss=A), {"vouched": True}, True),
        ("allow", Issuer(iss=A), {}, True),
        ("deny", IDP, {"publisher": "idp", "vouched": True}, False),
    ],
)
def test_an_address_of_an_event_counts_from_the_identity_server(
    inline: str, issuer: Issuer, speaker: dict[str, Any], *, counts: bool
) -> None:
    """Known by the issuer's publishers, or by what vouches for the event. Else it is kept, and counts for nothing."""
    by = registry(inline=inline, issuers={issuer.iss: issuer})
    (delivery,) = planned(event(ClientEntry(client_id="new", backchannel_logout_uri=URI), **speaker), by)
    override = ClientOverrides(backchannel_logout_uri=URI)
    ignored = replace(override, vouched="vouched" in speaker)
    assert (delivery.inline, delivery.ignored) == ((override, None) if counts else (None, ignored))


def test_ignored_members_of_registered_clients_are_reported_once() -> None:
    """By client and member, the first few; not what is registered just so, nor of unknown clients."""
    override = ClientEntry(client_id="c0", backchannel_logout_uri="https://evil.example.com/", sid="s-2")
    agrees = ClientEntry(client_id="c1", backchannel_logout_uri=URI, id_token_signed_response_alg=Algorithm.RS256)
    other = ClientEntry(
        client_id="c2", backchannel_logout_session_required=True, id_token_signed_response_alg=Algorithm.ES256
    )
    new, silent = replace(override, client_id="new"), replace(override, client_id="silent")
    by = registry(inline="publishers")
    found = find_ignored_overrides(event(override, override, agrees, "c1", other, new, silent, publisher="app"), by)
    assert found == IgnoredOverrides(
        iss=A, event_id="e-1", publisher="app", clients=3, denied=False,
        members={
            "c0": ["backchannel_logout_uri"],
            "c2": ["backchannel_logout_session_required", "id_token_signed_response_alg"],
            "silent": ["backchannel_logout_uri"],
        },
    )  # fmt: skip
    many = find_ignored_overrides(
        event(*(replace(override, client_id=f"c{n}") for n in range(80))), registry(80, inline="deny")
    )
    assert many is not None
    assert (many.clients, len(many.members), many.denied) == (80, 5, True)
    for of in (event(agrees, new, "c0"), event(clients="*")):
        assert find_ignored_overrides(of, by) is None
    assert find_ignored_overrides(event(override), registry(inline="allow")) is None


def test_inline_rule_applies_when_the_event_is_planned() -> None:
    """A deferred or replayed delivery keeps its address, unless addresses have been denied since."""
    template = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False)
    by = registry(unregistered=template)
    (delivery,) = planned(event(ClientEntry(client_id="new", backchannel_logout_uri=URI)), by)
    client = replace(by, inline="publishers").client_of(delivery)
    assert client is not None
    assert client.backchannel_logout_uri == URI
    assert replace(by, inline="deny").client_of(delivery) is None


_ENTRIES = st.builds(
    ClientEntry,
    client_id=st.sampled_from(["c0", "silent", "who"]),
    backchannel_logout_uri=st.sampled_from([None, URI, f"{URI}?other"]),
    backchannel_logout_session_required=st.sampled_from([None, False]),
    sid=st.sampled_from([None, "s-2"]),
)


@given(
    st.lists(_ENTRIES | st.sampled_from(["c0", "c1", "c2"]), max_size=12),
    st.sampled_from(["allow", "publishers", "deny"]),
)
def test_announced_results_equal_reported_results(entries: list[ClientEntry | str], inline: str) -> None:
    """One for each delivery, known by its id, and for each skipped client: the caller that waits gets all."""
    by, of = registry(inline=inline), event(*entries)
    steps = plan(of, by)
    ids = [step.id for step in steps if isinstance(step, Delivery)]
    assert len(ids) == len(set(ids))
    skipped = {step.client_id for step in steps if isinstance(step, Skipped)}
    assert count_notices(of, by, NOW) == len(ids) + len(skipped)


def test_a_star_names_the_registered_clients_of_that_issuer_that_have_a_uri() -> None:
    """Never another issuer's."""
    assert [step.client_id for step in planned(event(clients="*"))] == ["c0", "c1", "c2"]
    assert [(step.iss, step.client_id) for step in planned(event(clients="*", iss=B))] == [(B, "c0")]
    assert plan(event(clients="*", iss="https://c.example.com")) == []


@given(st.lists(st.integers(0, 300), max_size=400), st.booleans())
def test_splitting_keeps_every_client_exactly_once(numbers: list[int], given_id: bool) -> None:
    """Parts have at most 100 clients, keep all else of the event, and plan the same deliveries."""
    whole = event(*(f"c{n}" for n in numbers), id_given=given_id, ended_at=5.0, publisher="idp", source="/s", type="t")
    parts = list(split_event(whole, registry(), NOW))
    assert all(1 <= len(part.clients) <= PART_CLIENTS for part in parts)
    assert {replace(part, clients=()) for part in parts} <= {replace(whole, clients=())}
    spread = [step.id for part in parts for step in planned(part)]
    assert spread == [step.id for step in planned(whole)]
    assert len(spread) == len(set(spread)) == len(set(numbers))


def test_splitting_a_star_names_every_client_once() -> None:
    """Each part names its clients, so that a reload in between neither doubles nor loses one."""
    parts = list(split_event(event(clients="*"), registry(250), NOW))
    assert [len(part.clients) for part in parts] == [100, 100, 50]
    assert [step.client_id for part in parts for step in planned(part)] == [f"c{n}" for n in range(250)]


@pytest.mark.parametrize(
    "other", [{"iss": B}, {"publisher": "other"}, {"source": "/other"}, {"id": "e-2"}, {"sid": None}, {"sub": "bob"}]
)
def test_different_events_never_share_a_delivery_id(other: dict[str, Any]) -> None:
    """Ids are only their publisher's to give: two issuers, publishers or sources may use the same."""
    one = event("c0", publisher="idp", source="/s")
    ids = [planned(each)[0].id for each in (one, replace(one, **other), one)]
    assert ids[0] == ids[2] != ids[1]


def test_only_listed_publishers_may_publish_for_an_issuer() -> None:
    """Who merely claims a name, or has none, may not."""
    issuer = Issuer(iss=A, publishers=frozenset({"idp"}))
    assert find_publisher_objection(event("c0", publisher="idp"), issuer) is None
    assert find_publisher_objection(event("c0", publisher=None), Issuer(iss=A)) is None
    for stranger in (event("c0", publisher="x"), event("c0", claimed_publisher="idp")):
        objection = find_publisher_objection(stranger, issuer)
        assert objection is not None
        assert objection[0] is DeadReason.PUBLISHER_NOT_ALLOWED


def test_event_types_select_cloudevents() -> None:
    """Bare JSON has no type and is always meant."""
    issuer = Issuer(iss=A, event_types=frozenset({"session.ended"}))
    assert find_publisher_objection(event("c0", type="session.ended"), issuer) is None
    assert find_publisher_objection(event("c0"), issuer) is None
    objection = find_publisher_objection(event("c0", type="session.begun"), issuer)
    assert objection is not None
    assert objection[0] is DeadReason.MALFORMED_EVENT
    assert "'session.begun'" in objection[1]

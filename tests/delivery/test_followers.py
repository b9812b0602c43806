"""The plan of an event whose clients have followers: each address once, in parts too, and the count of notices."""

from dataclasses import replace
from typing import Any

import pytest

from notifier.configuration.clients.registry_checks import keep_followers, record_losses
from notifier.delivery.event_clients import PART_CLIENTS, count_notices, defer_skipped, resolve_entries, split_event
from notifier.delivery.facts import Skipped
from notifier.delivery.intake import make_deliveries
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.documents.documents import EventDocument
from notifier.model.logout_token import build_claims
from notifier.model.registry import ENDLESS_SECONDS, Followers, Issuer, Registry
from notifier.model.session_ended import ClientEntry, SessionEnded
from tests.delivery.test_plan import NOW, URI, A, B, event

OTHER = "https://trap.example.com/bcl"


def client(client_id: str, follows: str | None = None, **changes: Any) -> Client:
    return replace(Client(iss=A, client_id=client_id, backchannel_logout_uri=URI, follows=follows), **changes)


def registry(*clients: Client, leaders: dict[str, str] | None = None, **changes: Any) -> Registry:
    """The clients and their followers. `leaders`: more followers, whose leader is unknown."""
    leaders = {each.client_id: each.follows for each in clients if each.follows is not None} | (leaders or {})
    of = {leader: tuple(name for name, its in leaders.items() if its == leader) for leader in leaders.values()}
    return Registry(
        clients={A: {each.client_id: each for each in clients}}, followers={A: Followers(of=of, leaders=leaders)},
        issuers={A: Issuer(iss=A), B: Issuer(iss=B)}, **({"inline": "allow"} | changes),
    )  # fmt: skip


SHOP = (client("shop"), client("shop-us", "shop"), client("shop-eu", "shop"), client("wiki"))


def plan(of: SessionEnded, by: Registry) -> list[Delivery | Skipped]:
    of = resolve_entries(of, by, NOW)
    parts = split_event(of, by, NOW) if of.clients == "*" or len(of.clients) > PART_CLIENTS else [of]
    planned = [step for part in parts for step in make_deliveries(resolve_entries(part, by, NOW), by, NOW)]
    assert count_notices(of, by, NOW) == len(planned)
    return planned


def names(of: SessionEnded, by: Registry) -> list[str]:
    return [step.client_id for step in plan(of, by)]


def test_leader_spreads_to_its_followers() -> None:
    """By its name, an alias, or `"*"`; a follower's name means its address only."""
    shops = ["shop", "shop-us", "shop-eu"]
    by = registry(*SHOP, aliases={A: {"0815": "shop"}})
    assert [names(event(name), by) for name in ("shop", "0815")] == [shops, shops]
    assert names(event("wiki", "shop"), by) == ["wiki", *shops]
    assert sorted(names(event(clients="*"), by)) == sorted([*shops, "wiki"])
    assert names(event("shop-us"), by) == ["shop-us"]
    assert names(event("shop", iss=B), by) == ["shop"]


def test_each_address_is_notified_once() -> None:
    """Whatever else the event names, also in other parts of it."""
    by = registry(*SHOP)
    shops = ["shop", "shop-eu", "shop-us"]
    assert sorted(names(event("shop-us", "shop"), by)) == shops
    assert sorted(names(event("shop", "shop-us", ClientEntry(client_id="shop-us"), "shop"), by)) == shops
    fillers = tuple(f"c{n}" for n in range(2 * PART_CLIENTS))
    for first, last in ("shop-us", "shop"), ("shop", "shop-us"):
        assert sorted(names(event(first, *fillers, last), by)) == sorted([*shops, *fillers])
    many = [client(f"c{n}") for n in range(150)] + [client(f"c{n}-us", f"c{n}") for n in range(0, 150, 3)]
    assert sorted(names(event(clients="*"), registry(*many))) == sorted(each.client_id for each in many)


def test_entry_gives_a_follower_its_session_and_no_address() -> None:
    """The algorithm is of the leader's address, too."""
    entry = ClientEntry(
        client_id="shop", sub="pair", sid="own", backchannel_logout_uri=OTHER, id_token_signed_response_alg=None,
        no_address=True,
    )  # fmt: skip
    shop, shop_us, shop_eu = plan(event(entry), registry(*SHOP))
    assert isinstance(shop, Delivery)
    assert shop.inline is not None
    for step in (shop_us, shop_eu):
        assert isinstance(step, Delivery)
        assert (step.sub, step.sid, step.entry_sub, step.inline, step.ignored) == ("pair", "own", True, None, None)
    claims = build_claims(replace(shop, client_id="shop-us"), SHOP[1], now=NOW, jti="j")
    assert isinstance(claims, dict)
    assert (claims["aud"], claims["sub"]) == ("shop", "pair")


def test_two_sessions_of_a_client_are_two_deliveries_to_each_address() -> None:
    """A follower that the event names with another session receives both."""
    by = registry(*SHOP)
    sessions = event(ClientEntry(client_id="shop", sid="1"), ClientEntry(client_id="shop", sid="2"))
    assert len({step.id for step in plan(sessions, by) if isinstance(step, Delivery)}) == 6
    assert names(event("shop", ClientEntry(client_id="shop-us", sid="2")), by) == [
        "shop", "shop-us", "shop-eu", "shop-us"
    ]  # fmt: skip


@pytest.mark.parametrize("leader", [client("shop", paused=True), client("shop", backchannel_logout_uri=None)])
def test_follower_of_a_paused_or_silent_leader_is_notified(leader: Client) -> None:
    """The address of the leader does not matter."""
    by = registry(leader, *SHOP[1:])
    notified = [step.client_id for step in plan(event("shop"), by) if isinstance(step, Delivery)]
    assert notified[-2:] == ["shop-us", "shop-eu"]
    assert {"shop-us", "shop-eu"} <= {*names(event(clients="*"), by)}


def test_delivery_to_a_follower_without_a_leader_waits() -> None:
    """Neither an address in an event nor another client replaces the leader, which a source may still list."""
    by = registry(client("wiki"), leaders={"shop-us": "shop"}, unregistered=client(""))
    assert names(event("shop"), by) == ["shop", "shop-us"]
    (_, delivery) = plan(event("shop"), by)
    assert isinstance(delivery, Delivery)
    assert by.client_of(delivery) is None
    (named,) = plan(event(ClientEntry(client_id="shop-us", backchannel_logout_uri=OTHER)), by)
    assert isinstance(named, Delivery)
    assert by.client_of(named) is None
    lost = replace(by, lost_at={A: {"shop": NOW - 1, "shop-us": NOW - 1}})
    assert sorted(names(event(clients="*"), lost)) == ["shop", "shop-us", "wiki"]


def test_all_clients_include_followers_without_a_leader() -> None:
    """Each once, whether its leader is unknown, has just left, or is silent while the follower is left out."""
    lone = {"vpn-us": "vpn", "vpn-eu": "vpn"}
    found = names(event(clients="*"), registry(*SHOP, leaders=lone))
    assert sorted(found) == sorted(["shop", "shop-us", "shop-eu", "wiki", *lone])
    for lost in ({"vpn"}, {"vpn-us"}, {"vpn", *lone}):
        moments = {A: dict.fromkeys(lost, NOW - 1)}
        found = names(event(clients="*"), registry(client("wiki"), leaders=lone, lost_at=moments))
        assert sorted(found) == sorted({"wiki", *lost, *lone})
    silent = client("vpn", backchannel_logout_uri=None)
    assert sorted(names(event(clients="*"), registry(silent, leaders=lone))) == sorted(lone)
    assert names(event(clients="*", iss=B), registry(*SHOP, leaders=lone)) == []


def test_follower_is_deferred_with_a_leader_without_address() -> None:
    """While a source is unread that may have the address. Otherwise the follower would be notified twice."""
    by = registry(client("shop", backchannel_logout_uri=None), *SHOP[1:], grace=ENDLESS_SECONDS)
    ended = event("wiki", "shop")
    steps = list(defer_skipped(EventDocument(event=ended), make_deliveries(ended, by, NOW), by, "is unread", NOW))
    assert [step.client_id for step in steps if isinstance(step, Delivery)] == ["wiki"]
    assert len(steps) == 2


@pytest.mark.parametrize("alive", [(), ("shop",), ("shop-us",)])
def test_follower_that_leaves_the_files_is_planned_by_its_leader(alive: tuple[str, ...]) -> None:
    """For `registry.grace`, as any client that leaves: its delivery waits. Only a new leader is not kept."""
    before = registry(*SHOP[:2], client("wiki"), client("wiki-us", "wiki"))
    files = registry(client("wiki"), *(client(name) for name in alive), leaders={"wiki-eu": "wiki"})
    noted, _ = record_losses(before, files, NOW)
    of_shop = ["shop"] if "shop-us" in alive else ["shop", "shop-us"]
    of_wiki = ["wiki", "wiki-eu", "wiki-us"]
    assert (names(event("shop"), noted), names(event("wiki"), noted)) == (of_shop, of_wiki)
    assert sorted(names(event(clients="*"), noted)) == sorted(["shop", "shop-us", *of_wiki])
    again, _ = record_losses(noted, files, NOW + 299)
    assert again.followers == noted.followers
    assert not again.has_former_followers(NOW + 299)
    assert again.has_former_followers(NOW + 300)
    over = replace(again, followers=keep_followers(again, again, NOW + 300))
    assert (names(event("shop"), over), names(event("wiki"), over)) == (["shop"], ["wiki", "wiki-eu"])
    assert not over.has_former_followers(NOW + 300)
    assert record_losses(noted, before, NOW + 1)[0].followers == before.followers


@pytest.mark.parametrize("leaders", [{"shop": "wiki"}, {"wiki": "shop-us"}])
def test_follower_that_leaves_makes_no_chain(leaders: dict[str, str]) -> None:
    """Its leader follows another client now, or a client follows it."""
    files = registry(client("wiki"), client("shop"), leaders=leaders)
    assert record_losses(registry(*SHOP[:2]), files, NOW)[0].followers == files.followers

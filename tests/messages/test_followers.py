"""The plan of an event whose clients have followers: each address once, in parts too, and the count of notices.

An event may be written by a worker and read by one with another file: `plan` takes the registries of both.
"""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from notifier.configuration.clients.registry_checks import keep_followers, record_losses
from notifier.delivery.facts import DeadLettered, Skipped
from notifier.messages.event_clients import PART_CLIENTS, name_of
from notifier.messages.message_planner import DeliverySteps, MessagePlanner
from notifier.messages.replacements import Replacement
from notifier.model.client import Client
from notifier.model.delivery import Delivery
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.documents.documents import EventDocument, dump_event
from notifier.model.logout_token import build_claims
from notifier.model.message import Kind, Lane, Message
from notifier.model.registry import ENDLESS_SECONDS, Followers, Issuer, Registry
from notifier.model.reply import ReplyTo
from notifier.model.session_ended import ClientEntry, SessionEnded
from tests.messages.test_plan import NOW, URI, A, B, event

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
PLAIN = replace(registry(*(replace(each, follows=None) for each in SHOP)), followers={})
"""The same clients, of which none follows another."""


def to_message(of: SessionEnded) -> Message:
    return Message(lane=Lane.EVENTS, body=dump_event(EventDocument(event=of)), tag=None, kind=Kind.EVENT)


def make_intake(by: Registry) -> MessagePlanner:
    return MessagePlanner(lambda: by, clock=lambda: NOW, monotonic=lambda: NOW, new_id=lambda: "new", max_event=1 << 20)


def read(message: Message, by: Registry, then: Registry) -> list[list[Delivery | Skipped]]:
    """Return the steps of the message, read `by` a registry, and of the messages that it becomes, read by `then`."""
    intake = make_intake(by)
    planned = intake.plan(message)
    steps: list[Any] = [planned]
    if isinstance(planned, DeliverySteps):
        steps = []
        while (step := intake.next_step(message, planned.steps)) is not None:
            steps.append(step)
    sends = [send for step in steps if isinstance(step, Replacement) for send in step.messages]
    found = [[step for step in steps if isinstance(step, Delivery | Skipped)]]
    for send in sends:
        assert not isinstance(send.fact, DeadLettered)
        sent = send.message
        found += read(replace(message, body=sent.body, kind=sent.kind, headers=sent.headers), then, then)
    return [each for each in found if each]


def plan(of: SessionEnded, by: Registry, then: Registry | None = None) -> list[Delivery | Skipped]:
    of = replace(of, reply_to=ReplyTo(to="amq.gen-1"))
    messages = read(to_message(of), by, then or by)
    assert all(len(steps) <= PART_CLIENTS for steps in messages)
    planned = list(itertools.chain.from_iterable(messages))
    assert [step.reply_to and step.reply_to.of for step in planned] == [len(planned)] * len(planned)
    return planned


def names(of: SessionEnded, by: Registry, then: Registry | None = None) -> list[str]:
    return [step.client_id for step in plan(of, by, then)]


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
    """Only the leader waits, while a source is unread that may have its address."""
    clients = client("shop", backchannel_logout_uri=None), *SHOP[1:]
    by = registry(*clients, grace=ENDLESS_SECONDS, incomplete={A: "is unread"})
    own = ClientEntry(client_id="shop-us", sid="own")
    first, later = read(to_message(event("wiki", own, "shop")), by, registry(*SHOP))
    assert [step.client_id for step in first] == ["wiki", "shop-us", "shop-us", "shop-eu"]
    assert [step.client_id for step in later] == ["shop"]


FILLERS = tuple(f"c{number}" for number in range(PART_CLIENTS))


@pytest.mark.parametrize(
    "of",
    [
        event(clients="*"),
        event("shop", *FILLERS, "shop-us", "shop-eu", "wiki"),
        event("shop-us", "shop", "shop-eu", "wiki"),
    ],
)
@pytest.mark.parametrize(("by", "then"), [(registry(*SHOP), PLAIN), (PLAIN, registry(*SHOP))])
def test_change_of_followers_loses_and_repeats_no_address(of: SessionEnded, by: Registry, then: Registry) -> None:
    """While parts of the event are queued, in both directions."""
    addresses = [each for each in names(of, by, then) if each not in FILLERS]
    assert sorted(addresses) == ["shop", "shop-eu", "shop-us", "wiki"]


@pytest.mark.parametrize("fillers", [0, 2 * PART_CLIENTS])
@pytest.mark.parametrize("named", ["0815", ClientEntry(client_id="0815", sid="s2")])
def test_alias_that_the_writer_does_not_know_spreads_to_followers(fillers: int, named: str | ClientEntry) -> None:
    """Its list is not read yet: neither the event nor a part of it becomes a delivery to the leader only."""
    cold = replace(registry(leaders={"shop-us": "shop"}, grace=ENDLESS_SECONDS), incomplete={A: "list"})
    warm = registry(*SHOP[:2], aliases={A: {"0815": "shop"}})
    others = [f"c{nth}" for nth in range(fillers)]
    found = itertools.chain.from_iterable(read(to_message(event(named, *others)), cold, warm))
    assert sorted(step.client_id for step in found) == sorted(["shop", "shop-us", *others])


def test_part_names_the_followers_to_a_reader_without_them() -> None:
    """Whether it has them as clients, or not yet: then their deliveries wait."""
    of = event("shop", *FILLERS)
    for then in PLAIN, replace(PLAIN, clients={A: {"shop": SHOP[0]}}):
        assert names(of, registry(*SHOP), then) == ["shop", "shop-us", "shop-eu", *FILLERS]


def test_message_of_a_leader_with_many_followers_is_split() -> None:
    """So that no message takes long. `plan` checks the size of each."""
    many = [client(f"shop-{number}", "shop") for number in range(10 * PART_CLIENTS)]
    of = event(ClientEntry(client_id="shop", sid="1"), ClientEntry(client_id="shop", sid="2"))
    planned = plan(of, registry(SHOP[0], *many))
    assert len({step.id for step in planned if isinstance(step, Delivery)}) == len(planned) == 2 * (len(many) + 1)


def test_dead_letter_has_the_event_as_published() -> None:
    """A replay, perhaps much later, uses the followers of that time."""
    closed = replace(registry(*SHOP), issuers={A: Issuer(iss=A, publishers=frozenset())})
    for named in ("shop",), ("shop", "shop-us"):
        rejected = make_intake(closed).plan(to_message(event(*named)))
        assert isinstance(rejected, Replacement)
        (send,) = rejected.messages
        letter = load_dead_letter(replace(to_message(event()), body=send.message.body, kind=Kind.DEAD_LETTER))
        assert letter.event is not None
        assert [name_of(each) for each in letter.event.clients] == [*named]


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

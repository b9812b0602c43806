"""Followers: what they take from their leader, which of them are errors, and what lists cannot change."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.authority import Authority
from notifier.configuration.clients.followers import find_listed_followers
from notifier.configuration.clients.guard import rebuild_registry
from notifier.configuration.clients.layer import ROWS_PER_STEP, BuiltRegistry
from notifier.configuration.clients.layers import build_registry
from notifier.model.client import Client, ClientKeysSource, SubjectMode
from notifier.model.errors import InputIssue
from notifier.model.record import copy_record
from notifier.model.registry import Followers
from tests.configuration.clients.registry_sample import HOOK, ONE, TWO, count_calls, mistakes, registry
from tests.configuration.clients.test_layers import build_context, clients, file, remote, row

US = "https://us.shop.example.com/hook"
JWKS_URI = "https://shop.example.com/jwks"


def follower(client_id: str = "shop-us", leader: str = "shop", **members: Any) -> dict[str, Any]:
    """Return the row of a further address of `leader`."""
    notifier = {"follows": leader, **members.pop("notifier", {})}
    return {"client_id": client_id, "backchannel_logout_uri": US, "notifier": notifier, **members}


def built_follower(folder: Path, leader: dict[str, Any], own: dict[str, Any]) -> Client:
    """Return the follower of a leader in a file."""
    return clients(build_registry(build_context(folder), [file(leader, own)]))["shop-us"]


def test_follower_takes_what_determines_tokens(tmp_path: Path) -> None:
    """Members of OpenID Connect and of `notifier`; all else is its own."""
    leader = row(
        id_token_encrypted_response_alg="RSA-OAEP-256", id_token_encrypted_response_enc="A256GCM", jwks_uri=JWKS_URI,
        subject_type="pairwise", backchannel_logout_session_required=True, client_name="Shop",
        notifier={"typ": "JWT", "subject": "sid_first", "audience": "list", "lifetime": "30s", "claims": {"a": 1},
            "reason_claim": "why", "timeout": "2s", "paused": True, "headers": {"X-Gateway": "g"}, "max_age": "1h"},
    )  # fmt: skip
    shop_us = built_follower(tmp_path, leader, follower())
    shop = clients(build_registry(build_context(tmp_path), [file(leader, follower())]))["shop"]
    assert (shop_us.token, shop_us.pairwise, shop_us.backchannel_logout_session_required) == (shop.token, True, True)
    assert shop_us.encryption is not None
    assert shop.encryption is not None
    assert (shop_us.encryption.alg, shop_us.encryption.enc) == (shop.encryption.alg, shop.encryption.enc)
    assert isinstance(shop_us.encryption.keys, ClientKeysSource)
    assert shop_us.encryption.keys.uri == JWKS_URI
    assert (shop_us.paused, shop_us.timeout, shop_us.client_name, shop_us.retry.max_age) == (False, 5, None, 86400)
    assert (shop_us.route.headers, shop_us.backchannel_logout_uri) == ((), US)
    assert (shop_us.follows, shop_us.issued_id, shop.issued_id) == ("shop", "shop", "shop")


def test_own_entry_of_a_follower_counts_first(tmp_path: Path) -> None:
    """Its preset replaces the members that it sets, and its key source both of the leader's. Pairwise stays."""
    leader = row(
        subject_type="pairwise", backchannel_logout_session_required=True, jwks={"keys": []},
        id_token_encrypted_response_alg="RSA-OAEP", notifier={"subject": "both", "lifetime": "30s"},
    )  # fmt: skip
    own = follower(
        subject_type="public", backchannel_logout_session_required=False, jwks_uri=JWKS_URI,
        notifier={"lifetime": "20s", "preset": "express_openid_connect"},
    )  # fmt: skip
    built = build_registry(build_context(tmp_path), [file(own, {**leader, "backchannel_logout_uri": None})])
    assert not built.mistakes
    shop_us = clients(built)["shop-us"]
    assert (shop_us.pairwise, shop_us.backchannel_logout_session_required) == (True, False)
    assert (shop_us.token.lifetime, shop_us.token.subject) == (20, SubjectMode.SID_FIRST)
    assert shop_us.encryption is not None
    assert isinstance(shop_us.encryption.keys, ClientKeysSource)


def test_leader_of_a_list_changes_its_followers(tmp_path: Path) -> None:
    """Within the list's limits. A follower of a leader that is gone or unusable is left out, and comes back."""
    what, own = build_context(tmp_path), file(follower(), follower("shop-eu"), row("other"))
    lists = [
        remote(),
        remote(row(subject_type="pairwise", notifier={"typ": "JWT", "follows": "other"})),
        remote(row(id_token_signed_response_alg="HS256")),
        remote(row(backchannel_logout_session_required=True)),
        remote(),
    ]
    results = []
    built = build_registry(what, [lists[0], own])
    assert [str(warning) for warning in built.warnings] == [
        f"clients.yaml[{nth}].notifier.follows: '{name}' follows 'shop', which no source has: register that client, or"
        " correct notifier.follows; until then its logouts wait"
        for nth, name in enumerate(("shop-us", "shop-eu"))
    ]
    for old, new in itertools.pairwise(lists):
        built = rebuild_registry(what, built.registry, [old, own], 0, new, lambda: None)
        assert not built.mistakes
        whole = build_registry(what, [new, own]).registry
        assert (whole.clients, whole.faults.get(ONE, {}), whole.followers) == (
            built.registry.clients, built.registry.faults[ONE], built.registry.followers
        )  # fmt: skip
        shop_us = clients(built).get("shop-us")
        results.append(shop_us and (shop_us.pairwise, shop_us.token.typ, shop_us.backchannel_logout_session_required))
    assert results == [(True, "logout+jwt", False), None, (False, "logout+jwt", True), None]
    assert "which is left out" not in built.registry.faults[ONE]["shop-us"]
    of = {"shop": ["shop-us", "shop-eu"]}
    assert built.registry.followers == {ONE: Followers(of=of, leaders={"shop-us": "shop", "shop-eu": "shop"})}


def test_error_with_a_value_of_a_lists_leader_leaves_out_the_follower(tmp_path: Path) -> None:
    """It is not notified with less than its leader requires, and the configuration stays valid."""
    listed, own = remote(row(backchannel_logout_session_required=True)), file(follower(notifier={"subject": "sub"}))
    built = build_registry(build_context(tmp_path), [listed, own])
    assert ([*clients(built)], built.mistakes) == (["shop"], [])
    assert "needs a sid" in built.registry.faults[ONE]["shop-us"]
    broken = file(follower(notifier={"subject": "sub", "timeout": "-1s"}))
    assert [each.path for each in build_registry(build_context(tmp_path), [listed, broken]).mistakes] == [
        "clients.yaml[0].notifier.timeout"
    ]


def test_keys_of_a_lists_leader_get_no_credentials_of_the_follower(tmp_path: Path) -> None:
    """The list has chosen that address, which no file names."""
    listed = remote(row(id_token_encrypted_response_alg="RSA-OAEP", jwks_uri="https://trap.example.com/jwks"))
    own = file(follower(notifier={"proxy": "http://user:pass@proxy.example.com:3128"}))
    shop_us = clients(build_registry(build_context(tmp_path), [listed, own]))["shop-us"]
    assert shop_us.encryption is not None
    assert isinstance(shop_us.encryption.keys, ClientKeysSource)
    assert shop_us.encryption.keys.route.withheld is not None
    assert shop_us.route.withheld is None


@pytest.mark.parametrize("several_files", [False, True])
def test_errors_are_reported_together(tmp_path: Path, *, several_files: bool) -> None:
    """Each names both clients and the remedy, also with a single file."""
    text = f"""\
- {{client_id: shop, issuer: "{ONE}", backchannel_logout_uri: "{HOOK}"}}
- {{client_id: own, issuer: "{ONE}", backchannel_logout_uri: "{US}", notifier: {{follows: own}}}}
- {{client_id: one, issuer: "{ONE}", backchannel_logout_uri: "{US}", notifier: {{follows: shop}}}}
- {{client_id: two, issuer: "{ONE}", backchannel_logout_uri: "{US}", notifier: {{follows: one}}}}
- {{client_id: far, issuer: "{TWO}", backchannel_logout_uri: "{US}", notifier: {{follows: shop}}}}
- client_id: page
  issuer: "{ONE}"
  frontchannel_logout_uri: "{US}"
  redirect_uris: ["{US}"]
  notifier: {{follows: shop}}
- {{client_id: none, issuer: "{ONE}", notifier: {{follows: shop}}}}
- {{client_id: empty, issuer: "{ONE}", backchannel_logout_uri: "{US}", notifier: {{follows: ""}}}}
"""
    sections: dict[str, Any] = {}
    if several_files:
        (tmp_path / "more.yaml").write_text("[]")
        sections = {"registry": {"sources": [{"file": "clients.yaml"}, {"file": "more.yaml", "name": "more"}]}}
    assert mistakes(tmp_path, text, ONE, TWO, **sections) == {
        "clients.yaml[1].notifier.follows": "'own' follows 'own', itself: name the client of which it is a further "
        "address",
        "clients.yaml[3].notifier.follows": "'two' follows 'one', which follows 'shop': write follows: shop",
        "clients.yaml[4].notifier.follows": f"'far' of {TWO} follows 'shop', which is a client of {ONE}: both must have"
        f" one issuer; write issuer: {ONE}, or follow a client of {TWO}",
        "clients.yaml[5].frontchannel_logout_uri": "of 'page' follows 'shop': a follower is notified by back-channel "
        "only; remove this member, or notifier.follows",
        "clients.yaml[6].notifier.follows": "'none' follows 'shop', and needs an address in this file: write its "
        "backchannel_logout_uri",
        "clients.yaml[7].notifier.follows": "must not be empty",
    }


def test_defaults_cannot_follow(tmp_path: Path) -> None:
    """Otherwise each client of the issuer would be an address of one client."""
    assert mistakes(tmp_path, "[]", registry={"file": "clients.yaml", "defaults": {ONE: {"follows": "shop"}}}) == {
        f'registry.defaults["{ONE}"].follows': "would make each client of the issuer an address of 'shop': write it at "
        "one client"
    }


def test_single_file_has_followers(tmp_path: Path) -> None:
    """Its registry is built in the same place as that of several sources."""
    text = f"""
- {{client_id: shop-us, backchannel_logout_uri: "{US}", notifier: {{follows: shop}}}}
- {{client_id: shop, backchannel_logout_uri: "{HOOK}", subject_type: pairwise}}
"""
    loaded = registry(tmp_path, text)
    assert loaded.followers == {ONE: Followers(of={"shop": ["shop-us"]}, leaders={"shop-us": "shop"})}
    assert loaded.clients_of(ONE)["shop-us"].pairwise


def test_row_with_a_leader_and_no_address_is_a_client(tmp_path: Path) -> None:
    """In a second file it would otherwise pass for settings of a client of another source."""
    built = build_registry(
        build_context(tmp_path), [file(row()), file({"client_id": "us", "notifier": {"follows": "shop"}})]
    )
    assert [each.path for each in built.mistakes] == ["clients.yaml[0].notifier.follows"]
    assert not built.warnings


def test_later_file_adds_a_leader_or_removes_it(tmp_path: Path) -> None:
    """As any other member of `notifier`."""
    what, first = build_context(tmp_path), file(row(), {"client_id": "us", "backchannel_logout_uri": US})
    adds = file({"client_id": "us", "notifier": {"follows": "shop"}})
    removes = file({"client_id": "us", "notifier": {"follows": None}})
    added, removed = build_registry(what, [first, adds]), build_registry(what, [first, adds, removes])
    assert (clients(added)["us"].follows, clients(removed)["us"].follows) == ("shop", None)
    assert (added.mistakes, removed.mistakes, removed.registry.followers) == ([], [], {})


def test_no_list_defines_or_changes_a_follower(tmp_path: Path) -> None:
    """Its `follows` is ignored, and its row of a follower is left out with aliases: both are reported."""
    trap = "https://trap.example.com"
    listed = remote(
        row("mail", notifier={"follows": "shop"}),
        row("shop-us", backchannel_logout_uri=trap, aliases=["wiki"], id_token_signed_response_alg="HS256"),
    )  # fmt: skip
    settings_only = remote({"client_id": "shop-us", "notifier": {"subject": "sub", "paused": True}}, name="http")
    layers = [listed, settings_only, file(row(), follower())]
    built = build_registry(build_context(tmp_path), layers)
    shop_us = clients(built)["shop-us"]
    assert (shop_us.backchannel_logout_uri, shop_us.paused, shop_us.token.subject) == (US, False, SubjectMode.BOTH)
    assert (clients(built)["mail"].follows, built.registry.followers[ONE].leaders) == (None, {"shop-us": "shop"})
    assert built.registry.aliases.get(ONE, {}) == {}
    assert {fault.path for fault in built.faults} == {
        "client 'shop-us' of registry source db", "client 'shop-us' of registry source http"
    }  # fmt: skip
    assert built.mistakes == []
    assert [each.text for each in next(built.registry.ignored_groups()).first] == [
        "notifier.follows: only a file may set it; it is ignored"
    ]
    assert [str(issue) for issue in find_listed_followers(layers, (ONE,))] == [
        f"client 'shop-us' of registry source {name}: 'shop-us' follows 'shop' by a file, and only files define a "
        "follower: this row is left out; remove it from the source, or give the follower another client_id"
        for name in ("db", "http")
    ]
    quiet = copy_record(listed, rows=[listed.rows[0]])
    again = rebuild_registry(build_context(tmp_path), built.registry, [quiet, *layers[1:]], 0, listed, lambda: None)
    assert (clients(again), {fault.path for fault in again.faults}) == (
        clients(built),
        {fault.path for fault in built.faults},
    )


def test_alias_of_a_list_is_no_unknown_leader(tmp_path: Path) -> None:
    """Otherwise the client of the list would get the logouts of the leader. At another issuer the name is free."""
    what = build_context(tmp_path, ONE, TWO)
    trap, own = row("trap", aliases=["shop"]), file(follower(issuer=ONE))
    built = build_registry(what, [remote(trap), remote(trap, issuer=TWO), own])
    aliases = {iss: dict(each) for iss, each in built.registry.aliases.items()}
    assert aliases == {ONE: {}, TWO: {"shop": "trap"}}
    assert [str(each) for each in built.registry.taken_aliases.first] == [
        "client 'trap': alias 'shop' is client 'shop' already; it is ignored"
    ]


def test_reason_of_a_follower_without_a_leader_is_its_own(tmp_path: Path) -> None:
    """Not that of a row of a list with its id, which is reported beside it."""
    faults = [InputIssue("shop-us", "has no address")]
    for listed in (remote(row("shop-us")), remote(faults=faults)):
        built = build_registry(build_context(tmp_path), [listed, file(follower())])
        assert built.registry.why_left_out(ONE, "shop-us") == (
            "'shop-us' follows 'shop', which no source has: register that client, or correct notifier.follows; until"
            " then its logouts wait"
        )
        assert [fault.path for fault in built.faults] == ["client 'shop-us' of registry source db"]


def test_row_of_a_list_with_two_issuers_keeps_the_other(tmp_path: Path) -> None:
    """A follower's id is taken at the issuer of the follower alone."""
    what, authority = build_context(tmp_path, ONE, TWO), Authority(issuers=(ONE, TWO))
    named = copy_record(remote(row("shop-us", issuer=[ONE, TWO]), issuer=None), authority=authority)
    built = build_registry(what, [named, file(row(issuer=ONE), follower(issuer=ONE))])
    assert clients(built)["shop-us"].backchannel_logout_uri == US
    assert clients(built, TWO)["shop-us"].backchannel_logout_uri == HOOK
    unnamed = copy_record(
        remote({"client_id": "shop-us", "notifier": {"paused": True}}, issuer=None), authority=authority
    )
    built = build_registry(what, [unnamed, file(row(issuer=ONE), follower(issuer=ONE), row("shop-us", issuer=TWO))])
    assert (clients(built)["shop-us"].paused, clients(built, TWO)["shop-us"].paused) == (False, True)


def test_followers_at_all_issuers(tmp_path: Path) -> None:
    """A follower of several issuers follows the leader of each. An unread list may have the leader."""
    what = build_context(tmp_path, ONE, TWO)
    own = file(row(issuer=ONE), follower(issuer="*"))
    listed = copy_record(remote(row(subject_type="pairwise"), issuer=TWO), authority=Authority(issuers=(TWO,)))
    built = build_registry(what, [listed, own])
    assert (clients(built)["shop-us"].pairwise, clients(built, TWO)["shop-us"].pairwise) == (False, True)
    built = build_registry(what, [copy_record(listed, rows=[], read=False), own])
    assert (built.mistakes, built.warnings, [*clients(built, TWO)]) == ([], [], [])


def test_cost_of_errors_is_linear(tmp_path: Path) -> None:
    """Twice as many followers with an error cost twice as much. Each row is one error, whatever its issuers."""
    what = build_context(tmp_path, ONE, TWO)

    def built(count: int) -> BuiltRegistry:
        rows = [follower(f"f{nth}", f"f{nth}", issuer=[ONE, TWO]) for nth in range(count)]
        return build_registry(what, [file(*rows)])

    assert len(built(10).mistakes) == 10
    costs = [count_calls(built, count) for count in (200, 400)]
    assert costs[1] < 2.2 * costs[0]


def test_refresh_pauses_while_it_searches_for_followers(tmp_path: Path) -> None:
    """The event loop runs meanwhile."""
    what, lists = build_context(tmp_path), [remote(row()), remote(row(subject_type="pairwise"))]
    pauses = []
    for count in (0, 4 * ROWS_PER_STEP):
        own = file(*(follower(f"f{nth}", "other") for nth in range(count)), row("other"))
        old = build_registry(what, [lists[0], own]).registry
        calls: list[None] = []
        rebuild_registry(what, old, [lists[0], own], 0, lists[1], partial(calls.append, None))
        pauses.append(len(calls))
    assert pauses[1] - pauses[0] >= 4


def test_followers_have_their_place_in_the_order_of_the_file(tmp_path: Path) -> None:
    """`metrics.max_clients` counts in this order. A follower may come before its leader."""
    rows = [follower("a", "d"), row("b"), follower("c", "d"), row("d"), row("e")]
    assert [*clients(build_registry(build_context(tmp_path), [file(*rows)]))] == [*"abcde"]

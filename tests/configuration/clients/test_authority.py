"""A remote source may set how its clients are reached, never the content or recipients of a token."""

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from notifier.configuration.clients.authority import LIST_OPTIONS, REDACTED, ListBounds, kind_of, limit_row
from notifier.configuration.clients.client_rows import SourceAnswer
from notifier.configuration.clients.clients_file import to_layer
from notifier.configuration.clients.guard import rebuild_registry
from notifier.configuration.clients.layer import BuildContext, BuiltRegistry, Layer
from notifier.configuration.clients.layers import MAX_SUGGESTIONS, build_registry
from notifier.configuration.clients.remote_rows import clean_row
from notifier.configuration.loading import MAX_LOGGED, load, log_ignored_values
from notifier.features import FEATURES
from notifier.model.client import Algorithm, Client
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.settings.policies import RetrySettings
from tests.configuration.clients.registry_sample import HOOK, ONE, TWO, mistakes, settings
from tests.settings.whole_settings import SOURCE_SETTINGS
from tests.tokens.key_folder import pem

EVIL = "https://evil.example.net/hook"
BOUNDS = ListBounds(
    most={"max_age": 3600.0, "sub_only_max_age": 600.0, "timeout": 10.0, "max_concurrent": 32},
    issuer_hosts=frozenset({"id.example.com"}),
)
FILE_ONLY = "only a file may set it; it is ignored"
THREE = "https://three.example.com"
LIST = {"url": "https://list.example.com/clients"}


def row(client_id: str = "shop", uri: str = HOOK, **members: Any) -> dict[str, Any]:
    """Return a row of a remote source."""
    return {"client_id": client_id, "backchannel_logout_uri": uri, **members}


def of_list(*rows: Any, name: str = "db", **source: Any) -> Layer:
    """Return the answer of a source, as a worker keeps it."""
    given = SOURCE_SETTINGS.model_validate({"name": name, "http": LIST, **source})
    kept = [each for raw in rows if isinstance(each := clean_row(raw, "[0]"), dict)]
    return to_layer(given, (ONE, TWO), SourceAnswer(rows=kept, at=0.0))


def of_file(*rows: Any) -> Layer:
    """Return a file of the operator."""
    return Layer(name="file", rows=list(rows), issuer=ONE, context={"base": Path()}, file="clients.yaml")


def built(folder: Path, *layers: Layer, **sections: Any) -> BuiltRegistry:
    """Build the registry of these sources for two issuers."""
    return build_registry(build_context(folder, **sections), layers)


def build_context(folder: Path, **sections: Any) -> BuildContext:
    """Return the context in which clients are validated."""
    given = settings(folder, "[]", ONE, TWO, **sections)
    return BuildContext(settings=given, algorithms_of=lambda _: frozenset({Algorithm.RS256}))


def ignored_members(made: BuiltRegistry) -> list[str]:
    """Return the ignored members with the clients concerned."""
    return [str(each) for of_kind in made.registry.ignored_groups() for each in of_kind.first]


def shop(made: BuiltRegistry, iss: str = ONE) -> Client:
    """Return the resulting client."""
    return made.registry.clients_of(iss)["shop"]


def test_list_cannot_change_the_audience_of_a_token(tmp_path: Path) -> None:
    """A row with all that an ID token for Kubernetes needs yields a plain logout token for that client."""
    evil = {"typ": "JWT", "audience": ["kubernetes", "bank"], "claims": {"tenant": "x"}, "reason_claim": "reason"}
    made = built(tmp_path, of_list(row(notifier=evil), issuer=ONE))
    client = shop(made)
    assert (client.token.typ, client.token.audience, client.token.reason_claim) == ("logout+jwt", None, None)
    assert not client.token.claims
    assert client.backchannel_logout_uri == HOOK
    assert len(ignored_members(made)) == 4
    assert all(each.startswith("client 'shop' of registry source db: notifier.") for each in ignored_members(made))


@pytest.mark.parametrize(
    "name", [*sorted(ClientOptions.model_fields.keys() - LIST_OPTIONS), "typo", "audience", "preset"]
)
def test_members_beyond_the_table_are_ignored_and_reported(name: str) -> None:
    """The others stay."""
    values: dict[str, object] = {"audience": ["kubernetes"], "preset": "auth0_sample"}
    kept, left = limit_row(row(notifier={name: values.get(name, "x"), "timeout": "3s"}), BOUNDS)
    assert kept == row(notifier={"timeout": "3s"})
    assert list(left) == [f"notifier.{name}"]


@pytest.mark.parametrize(
    "options",
    [
        {"audience": "list"},
        {"audience": []},
        {"preset": "lemonldap"},
        {"preset": "duende_bff", "subject": "sid"},
        {"max_age": "30m", "sub_only_max_age": "1m"},
        {"front_channel": "server", "paused": True, "per_second": 3, "max_concurrent": 2, "lifetime": "1m"},
        {"timeout": "3s", "retry": {"base": "1s"}, "retry_statuses": [404]},
        {"typ": None},
    ],
)
def test_permitted_members_of_a_list_are_kept(options: dict[str, Any]) -> None:
    """Unchanged: a row with permitted members only is the same object."""
    members = row(notifier=options)
    assert limit_row(members, BOUNDS) == (members, {})
    assert limit_row(members, BOUNDS)[0] is members


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("timeout", "598s", "10s"),
        ("timeout", "10001ms", "10s"),
        ("timeout", "2h", "10s"),
        ("max_concurrent", 33, 32),
        ("max_concurrent", "10000", 32),
        ("max_concurrent", 10**400, 32),
        ("max_age", "2h", "1h"),
        ("sub_only_max_age", "1d", "10m"),
    ],
)
def test_larger_value_of_a_list_is_reduced(name: str, value: object, most: object) -> None:
    """To the largest that a list may set. The other members stay."""
    kept, left = limit_row(row(notifier={name: value, "paused": True}), BOUNDS)
    assert kept == row(notifier={name: most, "paused": True})
    assert left == {f"notifier.{name}": f"a list may set at most {most}; it is reduced to this"}


@pytest.mark.parametrize("value", [None, "x", [], {}, True, float("nan")])
def test_invalid_number_of_a_list_stays_an_error_of_its_row(value: object) -> None:
    """It is not reduced."""
    members = row(notifier={"max_concurrent": value, "timeout": value})
    assert limit_row(members, BOUNDS) == (members, {})


def test_limits_of_a_list_follow_the_defaults(tmp_path: Path) -> None:
    """A default may permit a longer timeout or fewer attempts. A file may set more. No client is left out."""
    large = {"timeout": "598s", "max_concurrent": 10_000}
    layers = [of_list(*(row(name, notifier=large) for name in ("shop", "more")), issuer=ONE)]
    longest = {"sources": [{"file": "clients.yaml"}], "defaults": {ONE: {"timeout": "20s", "max_concurrent": 4}}}

    def limits(made: BuiltRegistry) -> tuple[float, int]:
        assert not made.faults
        assert len(made.registry.clients_of(ONE)) == 2
        return shop(made).timeout, shop(made).max_concurrent

    assert limits(built(tmp_path, *layers)) == (10.0, 32)
    assert limits(built(tmp_path, *layers, registry=longest)) == (20.0, 4)
    assert limits(built(tmp_path, *layers, delivery={"timeout": "15s"})) == (15.0, 32)
    own = of_file({"client_id": "shop", "notifier": {"timeout": "90s", "max_concurrent": 100}})
    assert limits(built(tmp_path, *layers, own)) == (90.0, 100)


def test_reduced_values_are_logged_once_for_a_source(tmp_path: Path) -> None:
    """With the number of their clients. Ignored values with different texts have a line each."""
    large = [row(f"c{nth}", notifier={"timeout": "598s", f"name{nth}": 1}) for nth in range(150)]
    made = built(tmp_path, of_list(*large, issuer=ONE))
    groups = [*made.registry.newly_ignored(Registry())]
    with capture_logs() as lines:
        log_ignored_values(groups)
    reduced = [line["reason"] for line in lines if "timeout" in line.get("reason", "")]
    assert len(reduced) == 1
    assert reduced[0].startswith("notifier.timeout: a list may set at most 10s; it is reduced to this; likewise of")
    assert reduced[0].endswith("and 129 more")
    assert [line["more"] for line in lines if line["event"] == "registry_sources_beyond"] == [150 - MAX_LOGGED + 1]
    assert [*made.registry.newly_ignored(made.registry)] == []


def test_member_of_a_feature_is_ignored_in_a_list() -> None:
    """It is ignored with its name, and is not an unknown setting."""
    bounds = copy_record(BOUNDS, options=BOUNDS.options | {"quiet_after"})
    kept, left = limit_row(row(notifier={"quiet_after": 5}), bounds)
    assert (kept, left) == (row(notifier={}), {"notifier.quiet_after": "only a file may set it; it is ignored"})


def test_removed_setting_is_ignored_and_the_rest_is_kept() -> None:
    """With its replacement. A similar name that a row invents is reported as an unknown name."""
    members = row(notifier={"retry": {"base": "1s", "jitter": 0, "factor": 2}, "timeout": "3s"})
    kept, left = limit_row(members, BOUNDS)
    assert kept == row(notifier={"retry": {"base": "1s"}, "timeout": "3s"})
    assert left == {
        "notifier.retry.factor": f"{RetrySettings.gone['factor']}; it is ignored",
        "notifier.retry.jitter": "is gone: it is 0.25 now; it is ignored",
    }
    assert {kind_of(member, f"{member}: {why}") for member, why in left.items()} == {
        f"{member}: {why}" for member, why in left.items()
    }
    [(member, why)] = limit_row(row(notifier={"retry.mine": 1}), BOUNDS)[1].items()
    assert kind_of(member, f"{member}: {why}") == "notifier: there is no such setting; it is ignored"


def test_documented_table_equals_the_code() -> None:
    """It names each member that a list may set, and none that it may not."""
    text = (Path(__file__).parents[3] / "docs/configuration/registry-sources.md").read_text()
    _, may, limited = text[text.index("| a list | members |") :].split("\n| ")[:3]
    assert {name for name in LIST_OPTIONS if f"`{name}`" not in may and f"`notifier.{name}`" not in limited} == set()
    assert [name for name in ClientOptions.model_fields.keys() - LIST_OPTIONS if f"`{name}`" in may + limited] == []


def test_secrets_of_a_list_are_not_kept() -> None:
    """Neither in memory nor in the cache; their names are kept for the report."""
    kept = clean_row(
        row(notifier={"headers": {"Authorization": "hunter2"}, "proxy": "http://u:hunter2@p", "typ": "JWT"}), ""
    )
    assert "hunter2" not in json.dumps(kept)
    assert isinstance(kept, dict)
    assert kept["notifier"] == {"headers": REDACTED, "proxy": REDACTED, "typ": REDACTED}


@pytest.mark.parametrize("own", [f"{ONE}/logout", f"{ONE.upper()}:443/logout", f"{ONE}:8443/logout", f"{ONE}./logout"])
def test_list_cannot_make_browsers_call_the_issuer(tmp_path: Path, own: str) -> None:
    """With its cookies, which each port of its host receives. The address is ignored and reported; the client is kept.

    For a client of another issuer it is a normal address.
    """
    members = row(frontchannel_logout_uri=own)
    made = built(tmp_path, of_list(members, issuer=ONE), of_list(members, name="two", issuer=TWO))
    assert (shop(made).backchannel_logout_uri, shop(made).front_channel) == (HOOK, None)
    assert shop(made, TWO).front_channel is not None
    [ignored] = ignored_members(made)
    assert ignored.startswith("client 'shop' of registry source db: frontchannel_logout_uri: is on ")
    assert ignored.endswith("the issuer's own host: browsers would send its cookies along; " + FILE_ONLY)
    by_file = of_file({"client_id": "shop", "frontchannel_logout_uri": own})
    assert shop(built(tmp_path, of_list(row(), issuer=ONE), by_file)).front_channel is not None


def test_list_cannot_extend_the_lifetime_of_a_delivery(tmp_path: Path) -> None:
    """Than the issuer's defaults, or else `delivery`, permit."""
    members = {"max_age": "1d", "sub_only_max_age": "9m"}
    longest = {"sources": [{"file": "clients.yaml"}], "defaults": {ONE: {"sub_only_max_age": "8m"}}}
    made = built(tmp_path, of_list(row(notifier=members), issuer=ONE), registry=longest, delivery={"max_age": "2h"})
    assert (shop(made).retry.max_age, shop(made).retry.sub_only_max_age) == (7200, 480)
    assert len(ignored_members(made)) == 2


def test_list_cannot_override_a_file(tmp_path: Path) -> None:
    """In any order; members that the file omits come from the list."""
    own_file = of_file({"client_id": "shop", "backchannel_logout_uri": HOOK, "subject_type": "pairwise"})
    remote_list = of_list(row(uri=EVIL, subject_type="public", client_name="Shop"), issuer=ONE)
    for layers in ([own_file, remote_list], [remote_list, own_file]):
        client = shop(built(tmp_path, *layers))
        assert (client.backchannel_logout_uri, client.pairwise, client.client_name) == (HOOK, True, "Shop")


@pytest.mark.parametrize("issuer", [TWO, [ONE, TWO], "*", ["*"], "https://id.example.com/", 7])
def test_a_list_has_no_client_of_another_issuer(tmp_path: Path, issuer: object) -> None:
    """Such a row is omitted and reported; the others are accepted."""
    honest = of_list(row(), name="honest", issuer=TWO)
    made = built(tmp_path, honest, of_list(row(uri=EVIL, issuer=issuer), row("news"), issuer=ONE))
    assert shop(made, TWO).backchannel_logout_uri == HOOK
    assert [*made.registry.clients_of(ONE)] == ["news"]
    assert [each.path for each in made.faults] == ["client 'shop' of registry source db"]


def test_a_list_for_several_issuers_names_them(tmp_path: Path) -> None:
    """Each row has one of them; a row without an issuer is refused."""
    made = built(tmp_path, of_list(row(issuer=TWO), row("b"), issuers=[ONE, TWO]))
    assert [*made.registry.clients_of(TWO)] == ["shop"]
    assert [each.path for each in made.faults] == ["client 'b' of registry source db"]


def test_patterns_bound_the_clients_of_a_list(tmp_path: Path) -> None:
    """Patterns are case-sensitive."""
    made = built(tmp_path, of_list(row("shop-1"), row("Shop-2"), row("bank"), issuer=ONE, clients=["shop-*"]))
    assert [*made.registry.clients_of(ONE)] == ["shop-1"]
    assert len(made.faults) == 2


def test_rejected_row_reports_the_line_to_write(tmp_path: Path) -> None:
    """With the source, its bound, and the setting that widens it."""
    rows = [row(issuer=TWO), row("all", issuer="*"), row("bank")]
    made = built(tmp_path, of_list(*rows, issuer=ONE, clients=["shop", "all"]))
    other, everybody, beyond = (each.text for each in made.faults)
    assert other == (
        f"is of issuer {TWO}; db may speak for {ONE} alone: if it may have this client, write issuers: [{ONE}, {TWO}]"
        " for db in registry.sources"
    )
    assert everybody == (
        f'is of issuer *; db may speak for {ONE} alone: have the list name an issuer, or none ("*" is for files)'
    )
    assert beyond == (
        "is beyond db, which may speak of clients shop, all alone: if it may have this client, add the name to clients"
        " of db in registry.sources"
    )


def test_rejected_client_has_its_reason(tmp_path: Path) -> None:
    """At the issuer of its row, until the row is removed. The client of another source stays."""
    bad = of_list(row(issuer=TWO), row("bank"), row("other"), row("typo", issuer=THREE), issuer=ONE, clients=["[!b]*"])
    honest = of_list(row(), name="honest", issuer=TWO)
    made = built(tmp_path, bad, honest)
    assert {iss: {*left} for iss, left in made.registry.refused.items() if left} == {
        ONE: {"bank", "typo"},
        TWO: {"shop"},
    }
    assert (made.registry.why_left_out(ONE, "bank") or "").endswith("in registry.sources (registry source db)")
    assert shop(made, TWO).backchannel_logout_uri == HOOK
    better = copy_record(bad, rows=[each for each in bad.rows if each["client_id"] != "bank"])
    again = rebuild_registry(build_context(tmp_path), made.registry, [bad, honest], 0, better, lambda: None)
    assert again.registry.why_left_out(ONE, "bank") is None
    assert again.registry.why_left_out(TWO, "shop") is not None


def test_settings_alone_are_bounded_too(tmp_path: Path) -> None:
    """A list of one issuer cannot pause a client of another."""
    made = built(
        tmp_path,
        of_list(row(), name="honest", issuer=TWO),
        of_list({"client_id": "shop", "notifier": {"paused": True}}, issuer=ONE),
        of_list({"client_id": "shop", "issuer": TWO, "notifier": {"paused": True}}, name="evil", issuer=ONE),
    )
    assert not shop(made, TWO).paused


def test_alias_cannot_take_the_name_of_another_client(tmp_path: Path) -> None:
    """At start and in a refresh."""
    first = of_list(row("shop", aliases=["4711"]), name="honest", issuer=ONE)
    empty, evil = of_list(issuer=ONE), of_list(row("evil", EVIL, aliases=["4711", "shop"]), issuer=ONE)
    at_start = built(tmp_path, first, evil)
    before = built(tmp_path, first, empty)
    refreshed = rebuild_registry(build_context(tmp_path), before.registry, [first, empty], 1, evil, lambda: None)
    for made in (at_start, refreshed):
        for name in ("4711", "shop"):
            client = made.registry.resolve(ONE, name, None)
            assert client is not None
            assert client.backchannel_logout_uri == HOOK
        assert any("'4711' is client 'shop' already" in each for each in ignored_members(made))


def test_report_ends_with_the_row(tmp_path: Path) -> None:
    """A refresh reports what the remaining rows contain."""
    bad, worse = row(notifier={"typ": "JWT"}), row("b", notifier={"typ": "JWT"})
    layer, better = of_list(bad, worse, issuer=ONE), of_list(row(), issuer=ONE)
    better = copy_record(better, rows=[*better.rows, layer.rows[1]])
    made = built(tmp_path, layer)
    again = rebuild_registry(build_context(tmp_path), made.registry, [layer], 0, better, lambda: None)
    assert [each.partition(" of ")[0] for each in ignored_members(again)] == ["client 'b'"]


def test_source_without_a_bound_is_refused(tmp_path: Path) -> None:
    """With several issuers. The error contains the line to write."""
    sources = [{"http": LIST}]
    wrong = mistakes(tmp_path, "[]", ONE, TWO, registry={"sources": sources})
    assert f"write issuer: {ONE} if" in wrong["registry.sources[0].issuer"]
    assert f"issuers: [{ONE}, {TWO}]" in wrong["registry.sources[0].issuer"]
    for refused in ({"issuer": ONE, "issuers": [TWO], "http": LIST}, {"file": "clients.yaml", "clients": ["a"]}):
        with pytest.raises(ConfigurationError):
            settings(tmp_path, "[]", registry={"sources": [refused]})


@pytest.mark.parametrize(
    "claim",
    ["nonce", "azp", "unique_name", "userName", "cognito:groups", "https://apps.example.com/roles", "x-hasura-user-id"],
)
def test_registration_cannot_produce_an_id_token(claim: str) -> None:
    """Not even by a file."""
    with pytest.raises(ValueError, match=claim):
        ClientMetadata.model_validate(row(notifier={"claims": {claim: "x"}}))
    if claim != "nonce":
        with pytest.raises(ValueError, match=claim):
            ClientMetadata.model_validate(row(notifier={"claims": {"ctx": [{claim: "x"}]}}))


def test_file_with_typ_jwt_and_further_audiences_is_warned(tmp_path: Path) -> None:
    """`typ: JWT` beside further audiences; each alone is permitted."""
    given = {
        "a": {"typ": "JWT", "audience": ["bank"]},
        "b": {"typ": "JWT", "audience": []},
        "c": {"audience": ["bank"]},
    }
    settings(tmp_path, json.dumps([row(name, notifier=members) for name, members in given.items()]))
    (tmp_path / "key.pem").write_bytes(pem("RS256"))
    loaded = load(tmp_path / "notifier.json", {}, FEATURES)
    assert [each.path for each in loaded.warnings] == [f"client 'a' of {ONE}"]


def test_earlier_list_cannot_take_an_alias_of_a_file(tmp_path: Path) -> None:
    """Neither the order of the sources nor a refresh changes that."""
    evil, empty = of_list(row("evil", EVIL, aliases=["4711"]), issuer=ONE), of_list(issuer=ONE)
    own = of_file(row("shop", aliases=["4711"]))
    before = built(tmp_path, empty, own)
    refreshed = rebuild_registry(build_context(tmp_path), before.registry, [empty, own], 0, evil, lambda: None)
    for made in (built(tmp_path, evil, own), built(tmp_path, own, evil), refreshed):
        client = made.registry.resolve(ONE, "4711", None)
        assert client is not None
        assert client.backchannel_logout_uri == HOOK
        [members] = ignored_members(made)
        assert members == "client 'evil': alias '4711' is client 'shop' already; it is ignored"


def test_patterns_bound_the_aliases_of_a_list(tmp_path: Path) -> None:
    """An alias is a client name too: events that name it would go to an address that the list sets."""
    aliases = ["shop-one", "bank", *(f"n{nth}" for nth in range(300))]
    bounded_ = of_list(row("shop-1", aliases=aliases), issuer=ONE, clients=["shop-*"])
    made = built(tmp_path, bounded_)
    assert made.registry.resolve(ONE, "shop-one", None) is not None
    assert made.registry.resolve(ONE, "bank", None) is None
    [members] = ignored_members(made)
    assert members == (
        "client 'shop-1' of registry source db: aliases: 'bank', 'n0', 'n1', 'n2', 'n3' and 296 more are beyond the"
        " source, which may speak of clients shop-* alone (its clients in registry.sources)"
    )


def test_unreadable_row_of_a_foreign_client_has_no_effect(tmp_path: Path) -> None:
    """An unreadable row omits only clients of the list's issuers."""
    given = SOURCE_SETTINGS.model_validate({"name": "db", "http": LIST, "issuers": [ONE, THREE]})
    faults = (InputIssue("shop", "aliases must be a list of texts"),)
    layer = to_layer(given, (ONE, TWO, THREE), SourceAnswer(rows=(), at=0.0, faults=faults))
    made = build_registry(
        BuildContext(settings=settings(tmp_path, "[]", ONE, TWO, THREE), algorithms_of=lambda _: frozenset()), [layer]
    )
    assert {iss for iss, left in made.registry.faults.items() if left} == {ONE, THREE}


@pytest.mark.parametrize(
    ("iss", "own"),
    [
        ("https://[2001:db8::5]", "https://[2001:DB8:0:0::5]/logout"),
        ("https://192.0.2.5", "https://0xc0000205/logout"),
        ("https://192.0.2.5", "https://192.0.517:443/logout"),
        ("https://192.0.2.5", "https://192.0.2.5.:8443/logout"),
    ],
)
def test_any_spelling_of_the_issuer_address_is_recognized(iss: str, own: str) -> None:
    """Browsers normalize an address, and send its cookies."""
    bounds = ListBounds(most={}, issuer_hosts=frozenset({iss.removeprefix("https://").strip("[]")}))
    assert [*limit_row(row(frontchannel_logout_uri=own), bounds)[1]] == ["frontchannel_logout_uri"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id_token_signed_response_alg": "HS256"},
        {"id_token_signed_response_alg": "ES256"},
        {"subject_type": "no such thing"},
        {"notifier": {"subject": "nobody"}},
        {"backchannel_logout_session_required": True, "notifier": {"subject": "sub"}},
        {"id_token_encrypted_response_alg": "RSA-OAEP"},
    ],
)
def test_invalid_row_of_a_list_does_not_affect_a_client_of_a_file(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The file applies, at start and after a refresh. The row is reported, and is not an error of the file.

    If the file has settings only, the client is omitted: only the list has its address.
    """
    bad, empty = of_list(row(uri=EVIL, **wrong), issuer=ONE), of_list(issuer=ONE)
    own_file = of_file(row(notifier={"per_second": 20}))
    before = built(tmp_path, empty, own_file)
    refreshed = rebuild_registry(build_context(tmp_path), before.registry, [empty, own_file], 0, bad, lambda: None)
    for made in (built(tmp_path, bad, own_file), refreshed):
        assert (shop(made).backchannel_logout_uri, shop(made).per_second) == (HOOK, 20)
        assert not made.mistakes
        assert {each.path for each in made.faults} == {"client 'shop' of registry source db"}
    settings_alone = built(tmp_path, bad, of_file({"client_id": "shop", "notifier": {"per_second": 20}}))
    assert (settings_alone.mistakes, [*settings_alone.registry.clients_of(ONE)]) == ([], [])
    assert settings_alone.faults


def test_owner_of_an_alias_depends_only_on_the_configuration(tmp_path: Path) -> None:
    """Not on the order in which lists answer: the first source wins, and within one the first `client_id`."""
    one = of_list(row("b", aliases=["4711"]), row("a", aliases=["4711"]), name="one", issuer=ONE)
    two = of_list(row("0", EVIL, aliases=["4711"]), name="two", issuer=ONE)
    empty_one, empty_two = of_list(name="one", issuer=ONE), of_list(name="two", issuer=ONE)
    asked = build_context(tmp_path)
    late = build_registry(asked, [empty_one, two])
    assert late.registry.aliases[ONE] == {"4711": "0"}
    early = build_registry(asked, [one, empty_two])
    for made in (
        built(tmp_path, one, two),
        rebuild_registry(asked, late.registry, [empty_one, two], 0, one, lambda: None),
        rebuild_registry(asked, early.registry, [one, empty_two], 1, two, lambda: None),
    ):
        assert made.registry.aliases[ONE] == {"4711": "a"}
        assert {each.partition(":")[0] for each in ignored_members(made)} == {"client 'b'", "client '0'"}
    gone = rebuild_registry(asked, built(tmp_path, one, two).registry, [one, two], 0, empty_one, lambda: None)
    assert (gone.registry.aliases[ONE], ignored_members(gone)) == ({"4711": "0"}, [])


def test_alias_cannot_be_the_name_of_a_rejected_client(tmp_path: Path) -> None:
    """Otherwise its logouts would go to another client while its own row is invalid."""
    faults = (InputIssue("bank", "aliases must be a list of texts"),)
    given = SOURCE_SETTINGS.model_validate({"name": "kc", "http": LIST, "issuer": ONE})
    wrong = [row("mail", "http://x.example.com")]
    left_out = to_layer(given, (ONE, TWO), SourceAnswer(rows=wrong, at=0.0, faults=faults))
    made = built(tmp_path, left_out, of_list(row("evil", EVIL, aliases=["bank", "mail"]), issuer=ONE))
    assert {name: made.registry.resolve(ONE, name, None) for name in ("bank", "mail")} == {"bank": None, "mail": None}
    assert len(ignored_members(made)) == 2


def test_source_cannot_reject_a_foreign_client(tmp_path: Path) -> None:
    """Also with an unreadable row: it is reported without naming foreign clients."""
    given = SOURCE_SETTINGS.model_validate({"name": "db", "http": LIST, "issuer": ONE, "clients": ["shop-*"]})
    faults = (InputIssue("bank", "aliases must be a list of texts"), InputIssue("shop-1", "has no address"))
    made = built(tmp_path, to_layer(given, (ONE, TWO), SourceAnswer(rows=(), at=0.0, faults=faults)))
    assert made.registry.faults[ONE].keys() == {"shop-1"}
    assert len(made.faults) == 2


def test_unknown_members_of_a_row_are_reported_once() -> None:
    """A row may have thousands of unknown settings, or very long ones."""
    made_up = {f"x{nth}": 1 for nth in range(5000)} | {"y" * 100_000: 1}
    kept, left = limit_row(row(notifier={**made_up, "timeout": "3s"}), BOUNDS)
    assert kept == row(notifier={"timeout": "3s"})
    assert list(left.values()) == ["there is no such setting; it is ignored (and 5,000 more)"]
    _, left = limit_row(row(notifier={"y" * 100_000: 1}), BOUNDS)
    assert max(map(len, left)) < 100


def test_names_are_suggested_for_the_first_rows_of_a_list(tmp_path: Path) -> None:
    """A comparison takes 0.2 ms, and a list may have an unknown name in each of 200,000 rows."""
    rows = [row(f"c{nth}", notifier={f"timeou{nth}": "3s"}) for nth in range(MAX_SUGGESTIONS + 1)]
    made = built(tmp_path, of_list(*rows, issuer=ONE))
    [group] = made.registry.ignored_groups()
    assert group.count == MAX_SUGGESTIONS + 1
    assert all("did you mean timeout?" in mistake.text for mistake in group.first)
    assert limit_row(rows[0], BOUNDS, suggest=False)[1] == {
        "notifier.timeou0": "there is no such setting; it is ignored"
    }


def test_number_of_reported_kinds_is_bounded(tmp_path: Path) -> None:
    """Names that rows invent, aliases and origins do not add kinds."""
    rows = [
        row(f"c{nth}", aliases=[f"a{nth}"], notifier={f"typ{nth}": "x", "claims": {"x": nth}}) for nth in range(300)
    ]
    made = built(tmp_path, of_list(*rows, issuer=ONE, clients=["c*"]))
    assert [each.count for each in made.registry.ignored_groups()] == [300, 300, 300]
    assert made.registry.ignored_count == 900


def test_ignored_values_are_not_kept() -> None:
    """It would take memory and cache space, and may be a secret."""
    kept = clean_row(row(notifier={"typ": "JWT" * 999, "claims": {"a": 1}, "headers": None, "timeout": "3s"}), "[0]")
    assert kept == row(notifier={"typ": REDACTED, "claims": REDACTED, "headers": None, "timeout": "3s"})


def test_client_id_with_surrounding_characters_is_warned(tmp_path: Path) -> None:
    """The identity server may use it; more likely its events name another client."""
    settings(tmp_path, json.dumps([row("shop"), row("mail "), row("“wiki”")]))
    (tmp_path / "key.pem").write_bytes(pem("RS256"))
    loaded = load(tmp_path / "notifier.json", {}, FEATURES)
    assert [str(each) for each in loaded.warnings] == [
        "clients.yaml[1].client_id: ends with a blank; remove it",
        "clients.yaml[2].client_id: begins with the quotation mark “, as part of the value; remove it",
    ]


def test_settings_beside_notifier_are_warned(tmp_path: Path) -> None:
    """They have no effect there. `audience` is a member of Hydra's clients."""
    beside = {"preset": "quarkus", "tls": {"ca_file": "ca.pem"}, "timeout": None, "audience": ["shop"]}
    settings(tmp_path, json.dumps([row("shop") | beside]))
    (tmp_path / "key.pem").write_bytes(pem("RS256"))
    assert [str(each) for each in load(tmp_path / "notifier.json", {}, FEATURES).warnings] == [
        "clients.yaml[0].preset: has no effect here; write notifier: {preset: …}",
        "clients.yaml[0].tls: has no effect here; write notifier: {tls: …}",
    ]

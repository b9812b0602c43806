"""Test layered registry sources: resulting clients, omitted clients, and incremental refresh."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.authority import Authority
from notifier.configuration.clients.guard import rebuild_registry
from notifier.configuration.clients.layer import BuildContext, BuiltRegistry, Layer
from notifier.configuration.clients.layers import build_registry
from notifier.model.client import Algorithm, Client
from notifier.model.errors import InputIssue
from notifier.model.record import copy_record
from notifier.settings.service_settings import Settings
from tests.configuration.clients.registry_sample import HOOK, ONE, TWO, settings


def build_context(folder: Path, *issuers: str, **registry: Any) -> BuildContext:
    """Return the context: keys with RS256 only."""
    return BuildContext(
        settings=_settings(folder, *issuers, **registry), algorithms_of=lambda _: frozenset({Algorithm.RS256})
    )


def _settings(folder: Path, *issuers: str, **registry: Any) -> Settings:
    return settings(folder, "[]", *issuers, registry={"sources": [{"file": "clients.yaml"}], **registry})


def remote(*rows: Any, name: str = "db", issuer: str | None = ONE, faults: Sequence[InputIssue] = ()) -> Layer:
    """Return the answer of a database or server."""
    return Layer(name=name, rows=list(rows), issuer=issuer, context={}, faults=faults)


def file(*rows: Any, issuer: str | None = None) -> Layer:
    """Return a file of the operator."""
    return Layer(name="file", rows=list(rows), issuer=issuer, context={"base": Path()}, file="clients.yaml")


def row(client_id: str = "shop", **members: Any) -> dict[str, Any]:
    """Return a client with an address."""
    return {"client_id": client_id, "backchannel_logout_uri": HOOK, **members}


def clients(built: BuiltRegistry, iss: str = ONE) -> Mapping[str, Client]:
    """Return the clients in force."""
    return built.registry.clients_of(iss)


def test_a_later_source_overrides_member_by_member(tmp_path: Path) -> None:
    """Also under `notifier`. Unset members come from the issuer's defaults."""
    under = remote(row(subject_type="pairwise", notifier={"timeout": "3s", "max_concurrent": 2}))
    over = file({"client_id": "shop", "backchannel_logout_uri": f"{HOOK}/2", "notifier": {"timeout": "4s"}})
    defaults = {ONE: {"max_concurrent": 9, "max_age": "1h", "retry": {"base": "1s"}}}
    built = build_registry(build_context(tmp_path, defaults=defaults), [under, over])
    shop = clients(built)["shop"]
    assert (shop.backchannel_logout_uri, shop.pairwise, shop.timeout, shop.max_concurrent) == (f"{HOOK}/2", True, 4, 2)
    assert (shop.retry.max_age, shop.retry.base) == (3600, 1)
    assert (built.registry.default_of(ONE).retry, built.registry.default_of(TWO).retry.max_age) == (shop.retry, 86_400)
    assert not built.mistakes
    assert not built.faults


def test_settings_alone_do_not_register_a_client(tmp_path: Path) -> None:
    """They apply at every issuer where another source has the client; elsewhere a warning reports them as unused."""
    own_file = file(
        {"client_id": "shop", "notifier": {"paused": True}}, {"client_id": "gone", "notifier": {"paused": True}}
    )
    built = build_registry(
        build_context(tmp_path, ONE, TWO), [remote(row()), remote(row(), name="other", issuer=TWO), own_file]
    )
    assert [clients(built, iss)["shop"].paused for iss in (ONE, TWO)] == [True, True]
    assert "gone" not in clients(built)
    assert [each.path for each in built.warnings] == ["clients.yaml[1]"]
    unread = copy_record(remote(), read=False)
    assert not build_registry(build_context(tmp_path, ONE, TWO), [remote(row()), unread, own_file]).warnings


def test_issuer_without_a_source_may_have_clients(tmp_path: Path) -> None:
    """Unless the operator declares it empty. A refresh checks again."""
    listed = copy_record(remote(row(issuer=ONE), issuer=None), authority=Authority(issuers=(ONE, TWO), clients=None))
    what = build_context(tmp_path, ONE, TWO)
    silent = {TWO: "registry source db has listed no client of this issuer"}
    assert build_registry(what, [file(row(issuer=TWO)), listed]).registry.incomplete == silent
    assert build_registry(what, [copy_record(listed, may_be_empty=True)]).registry.incomplete == {}
    unread = copy_record(listed, rows=[], read=False, may_be_empty=True)
    assert build_registry(what, [unread]).registry.incomplete == dict.fromkeys(
        (ONE, TWO), "registry source db was never read"
    )
    fuller = copy_record(listed, rows=[*listed.rows, row("mail", issuer=TWO)])
    built = build_registry(what, [listed])
    assert rebuild_registry(what, built.registry, [listed], 0, fuller, lambda: None).registry.incomplete == {}
    assert rebuild_registry(what, built.registry, [fuller], 0, listed, lambda: None).registry.incomplete == silent
    assert build_registry(what, [file(row(issuer=ONE))]).registry.incomplete == {}


def test_first_algorithm_with_a_key_is_used(tmp_path: Path) -> None:
    """As servers with such lists do. If no key supports any, the first is used."""
    several = remote(
        row("a", id_token_signed_response_alg=["ES256", "RS256"]),
        row("b", id_token_signed_response_alg=["ES256", "PS256"]),
        row("c", id_token_signed_response_alg=["PS256", "RS256"]),
    )
    built = build_registry(
        build_context(tmp_path), [several, file({"client_id": "c", "id_token_signed_response_alg": "RS256"})]
    )
    assert {name: client.token.alg for name, client in clients(built).items()} == {"a": "RS256", "c": "RS256"}
    assert [fault.path for fault in built.faults] == ["client 'b' of registry source db"]
    assert "add a P-256 key" in built.faults[0].text


def test_a_client_without_an_address_is_a_client(tmp_path: Path) -> None:
    """A later server may have only its name: it is known, receives no tokens, and causes no warning."""
    built = build_registry(build_context(tmp_path), [remote(row()), remote({"client_id": "quiet"}, name="auth0")])
    assert clients(built)["quiet"].backchannel_logout_uri is None
    assert not built.warnings


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"backchannel_logout_uri": "https://shop.example.com/x#y"}, "fragment"),
        ({"id_token_signed_response_alg": "HS256"}, "must be 'RS256'"),
        ({"id_token_signed_response_alg": "ES256"}, "add a P-256 key"),
        ({"notifier": {"timeout": "3"}}, "timeout"),
        ({"subject_type": 7}, "subject_type"),
        ({"id_token_encrypted_response_alg": "RSA-OAEP"}, "register its jwks or jwks_uri"),
    ],
)
def test_invalid_row_of_a_server_rejects_only_its_client(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    """The registry has the reason. The same in a file of the operator is a configuration error."""
    built = build_registry(build_context(tmp_path), [remote(row(), row("bad", **wrong))])
    assert list(clients(built)) == ["shop"]
    assert words in built.registry.faults[ONE]["bad"]
    assert not built.mistakes
    if "ES256" not in wrong.values():  # `load` itself finds what a file wants of keys
        of_file = build_registry(build_context(tmp_path), [remote(row()), file(row("bad", issuer=ONE, **wrong))])
        assert words in "; ".join(map(str, of_file.mistakes))


def test_error_is_attributed_to_the_source_of_the_member(tmp_path: Path) -> None:
    """A member that the file sets is an error of the file; a member from the server is the server's."""
    bad = "https://shop.example.com/x#y"
    built = build_registry(
        build_context(tmp_path), [remote(row(backchannel_logout_uri=bad)), file({"client_id": "shop", "notifier": {}})]
    )
    assert (len(built.mistakes), len(built.faults)) == (0, 1)
    built = build_registry(build_context(tmp_path), [remote(row()), file(row(backchannel_logout_uri=bad))])
    assert (len(built.mistakes), len(built.faults)) == (1, 0)
    built = build_registry(build_context(tmp_path), [remote(row(backchannel_logout_uri=bad)), file(row())])
    assert list(clients(built)) == ["shop"]


@pytest.mark.parametrize("nonsense", [7, None, "shop", [], {}, {"client_id": 7}, row(issuer="https://no.example.com")])
def test_rows_that_are_not_clients_are_reported(tmp_path: Path, nonsense: Any) -> None:
    """Such rows of a server do not affect others."""
    built = build_registry(build_context(tmp_path, ONE, TWO), [remote(row(), nonsense, issuer=ONE)])
    assert list(clients(built)) == ["shop"]
    assert len(built.faults) == 1
    assert build_registry(build_context(tmp_path), [remote(row()), file(nonsense)]).mistakes


def test_faults_of_the_reader_are_reported(tmp_path: Path) -> None:
    """A client that its reader rejected is known as such, unless another source has it."""
    faults = [InputIssue("bad", "its address holds ${x}"), InputIssue("repaired", "its address holds ${x}")]
    built = build_registry(build_context(tmp_path), [remote(row(), faults=faults), file(row("repaired"))])
    assert built.registry.faults[ONE] == {"bad": "its address holds ${x} (registry source db)"}
    assert set(clients(built)) == {"shop", "repaired"}


def test_duplicate_client_in_one_source(tmp_path: Path) -> None:
    """The first row is used, and the second is reported."""
    built = build_registry(build_context(tmp_path), [remote(row(), row(backchannel_logout_uri=f"{HOOK}/2"))])
    assert clients(built)["shop"].backchannel_logout_uri == HOOK
    assert "already" in built.faults[0].text


def test_other_names_of_a_client(tmp_path: Path) -> None:
    """A source may have further names of a client, which are not metadata."""
    built = build_registry(build_context(tmp_path), [remote(row(aliases=["4a1d", "x"]))])
    assert built.registry.aliases == {ONE: {"4a1d": "shop", "x": "shop"}}
    assert not built.faults


def test_settings_of_an_absent_client_are_validated(tmp_path: Path) -> None:
    """Its source may be unavailable, and answer later."""
    rows = [{"client_id": "shop", "notifier": {"timeout": 3}}, {"client_id": "shop", "notifier": {"timeout": "3s"}}]
    built = build_registry(build_context(tmp_path, ONE, TWO), [remote(), file(*rows), file(rows[1])])
    assert [each.path for each in built.mistakes] == ["clients.yaml[0].notifier.timeout"]


def test_refresh_in_conflict_with_the_file_omits_the_client(tmp_path: Path) -> None:
    """And reports it, since the file is not read again."""
    what, own_file = build_context(tmp_path), file({"client_id": "shop", "notifier": {"subject": "sub"}})
    empty, full = remote(), remote(row(backchannel_logout_session_required=True), row("other"))
    built = rebuild_registry(
        what, build_registry(what, [empty, own_file]).registry, [empty, own_file], 0, full, lambda: None
    )
    assert [*clients(built)] == ["other"]
    assert "needs a sid" in built.registry.faults[ONE]["shop"]
    assert [each.path for each in built.faults] == ["client 'shop' of registry source db"]


def test_refresh_equals_a_full_build(tmp_path: Path) -> None:
    """For each change in one of three sources: new, removed, changed, invalid, valid again, with our settings."""
    chance = random.Random(7)
    what = build_context(tmp_path, ONE, TWO, defaults={TWO: {"timeout": "9s"}})
    names = [f"c{number}" for number in range(30)]

    def some(name: str, **more: Any) -> dict[str, Any]:
        bad = {"backchannel_logout_uri": "https://x.example.com/#f"} if chance.random() < 0.1 else {}
        alias = {"aliases": [f"alias-{name}"]} if chance.random() < 0.3 else {}
        return row(name, notifier={"max_concurrent": chance.randint(1, 9)}, **{**alias, **bad, **more})

    def source(old: Sequence[Any], issuer: str) -> list[Any]:
        known = {each["client_id"]: each for each in old}
        rows = [known[n] if n in known and chance.random() < 0.8 else some(n) for n in names if chance.random() < 0.8]
        return [*rows, {"client_id": "odd", "issuer": 7}] if issuer == TWO and chance.random() < 0.5 else rows

    layers = [
        remote(*source([], ONE), name="a", issuer=ONE),
        remote(*source([], TWO), name="b", issuer=TWO),
        file(
            *({"client_id": name, "notifier": {"paused": True}} for name in names[::3]),
            row("own", issuer=ONE),
            *(row(f"{name}-us", issuer=ONE, notifier={"follows": name}) for name in names[::4]),
            row("c7", issuer=TWO, notifier={"follows": "c8"}),
            row("c11", issuer=TWO, notifier={"follows": "c8"}),
        ),
    ]
    registry = build_registry(what, layers).registry
    for turn in range(40):
        nth = turn % 2
        fault = [InputIssue(chance.choice(names), "unusable")] if chance.random() < 0.3 else []
        new = copy_record(layers[nth], rows=source(layers[nth].rows, (ONE, TWO)[nth]), faults=fault)
        again = rebuild_registry(what, registry, layers, nth, new, lambda: None)
        layers[nth] = new
        whole = build_registry(what, layers).registry
        registry = again.registry
        for iss in (ONE, TWO):
            assert dict(registry.clients_of(iss)) == dict(whole.clients_of(iss))
            assert registry.faults.get(iss, {}) == whole.faults.get(iss, {})
            assert registry.refused.get(iss, {}) == whole.refused.get(iss, {})
            assert registry.aliases.get(iss, {}) == whole.aliases.get(iss, {})
            assert registry.followers == whole.followers


def test_a_refresh_validates_only_what_changed(tmp_path: Path) -> None:
    """The client of an unchanged row object is the same object too."""
    what = build_context(tmp_path)
    rows = [row(f"c{number}") for number in range(10)]
    layers = [remote(*rows)]
    before = build_registry(what, layers).registry
    after = rebuild_registry(
        what, before, layers, 0, remote(*rows[:4], row("c4", subject_type="pairwise"), *rows[5:]), lambda: None
    )
    same = [name for name, client in clients(after).items() if client is before.clients_of(ONE)[name]]
    assert sorted(same) == [f"c{number}" for number in range(10) if number != 4]
    assert clients(after)["c4"].pairwise

"""Grants of files (headers, our certificate, a proxy, wider egress) do not follow a list to another origin."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.guard import rebuild_registry
from notifier.configuration.clients.layer import BuiltRegistry, Layer
from notifier.configuration.clients.layers import build_registry
from notifier.configuration.clients.route_grants import find_withheld_reasons
from notifier.model.client import Client, ClientKeysSource, EgressPolicy, Route, TlsFiles
from notifier.model.delivery import ClientOverrides
from notifier.settings.policies import EgressSettings
from tests.configuration.clients.registry_sample import HOOK, ONE, TWO, mistakes, registry
from tests.configuration.clients.test_authority import (
    EVIL,
    build_context,
    built,
    ignored_members,
    of_file,
    of_list,
    row,
)

SHOP, ELSEWHERE = "https://shop.example.com", "https://evil.example.net"
GRANTED: dict[str, dict[str, Any]] = {
    "notifier.headers": {"headers": {"X-Gateway": "hunter2"}},
    "notifier.tls.cert_file": {"tls": {"cert_file": "cert.pem", "key_file": "cert.pem"}},
    "notifier.proxy": {"proxy": "http://u:hunter2@proxy.example.com:3128"},
    "notifier.egress": {"egress": {"allow": ["10.0.0.0/8"]}},
}
KEYS = f"{SHOP}/jwks"
ENCRYPTED = {"id_token_encrypted_response_alg": "RSA-OAEP"}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cert.pem").write_text("a certificate")
    (tmp_path / "ca.pem").write_text("an authority")
    monkeypatch.chdir(tmp_path)


def of_operator(**members: Any) -> Layer:
    """Return the settings of the operator's file."""
    return of_file({"client_id": "shop", **members})


def of_remote(uri: str | None = EVIL, **members: Any) -> Layer:
    """Return the row of the list."""
    return of_list(row(**members) | ({} if uri is None else {"backchannel_logout_uri": uri}), issuer=ONE)


def client(made: BuiltRegistry) -> Client:
    """Return the client, which exists with any grant."""
    assert not made.mistakes
    assert not made.faults
    return made.registry.clients_of(ONE)["shop"]


@pytest.mark.parametrize("member", GRANTED)
@pytest.mark.parametrize("uri", [EVIL, "http://shop.example.com/hook", f"{SHOP}:8443/hook", f"{SHOP}.example.net/"])
def test_list_that_moves_a_client_withholds_its_grants(tmp_path: Path, member: str, uri: str) -> None:
    """Neither to another host, scheme or port. It is reported, with the origin to add."""
    made = built(tmp_path, of_operator(notifier=GRANTED[member] | {"origins": [SHOP]}), of_remote(uri))
    route = client(made).route
    assert route == Route(withheld=route.withheld)
    origin = uri.removesuffix("/hook").removesuffix("/")
    assert route.withheld == (
        f"backchannel_logout_uri leads to {origin}, which no file names; if it is right, add it to the client's"
        f" notifier.origins in a file: until then nothing is sent, since requests would carry {member}"
    )
    assert ignored_members(made) == [f"client 'shop' of registry source db: {route.withheld}"]


@pytest.mark.parametrize("member", GRANTED)
def test_origins_of_a_file_receive_the_grants(tmp_path: Path, member: str) -> None:
    """By `notifier.origins`, for any path, as the list writes them; or by the client's address in a file."""
    named = of_operator(notifier=GRANTED[member] | {"origins": [SHOP, f"{ELSEWHERE.upper()}:443/"]})
    granted = client(built(tmp_path, named, of_remote(HOOK))).route
    assert granted.withheld is None
    assert granted != Route()
    moved = built(tmp_path, named, of_remote("https://EVIL.example.net:443/other?x=1"))
    assert client(moved).route == granted
    assert not ignored_members(moved)
    fixed = built(tmp_path, of_remote(), of_operator(notifier=GRANTED[member], backchannel_logout_uri=HOOK))
    assert (client(fixed).route, client(fixed).backchannel_logout_uri) == (granted, HOOK)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tls": {"ca_file": "ca.pem"}},
        {"egress": {"allow": []}},
        {"egress": {"allow": ["10.0.0.0/8"], "deny": ["192.0.2.0/24", "198.51.100.0/24"]}},
        {"headers": {}},
        {"timeout": "3s", "typ": "JWT"},
    ],
)
def test_settings_without_risk_need_no_origin(tmp_path: Path, options: dict[str, Any]) -> None:
    """An authority to trust, and an egress no wider than the service's, apply at any address."""
    egress = {"allow": ["10.0.0.0/8"], "deny": ["192.0.2.0/24"]}
    made = built(tmp_path, of_operator(notifier=options), of_remote(), egress=egress)
    assert client(made).route.withheld is None
    assert not ignored_members(made)


@pytest.mark.parametrize(
    "egress", [{"allow": ["10.1.0.0/16"]}, {"deny": []}, {"allow_http": True}, {"allow": ["169.254.169.254/32"]}]
)
def test_an_egress_is_wider_if_it_may_allow_more(tmp_path: Path, egress: dict[str, Any]) -> None:
    """Also by a part of a network: the narrowest rule decides."""
    given = {"allow": ["10.0.0.0/8", "169.254.0.0/16"], "deny": ["192.0.2.0/24"]}
    made = built(tmp_path, of_operator(notifier={"egress": egress, "origins": [SHOP]}), of_remote(), egress=given)
    assert client(made).route.withheld is not None


@pytest.mark.parametrize("member", GRANTED)
def test_grant_without_an_origin_is_refused(tmp_path: Path, member: str) -> None:
    """A list could send it anywhere. The same holds for a client without an address."""
    for layers in ([of_operator(notifier=GRANTED[member]), of_remote()], [of_operator(notifier=GRANTED[member])]):
        [mistake] = build_registry(build_context(tmp_path), layers).mistakes
        assert mistake.path == f"clients.yaml[0].{member}"
        assert "none is named" in mistake.text
    text = str([{"client_id": "shop", "jwks_uri": KEYS, "notifier": GRANTED[member]}])
    assert mistakes(tmp_path, text).keys() == {f"clients.yaml[0].{member}"}


@pytest.mark.parametrize("origin", ["shop.example.com", f"{SHOP}/hook", f"{SHOP}?x", "*", "https://*.example.com", ""])
def test_an_origin_is_one_host(tmp_path: Path, origin: str) -> None:
    """Patterns and paths are refused, since they would look effective."""
    text = str([{"client_id": "shop", "backchannel_logout_uri": HOOK, "notifier": {"origins": [origin]}}])
    assert mistakes(tmp_path, text).keys() == {"clients.yaml[0].notifier.origins[0]"}


def test_address_that_only_the_withheld_egress_allows_waits(tmp_path: Path) -> None:
    """Rejecting the client would make dead letters of its logouts."""
    wide = {"egress": {"allow": ["10.0.0.0/8"], "allow_http": True}, "origins": ["http://10.0.0.1"]}
    assert (
        client(built(tmp_path, of_operator(notifier=wide), of_remote("http://10.0.0.2/hook"))).route.withheld
        is not None
    )
    assert client(built(tmp_path, of_operator(notifier=wide), of_remote("http://10.0.0.1/hook"))).route.withheld is None


@dataclass(frozen=True)
class Front:
    """A front-channel client that the worker calls, as a list registers it."""

    uri: str

    def layer(self) -> Layer:
        members = {"client_id": "shop", "frontchannel_logout_uri": self.uri, "notifier": {"front_channel": "server"}}
        return of_list(members, issuer=ONE)


def test_front_channel_call_has_no_withheld_grants(tmp_path: Path) -> None:
    """The worker calls it. It also waits for http or a private address, which no page could call."""
    named = of_operator(notifier=GRANTED["notifier.headers"] | {"origins": [SHOP]})
    assert client(built(tmp_path, named, Front(HOOK).layer())).route.headers
    for uri in (EVIL, "http://10.0.0.2/out"):
        found = client(built(tmp_path, named, Front(uri).layer()))
        assert (found.logout_uri, found.route) == (uri, Route(withheld=found.route.withheld))
        assert (found.route.withheld or "").startswith("frontchannel_logout_uri leads to ")


def test_list_adds_a_back_channel_to_a_front_channel_of_a_file(tmp_path: Path) -> None:
    """The list's address receives the tokens."""
    file = of_operator(notifier=GRANTED["notifier.headers"], frontchannel_logout_uri=f"{SHOP}/out")
    assert client(built(tmp_path, file, of_remote())).route.withheld is not None
    assert client(built(tmp_path, file, of_remote(HOOK))).route.headers


@pytest.mark.parametrize("member", ["headers", "tls.cert_file"])
def test_defaults_grant_secrets_to_named_origins_only(tmp_path: Path, member: str) -> None:
    """Defaults without named origins are refused. A client that a list places elsewhere waits."""
    options = GRANTED[f"notifier.{member}"]

    def sections(**more: Any) -> dict[str, Any]:
        sources = [{"file": "clients.yaml"}]
        return {"registry": {"sources": sources, "defaults": {ONE: options | more}}}

    assert mistakes(tmp_path, "[]", **sections()).keys() == {f'registry.defaults["{ONE}"].{member}'}
    named = sections(origins=[SHOP])
    assert client(built(tmp_path, of_remote(HOOK), **named)).route.withheld is None
    moved = client(built(tmp_path, of_remote(), **named)).route.withheld or ""
    assert f'add it to registry.defaults["{ONE}"].origins: ' in moved
    assert moved.endswith(f'since requests would carry registry.defaults["{ONE}"].{member}')
    if member == "headers":
        own = of_operator(notifier={"headers": {}})
        assert client(built(tmp_path, of_remote(), own, **named)).route == Route(), "a file permits it without origins"
    of_file_ = registry(tmp_path, str([{"client_id": "shop", "backchannel_logout_uri": EVIL}]), **named)
    assert of_file_.clients_of(ONE)["shop"].route.withheld is None, "its address in a file names the origin"


@pytest.mark.parametrize("issuers", [[ONE, TWO], [TWO, ONE]])
def test_defaults_apply_at_their_issuer_only(tmp_path: Path, issuers: list[str]) -> None:
    """The client has no defaults at its other issuer, whichever issuer its entry names first."""
    defaults = {ONE: {"headers": {"Authorization": "Bearer x"}, "origins": [SHOP], "lifetime": "60s"}}
    rows = [{"client_id": "shop", "issuer": issuers, "backchannel_logout_uri": HOOK}]
    known = registry(tmp_path, str(rows), ONE, TWO, registry={"file": "clients.yaml", "defaults": defaults})
    one, two = (known.clients_of(iss)["shop"] for iss in (ONE, TWO))
    assert (dict(one.route.headers), one.token.lifetime) == ({"Authorization": "Bearer x"}, 60)
    assert (two.route.headers, two.token.lifetime, two.iss) == ((), 120, TWO)


def test_defaults_without_secrets_apply_to_every_address(tmp_path: Path) -> None:
    """A proxy, authorities and an egress for all clients of an issuer."""
    every = {"proxy": "http://proxy.example.com:3128", "tls": {"ca_file": "ca.pem"}, "egress": {"allow_http": True}}
    sections = {"registry": {"sources": [{"file": "clients.yaml"}], "defaults": {ONE: every}}}
    made = built(tmp_path, of_remote("http://evil.example.net/hook"), **sections)
    assert (client(made).route.proxy, client(made).route.withheld) == (every["proxy"], None)
    own = of_operator(notifier={"egress": {"allow_http": True}})
    assert client(built(tmp_path, own, of_remote(), **sections)).route.withheld is None, "no wider than the defaults"


def way_to_keys(made: BuiltRegistry) -> Route:
    """Return the route to the `jwks_uri` of the client."""
    encryption = client(made).encryption
    assert encryption is not None
    assert isinstance(encryption.keys, ClientKeysSource)
    return encryption.keys.route


def test_keys_elsewhere_are_not_read_with_grants_of_a_file(tmp_path: Path) -> None:
    """Its deliveries wait as for a missing key. A header does not apply to keys, so they are read."""
    for member in ("notifier.proxy", "notifier.egress"):
        file = of_operator(notifier=GRANTED[member], backchannel_logout_uri=HOOK)
        made = built(tmp_path, file, of_remote(jwks_uri="https://10.0.0.2/keys", **ENCRYPTED))
        assert client(made).route.withheld is None
        assert way_to_keys(made) == Route(withheld=way_to_keys(made).withheld)
        assert "jwks_uri leads to https://10.0.0.2, which no file names" in ignored_members(made)[0]
        named = of_operator(notifier=GRANTED[member], backchannel_logout_uri=HOOK, jwks_uri="https://10.0.0.2/keys")
        wide = {"egress": {"allow": ["10.0.0.0/8"]}}
        assert way_to_keys(built(tmp_path, named, of_remote(**ENCRYPTED), **wide)).withheld is None, "a file permits it"
    file = of_operator(notifier=GRANTED["notifier.headers"], backchannel_logout_uri=HOOK)
    assert way_to_keys(built(tmp_path, file, of_remote(jwks_uri=EVIL, **ENCRYPTED))) == Route()


def test_certificate_is_withheld_if_a_list_moves_client_and_keys(tmp_path: Path) -> None:
    """Both to the same server, as if it were the client's own."""
    file = of_operator(notifier=GRANTED["notifier.tls.cert_file"] | {"origins": [SHOP]})
    moved = built(tmp_path, file, of_remote(jwks_uri=f"{ELSEWHERE}/keys", **ENCRYPTED))
    assert way_to_keys(moved).tls.cert_file is None
    assert len(find_withheld_reasons(client(moved))) == 1
    assert way_to_keys(built(tmp_path, file, of_remote(HOOK, jwks_uri=KEYS, **ENCRYPTED))).tls.cert_file is not None


def test_a_refresh_that_moves_a_client(tmp_path: Path) -> None:
    """At once, in both directions."""
    parts, file = build_context(tmp_path), of_operator(notifier=GRANTED["notifier.headers"] | {"origins": [SHOP]})
    before = [of_remote(HOOK), file]
    first = build_registry(parts, before)
    assert client(first).route.headers
    moved = rebuild_registry(parts, first.registry, before, 0, of_remote(), lambda: None)
    assert client(moved).route.withheld is not None
    assert len(ignored_members(moved)) == 1
    back = rebuild_registry(parts, moved.registry, [of_remote(), file], 0, of_remote(HOOK), lambda: None)
    assert (client(back).route, ignored_members(back)) == (client(first).route, [])


def test_grants_are_decided_per_issuer(tmp_path: Path) -> None:
    """Settings of a file that apply at each issuer are granted at one, and withheld at the other."""
    file = Layer(
        name="file", rows=[{"client_id": "shop", "notifier": GRANTED["notifier.headers"] | {"origins": [SHOP]}}],
        issuer=None, context={"base": Path()}, file="clients.yaml",
    )  # fmt: skip
    made = built(tmp_path, of_list(row(), issuer=ONE), of_list(row(uri=EVIL), name="two", issuer=TWO), file)
    assert made.registry.clients_of(ONE)["shop"].route.headers
    assert made.registry.clients_of(TWO)["shop"].route.withheld is not None


def test_address_of_an_event_has_no_grants(tmp_path: Path) -> None:
    """At the new origin it waits as well; elsewhere no grant applies."""
    made = built(tmp_path, of_operator(notifier=GRANTED["notifier.headers"] | {"origins": [SHOP]}), of_remote())
    for uri, waits in ((f"{ELSEWHERE}/inline", True), (HOOK, False)):
        found = made.registry.resolve(ONE, "shop", ClientOverrides(backchannel_logout_uri=uri))
        assert found is not None
        assert ((found.route.withheld is not None), found.route.headers) == (waits, ())


def test_defaults_reach_a_client_that_only_an_event_names(tmp_path: Path) -> None:
    """Time, limits and the trusted authority of its issuer's defaults; none of them applies at the other issuer."""
    defaults = {
        "timeout": "3s", "max_concurrent": 4, "per_second": 2.5, "max_age": "1h", "sub_only_max_age": "1m",
        "retry": {"base": "1s"}, "tls": {"ca_file": "ca.pem", "cert_file": "cert.pem"}, "proxy": "http://proxy:3128",
        "headers": {"X-Auth": "hunter2"}, "origins": [SHOP], "egress": {"allow": ["10.0.0.0/8"], "allow_http": True},
        "preset": "spring", "paused": True,
    }  # fmt: skip
    sections = {"delivery": {"retry": {"max_delay": "2m"}}, "registry": {"defaults": {ONE: defaults}}}
    made = registry(tmp_path, "[]", ONE, TWO, **sections)
    brought = made.resolve(ONE, "new", ClientOverrides(backchannel_logout_uri=HOOK))
    assert brought is not None
    assert not brought.registered
    assert (brought.timeout, brought.max_concurrent, brought.per_second) == (3.0, 4, 2.5)
    retry = brought.retry
    assert (retry.base, retry.max_delay, retry.max_age, retry.sub_only_max_age) == (1.0, 120.0, 3600.0, 60.0)
    assert brought.route == Route(tls=TlsFiles(ca_file=tmp_path / "ca.pem"))
    assert (brought.preset, brought.paused) == (None, False)
    other = made.resolve(TWO, "new", ClientOverrides(backchannel_logout_uri=HOOK))
    assert made.unregistered is not None
    assert other == replace(made.unregistered, iss=TWO, client_id="new", backchannel_logout_uri=HOOK)


def test_moved_client_keeps_only_the_authority_of_the_defaults(tmp_path: Path) -> None:
    """An address of an event at another origin is reached like a client that only the event names."""
    defaults = {"tls": {"ca_file": "ca.pem"}, "proxy": "http://proxy:3128"}
    text = f"[{{client_id: shop, backchannel_logout_uri: '{HOOK}'}}]"
    made = registry(tmp_path, text, registry={"file": "clients.yaml", "defaults": {ONE: defaults}})
    moved = made.resolve(ONE, "shop", ClientOverrides(backchannel_logout_uri=EVIL))
    assert moved is not None
    assert moved.route == Route(tls=TlsFiles(ca_file=tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("of_service", "of_defaults", "effect"),
    [
        ({}, {"allow": ["10.0.0.0/8"], "allow_http": True}, {}),
        ({"allow_http": True}, {"allow_http": False}, {}),
        ({"allow": ["10.0.0.0/8"]}, {"allow": []}, {}),
        ({"allow": ["10.0.0.0/8"]}, {"deny": ["8.8.8.0/24"]}, {"allow": ["10.0.0.0/8"], "deny": ["8.8.8.0/24"]}),
        ({"deny": ["8.8.8.0/24"]}, {"deny": []}, {"deny": ["8.8.8.0/24"]}),
        ({"allow": ["10.0.0.0/8"]}, {"allow": ["10.1.0.0/16", "172.16.0.0/12"]}, {"allow": ["10.1.0.0/16"]}),
        ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, {"allow": ["10.1.1.0/24"]}, {"deny": ["10.1.0.0/16"]}),
        ({"allow": ["10.0.0.0/8"]}, {"allow": ["10.0.0.1/32"]}, {"allow": ["10.0.0.1/32"]}),
        ({"allow": ["169.254.0.0/16"]}, {"allow": ["169.254.169.254/32"]}, {}),
    ],
)
def test_defaults_do_not_widen_egress_for_an_event(
    tmp_path: Path, of_service: dict[str, Any], of_defaults: dict[str, Any], effect: dict[str, Any]
) -> None:
    """It may be stricter than `egress` of the service, and never wider: the publisher chooses the address."""
    sections = {"egress": of_service, "registry": {"defaults": {ONE: {"egress": of_defaults}}}}
    brought = registry(tmp_path, "[]", **sections).resolve(ONE, "new", ClientOverrides(backchannel_logout_uri=HOOK))
    assert brought is not None
    assert brought.route.egress == EgressPolicy(**dict(EgressSettings.model_validate(effect)))


def test_contradictory_times_are_refused_without_clients(tmp_path: Path) -> None:
    """They would apply to a client that only an event names."""
    for defaults, member in (({"timeout": "599s"}, "timeout"), ({"retry": {"base": "2h"}}, "retry")):
        found = mistakes(tmp_path, "[]", registry={"file": "clients.yaml", "defaults": {ONE: defaults}})
        assert list(found) == [f'registry.defaults["{ONE}"].{member}']

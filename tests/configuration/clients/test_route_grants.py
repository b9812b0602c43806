"""What files lend a client follows no list to another origin: headers, our certificate, a proxy, a wider egress."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.guard import rebuild_registry
from notifier.configuration.clients.layer import Layer
from notifier.configuration.clients.layers import BuiltRegistry, build_registry
from notifier.configuration.clients.route_grants import withheld_routes_of
from notifier.model.client import Client, ClientKeysSource, EgressPolicy, Route, TlsFiles
from notifier.model.delivery import ClientOverrides
from notifier.settings.policies import EgressSettings
from tests.configuration.clients.registry_sample import HOOK, ONE, TWO, mistakes, registry
from tests.configuration.clients.test_authority import EVIL, build_context, built, of_file, of_list, row, told

SHOP, ELSEWHERE = "https://shop.example.com", "https://evil.example.net"
LENT: dict[str, dict[str, Any]] = {
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


def ours(**members: Any) -> Layer:
    """What the operator's file says of the client."""
    return of_file({"client_id": "shop", **members})


def theirs(uri: str | None = EVIL, **members: Any) -> Layer:
    """What the list says of it."""
    return of_list(row(**members) | ({} if uri is None else {"backchannel_logout_uri": uri}), issuer=ONE)


def client(made: BuiltRegistry) -> Client:
    """It is kept, whatever it is lent."""
    assert not made.mistakes
    assert not made.faults
    return made.registry.clients_of(ONE)["shop"]


@pytest.mark.parametrize("member", LENT)
@pytest.mark.parametrize("uri", [EVIL, "http://shop.example.com/hook", f"{SHOP}:8443/hook", f"{SHOP}.example.net/"])
def test_a_list_that_moves_a_client_takes_nothing_along(tmp_path: Path, member: str, uri: str) -> None:
    """Neither to another host, nor to another scheme or port. It is told, with the origin to add."""
    made = built(tmp_path, ours(notifier=LENT[member] | {"origins": [SHOP]}), theirs(uri))
    route = client(made).route
    assert route == Route(withheld=route.withheld)
    origin = uri.removesuffix("/hook").removesuffix("/")
    assert route.withheld == (
        f"backchannel_logout_uri leads to {origin}, which no file names; if it is right, add it to the client's"
        f" notifier.origins in a file: until then nothing is sent, since requests would carry {member}"
    )
    assert told(made) == [f"client 'shop' of registry source db: {route.withheld}"]


@pytest.mark.parametrize("member", LENT)
def test_the_origins_that_a_file_names_get_it(tmp_path: Path, member: str) -> None:
    """By `notifier.origins`, whatever the path, as the list writes them; or by the client's address in a file."""
    named = ours(notifier=LENT[member] | {"origins": [SHOP, f"{ELSEWHERE.upper()}:443/"]})
    granted = client(built(tmp_path, named, theirs(HOOK))).route
    assert granted.withheld is None
    assert granted != Route()
    moved = built(tmp_path, named, theirs("https://EVIL.example.net:443/other?x=1"))
    assert client(moved).route == granted
    assert not told(moved)
    fixed = built(tmp_path, theirs(), ours(notifier=LENT[member], backchannel_logout_uri=HOOK))
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
def test_what_is_no_secret_and_opens_nothing_needs_no_origin(tmp_path: Path, options: dict[str, Any]) -> None:
    """An authority to trust, and an egress that is no wider than that of all, go wherever the client is."""
    egress = {"allow": ["10.0.0.0/8"], "deny": ["192.0.2.0/24"]}
    made = built(tmp_path, ours(notifier=options), theirs(), egress=egress)
    assert client(made).route.withheld is None
    assert not told(made)


@pytest.mark.parametrize(
    "egress", [{"allow": ["10.1.0.0/16"]}, {"deny": []}, {"allow_http": True}, {"allow": ["169.254.169.254/32"]}]
)
def test_an_egress_is_wider_if_it_may_allow_more(tmp_path: Path, egress: dict[str, Any]) -> None:
    """Also by a part of a network: the narrowest decides."""
    given = {"allow": ["10.0.0.0/8", "169.254.0.0/16"], "deny": ["192.0.2.0/24"]}
    made = built(tmp_path, ours(notifier={"egress": egress, "origins": [SHOP]}), theirs(), egress=given)
    assert client(made).route.withheld is not None


@pytest.mark.parametrize("member", LENT)
def test_without_any_origin_it_is_refused(tmp_path: Path, member: str) -> None:
    """A list could send it anywhere. So it is where the client has no address at all."""
    for layers in ([ours(notifier=LENT[member]), theirs()], [ours(notifier=LENT[member])]):
        [mistake] = build_registry(build_context(tmp_path), layers).mistakes
        assert mistake.path == f"clients.yaml[0].{member}"
        assert "none is named" in mistake.text
    text = str([{"client_id": "shop", "jwks_uri": KEYS, "notifier": LENT[member]}])
    assert mistakes(tmp_path, text).keys() == {f"clients.yaml[0].{member}"}


@pytest.mark.parametrize("origin", ["shop.example.com", f"{SHOP}/hook", f"{SHOP}?x", "*", "https://*.example.com", ""])
def test_an_origin_is_one_host(tmp_path: Path, origin: str) -> None:
    """No pattern, and no path that would look as if it counted."""
    text = str([{"client_id": "shop", "backchannel_logout_uri": HOOK, "notifier": {"origins": [origin]}}])
    assert mistakes(tmp_path, text).keys() == {"clients.yaml[0].notifier.origins[0]"}


def test_an_address_that_the_lent_egress_alone_allows_waits_too(tmp_path: Path) -> None:
    """It is not left out, which would make dead letters of its logouts."""
    wide = {"egress": {"allow": ["10.0.0.0/8"], "allow_http": True}, "origins": ["http://10.0.0.1"]}
    assert client(built(tmp_path, ours(notifier=wide), theirs("http://10.0.0.2/hook"))).route.withheld is not None
    assert client(built(tmp_path, ours(notifier=wide), theirs("http://10.0.0.1/hook"))).route.withheld is None


@dataclass(frozen=True)
class Front:
    """A client that the worker calls by front-channel, as a list registers it."""

    uri: str

    def layer(self) -> Layer:
        said = {"client_id": "shop", "frontchannel_logout_uri": self.uri, "notifier": {"front_channel": "server"}}
        return of_list(said, issuer=ONE)


def test_a_call_by_front_channel_takes_nothing_along_either(tmp_path: Path) -> None:
    """The worker makes it. It waits also where no page could ask: http, or a private address."""
    named = ours(notifier=LENT["notifier.headers"] | {"origins": [SHOP]})
    assert client(built(tmp_path, named, Front(HOOK).layer())).route.headers
    for uri in (EVIL, "http://10.0.0.2/out"):
        found = client(built(tmp_path, named, Front(uri).layer()))
        assert (found.logout_uri, found.route) == (uri, Route(withheld=found.route.withheld))
        assert (found.route.withheld or "").startswith("frontchannel_logout_uri leads to ")


def test_a_back_channel_that_a_list_adds_to_a_front_channel_of_a_file(tmp_path: Path) -> None:
    """It is by the list's address that the client is told."""
    file = ours(notifier=LENT["notifier.headers"], frontchannel_logout_uri=f"{SHOP}/out")
    assert client(built(tmp_path, file, theirs())).route.withheld is not None
    assert client(built(tmp_path, file, theirs(HOOK))).route.headers


@pytest.mark.parametrize("member", ["headers", "tls.cert_file"])
def test_defaults_lend_a_secret_to_named_origins_alone(tmp_path: Path, member: str) -> None:
    """Without any they are refused. A client that a list has elsewhere waits."""
    options = LENT[f"notifier.{member}"]

    def sections(**more: Any) -> dict[str, Any]:
        sources = [{"file": "clients.yaml"}]
        return {"registry": {"sources": sources, "defaults": {ONE: options | more}}}

    assert mistakes(tmp_path, "[]", **sections()).keys() == {f'registry.defaults["{ONE}"].{member}'}
    named = sections(origins=[SHOP])
    assert client(built(tmp_path, theirs(HOOK), **named)).route.withheld is None
    moved = client(built(tmp_path, theirs(), **named)).route.withheld or ""
    assert f'add it to registry.defaults["{ONE}"].origins: ' in moved
    assert moved.endswith(f'since requests would carry registry.defaults["{ONE}"].{member}')
    if member == "headers":
        own = ours(notifier={"headers": {}})
        assert client(built(tmp_path, theirs(), own, **named)).route == Route(), "a file says that it needs none"
    of_file_ = registry(tmp_path, str([{"client_id": "shop", "backchannel_logout_uri": EVIL}]), **named)
    assert of_file_.clients_of(ONE)["shop"].route.withheld is None, "its address in a file names the origin"


def test_defaults_for_every_address_are_as_they_were(tmp_path: Path) -> None:
    """A proxy, authorities and an egress of all clients of an issuer."""
    every = {"proxy": "http://proxy.example.com:3128", "tls": {"ca_file": "ca.pem"}, "egress": {"allow_http": True}}
    sections = {"registry": {"sources": [{"file": "clients.yaml"}], "defaults": {ONE: every}}}
    made = built(tmp_path, theirs("http://evil.example.net/hook"), **sections)
    assert (client(made).route.proxy, client(made).route.withheld) == (every["proxy"], None)
    own = ours(notifier={"egress": {"allow_http": True}})
    assert client(built(tmp_path, own, theirs(), **sections)).route.withheld is None, "no wider than the defaults"


def way_to_keys(made: BuiltRegistry) -> Route:
    """How its `jwks_uri` is read."""
    encryption = client(made).encryption
    assert encryption is not None
    assert isinstance(encryption.keys, ClientKeysSource)
    return encryption.keys.route


def test_its_keys_are_not_read_elsewhere_by_the_proxy_and_egress_of_a_file(tmp_path: Path) -> None:
    """Its deliveries wait as for a missing key. With a header alone, which no key is read with, it is read."""
    for member in ("notifier.proxy", "notifier.egress"):
        file = ours(notifier=LENT[member], backchannel_logout_uri=HOOK)
        made = built(tmp_path, file, theirs(jwks_uri="https://10.0.0.2/keys", **ENCRYPTED))
        assert client(made).route.withheld is None
        assert way_to_keys(made) == Route(withheld=way_to_keys(made).withheld)
        assert "jwks_uri leads to https://10.0.0.2, which no file names" in told(made)[0]
        named = ours(notifier=LENT[member], backchannel_logout_uri=HOOK, jwks_uri="https://10.0.0.2/keys")
        wide = {"egress": {"allow": ["10.0.0.0/8"]}}
        assert way_to_keys(built(tmp_path, named, theirs(**ENCRYPTED), **wide)).withheld is None, "a file says it"
    file = ours(notifier=LENT["notifier.headers"], backchannel_logout_uri=HOOK)
    assert way_to_keys(built(tmp_path, file, theirs(jwks_uri=EVIL, **ENCRYPTED))) == Route()


def test_our_certificate_is_not_shown_where_a_list_has_moved_client_and_keys(tmp_path: Path) -> None:
    """Both to the same server, as if it were the client's own."""
    file = ours(notifier=LENT["notifier.tls.cert_file"] | {"origins": [SHOP]})
    moved = built(tmp_path, file, theirs(jwks_uri=f"{ELSEWHERE}/keys", **ENCRYPTED))
    assert way_to_keys(moved).tls.cert_file is None
    assert len(withheld_routes_of(client(moved))) == 1
    assert way_to_keys(built(tmp_path, file, theirs(HOOK, jwks_uri=KEYS, **ENCRYPTED))).tls.cert_file is not None


def test_a_refresh_that_moves_a_client(tmp_path: Path) -> None:
    """At once, and back again."""
    parts, file = build_context(tmp_path), ours(notifier=LENT["notifier.headers"] | {"origins": [SHOP]})
    before = [theirs(HOOK), file]
    first = build_registry(parts, before)
    assert client(first).route.headers
    moved = rebuild_registry(parts, first.registry, before, 0, theirs(), lambda: None)
    assert client(moved).route.withheld is not None
    assert len(told(moved)) == 1
    back = rebuild_registry(parts, moved.registry, [theirs(), file], 0, theirs(HOOK), lambda: None)
    assert (client(back).route, told(back)) == (client(first).route, [])


def test_each_issuer_s_clients_are_judged_by_its_own_list(tmp_path: Path) -> None:
    """Settings of a file that hold at each issuer are lent at the one, and kept back at the other."""
    file = Layer(
        name="file", rows=[{"client_id": "shop", "notifier": LENT["notifier.headers"] | {"origins": [SHOP]}}],
        issuer=None, context={"base": Path()}, file="clients.yaml",
    )  # fmt: skip
    made = built(tmp_path, of_list(row(), issuer=ONE), of_list(row(uri=EVIL), name="two", issuer=TWO), file)
    assert made.registry.clients_of(ONE)["shop"].route.headers
    assert made.registry.clients_of(TWO)["shop"].route.withheld is not None


def test_an_address_of_an_event_is_as_before(tmp_path: Path) -> None:
    """At the moved origin it waits as well; at another it is lent nothing."""
    made = built(tmp_path, ours(notifier=LENT["notifier.headers"] | {"origins": [SHOP]}), theirs())
    for uri, waits in ((f"{ELSEWHERE}/inline", True), (HOOK, False)):
        found = made.registry.resolve(ONE, "shop", ClientOverrides(backchannel_logout_uri=uri))
        assert found is not None
        assert ((found.route.withheld is not None), found.route.headers) == (waits, ())


def test_defaults_reach_a_client_that_only_an_event_names(tmp_path: Path) -> None:
    """Time, limits and the trusted authority of its issuer's defaults; what is theirs stays out of the other issuer."""
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


def test_a_moved_client_keeps_the_authority_of_the_defaults_alone(tmp_path: Path) -> None:
    """An event's address on another origin than the registered one is reached as one that only the event names."""
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
def test_no_default_opens_more_to_an_address_of_an_event(
    tmp_path: Path, of_service: dict[str, Any], of_defaults: dict[str, Any], effect: dict[str, Any]
) -> None:
    """It may be stricter than `egress` of the service, and never wider: whoever publishes chooses the address."""
    sections = {"egress": of_service, "registry": {"defaults": {ONE: {"egress": of_defaults}}}}
    brought = registry(tmp_path, "[]", **sections).resolve(ONE, "new", ClientOverrides(backchannel_logout_uri=HOOK))
    assert brought is not None
    assert brought.route.egress == EgressPolicy(**dict(EgressSettings.model_validate(effect)))


def test_times_that_cannot_be_are_refused_without_a_client_too(tmp_path: Path) -> None:
    """A client that only an event names would meet them."""
    for defaults, member in (({"timeout": "599s"}, "timeout"), ({"retry": {"base": "2h"}}, "retry")):
        found = mistakes(tmp_path, "[]", registry={"file": "clients.yaml", "defaults": {ONE: defaults}})
        assert list(found) == [f'registry.defaults["{ONE}"].{member}']

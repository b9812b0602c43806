"""Test registrations of encrypted tokens from any source: algorithms, keys, and the route to the keys."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.clients_file import load_registry, no_answer, read_registry
from notifier.configuration.clients.layer import BuildContext
from notifier.configuration.clients.remote_rows import clean_row
from notifier.model.client import (
    Client,
    ClientKeysSource,
    ContentEncryption,
    Encryption,
    KeyManagement,
    SubjectMode,
    TlsFiles,
)
from notifier.model.delivery import ClientOverrides
from notifier.model.errors import InputIssue
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings
from tests.configuration.clients.registry_sample import HOOK, ONE, TWO, mistakes, registry, settings, shop
from tests.tokens.encryption_keys import keys, made, public

KEYS = "https://shop.example.com/jwks"


def registered(folder: Path, **members: Any) -> Registry:
    """Return one client with encrypted tokens."""
    asked = {"client_id": "shop", "backchannel_logout_uri": HOOK, "id_token_encrypted_response_alg": "RSA-OAEP"}
    return registry(folder, json.dumps([asked | members]))


def asked(folder: Path, **members: Any) -> Encryption:
    found = registered(folder, **members).clients_of(ONE)["shop"].encryption
    assert found is not None
    return found


def place(found: Encryption) -> ClientKeysSource:
    assert isinstance(found.keys, ClientKeysSource)
    return found.keys


def test_algorithms_and_keys_are_as_they_are_registered(tmp_path: Path) -> None:
    """A128CBC-HS256 by default (OpenID Connect Registration §2); `jwks` takes precedence over `jwks_uri`."""
    found = asked(tmp_path, jwks_uri=KEYS)
    assert (found.alg, found.enc) == (KeyManagement.RSA_OAEP, ContentEncryption.A128CBC_HS256)
    assert place(found).uri == KEYS
    key = public(made("RSA"), kid="e1")
    found = asked(tmp_path, jwks_uri=KEYS, jwks={"keys": [key]}, id_token_encrypted_response_enc="A256GCM")
    assert (found.enc, found.keys) == (ContentEncryption.A256GCM, keys(key))


@pytest.mark.parametrize("jwks", [None, "", [], {"keys": []}])
def test_an_empty_set_is_absent(tmp_path: Path, jwks: object) -> None:
    """Serializers write an empty set if `jwks_uri` is registered."""
    assert place(asked(tmp_path, jwks_uri=KEYS, jwks=jwks)).uri == KEYS
    raw = {"client_id": "shop", "jwks": jwks, "id_token_encrypted_response_alg": "RSA-OAEP", "redirect_uris": []}
    row = clean_row(raw, "[0]")
    assert not isinstance(row, InputIssue)
    assert row.get("jwks", {"keys": []}) == {"keys": []}
    assert "redirect_uris" not in row


def test_without_the_algorithm_tokens_are_signed_only(tmp_path: Path) -> None:
    """Whatever keys it has, also broken ones: they serve other purposes."""
    for members in ({"jwks_uri": "http://10.0.0.1/"}, {"jwks": "none"}, {"jwks": {"keys": [{"kty": "RSA"}]}}):
        found = registered(tmp_path, id_token_encrypted_response_alg=None, **members)
        assert found.clients_of(ONE)["shop"].encryption is None


def test_route_to_the_keys_has_no_secrets_of_the_client(tmp_path: Path) -> None:
    """Our certificate is used for the client's own server only, and headers for none."""
    for name in ("ca.pem", "cert.pem", "cert.key"):
        (tmp_path / name).write_text("a file")
    tls = {"ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "cert.key"}
    notifier = {"tls": tls, "headers": {"X-Key": "hunter2"}, "proxy": "http://proxy.example.com:3128"}
    own = place(asked(tmp_path, jwks_uri=KEYS, notifier=notifier)).route
    assert (own.headers, own.proxy, own.tls.cert_file) == ((), notifier["proxy"], tmp_path / "cert.pem")
    elsewhere = place(asked(tmp_path, jwks_uri="https://keys.example.org/", notifier=notifier)).route
    assert elsewhere.tls == TlsFiles(ca_file=tmp_path / "ca.pem")


def test_address_of_an_event_does_not_change_the_keys(tmp_path: Path) -> None:
    """Its tokens can be decrypted with the client's key only; a client without an address has keys too."""
    found = registered(tmp_path, jwks_uri=KEYS)
    inline = ClientOverrides(backchannel_logout_uri="https://elsewhere.example.org/")
    client = found.resolve(ONE, "shop", inline)
    assert client is not None
    assert client.encryption == found.clients_of(ONE)["shop"].encryption
    silent = registered(tmp_path, backchannel_logout_uri=None).resolve(ONE, "shop", inline)
    assert silent is not None
    assert silent.encryption == Encryption(alg=KeyManagement.RSA_OAEP, keys=())


@pytest.mark.parametrize("jwks", [{"keys": [{"kty": "oct", "k": "hunter2"}]}, "hunter2", ["hunter2"]])
def test_no_secret_of_a_server_is_kept(jwks: Any) -> None:
    """And no keys of clients without encryption: they would fill memory and cache."""
    raw = {"client_id": "shop", "backchannel_logout_uri": HOOK, "jwks": jwks, "jwks_uri": KEYS}
    row = clean_row(raw | {"id_token_encrypted_response_alg": "RSA-OAEP"}, "[0]")
    assert not isinstance(row, InputIssue)
    assert "hunter2" not in str(row)
    assert clean_row(row, "[0]") == row, "as the cache gives it back"
    assert clean_row(raw, "[0]") == {"client_id": "shop", "backchannel_logout_uri": HOOK, "jwks_uri": KEYS}


# ── The clients file: metadata, presets and defaults become clients ──────────────────────────────────────────────────


class TestClients:
    def test_minimal_client(self, tmp_path: Path) -> None:
        """A client requires only `client_id`; all else has a default, and a URI is optional."""
        found = registry(tmp_path, "[{client_id: shop}]").clients_of(ONE)
        assert found == {"shop": Client(iss=ONE, client_id="shop", backchannel_logout_uri=None)}

    def test_issuers(self, tmp_path: Path) -> None:
        """The same `client_id` at two issuers is two clients; `*` is every issuer."""
        text = f"""
- {{client_id: a, issuer: {ONE}}}
- {{client_id: a, issuer: {TWO}, subject_type: pairwise}}
- {{client_id: b, issuer: [{ONE}, {TWO}, {ONE}]}}
- {{client_id: c, issuer: "*"}}
"""
        found = registry(tmp_path, text, ONE, TWO)
        assert [list(found.clients_of(iss)) for iss in (ONE, TWO)] == [["a", "b", "c"], ["a", "b", "c"]]
        assert [found.clients_of(iss)["a"].pairwise for iss in (ONE, TWO)] == [False, True]
        assert all(client.key == (iss, name) for iss in (ONE, TWO) for name, client in found.clients_of(iss).items())

    def test_aliases(self, tmp_path: Path) -> None:
        """Aliases of a file apply without other sources, too. A `client_id` is never the alias of another client."""
        text = """
- {client_id: shop, aliases: [4a1d, mail]}
- {client_id: mail, aliases: [4a1d, 9f]}
"""
        found = registry(tmp_path, text)
        assert found.aliases == {ONE: {"4a1d": "mail", "9f": "mail"}}
        assert found.taken_aliases.count == 2

    def test_other_metadata_is_ignored(self, tmp_path: Path) -> None:
        """Standard members that do not concern logout tokens are ignored."""
        text = """
- client_id: shop
  client_name: Shop
  client_uri: https://shop.example.com
  client_id_issued_at: 0
  client_secret: hunter2
  redirect_uris: [https://shop.example.com/cb]
  frontchannel_logout_uri: https://shop.example.com/front
  frontchannel_logout_session_required: true
  userinfo_signed_response_alg: HS256
  post_logout_redirect_uris: []
  backchannel_logout_uri:
  notifier:
"""
        assert list(registry(tmp_path, text).clients_of(ONE)) == ["shop"]

    def test_several_redirect_uris_in_one_text(self, tmp_path: Path) -> None:
        """As many databases and spreadsheets store them. A comma may be part of a URI."""
        text = """
- client_id: a
  redirect_uris: "https://a.example.com/cb?of=x,y, https://b.example.com/cb com.example.app:/cb,https://c.example.com"
  frontchannel_logout_uri: https://c.example.com/out
- {client_id: b, redirect_uris: ["https://a.example.com/cb\\n https://b.example.com/cb"]}
"""
        a, b = registry(tmp_path, text).clients_of(ONE).values()
        assert a.redirect_origins == tuple(f"https://{name}.example.com" for name in "abc")
        assert a.front_channel is not None
        assert b.redirect_origins == tuple(f"https://{name}.example.com" for name in "ab")

    def test_client_without_front_channel(self, tmp_path: Path) -> None:
        """At any address, so that none of an event is used."""
        text = """
- {client_id: a, frontchannel_logout_uri: "https://a.example.com/out", notifier: {front_channel: "off"}}
- {client_id: b, frontchannel_logout_uri: "https://b.example.com/out", notifier: {front_channel: server}}
- {client_id: c, frontchannel_logout_uri: "https://c.example.com/out", notifier: {front_channel: browser}}
- {client_id: d}
"""
        clients = registry(tmp_path, text).clients_of(ONE).values()
        assert [client.off_page for client in clients] == [True, True, False, False]

    def test_the_form_of_the_audience(self, tmp_path: Path) -> None:
        """A list if the client, or its preset, requires one; the client takes precedence (R5)."""
        text = """
- {client_id: a}
- {client_id: b, notifier: {audience: list}}
- {client_id: c, notifier: {audience: [api]}}
- {client_id: d, notifier: {preset: lemonldap}}
- {client_id: e, notifier: {preset: lemonldap, audience: string}}
"""
        found = registry(tmp_path, text).clients_of(ONE)
        assert [client.token.audience for client in found.values()] == [None, (), ("api",), (), None]

    def test_all_notifier_settings(self, tmp_path: Path) -> None:
        """Each setting under `notifier` is applied to the client."""
        for name, text in (("auth", "Bearer hunter2\n"), ("proxy", "http://u:hunter2@proxy:3128"), ("ca.pem", "ca")):
            (tmp_path / name).write_text(text)
        text = """{
            typ: none, subject: sid_first, lifetime: 30s, claims: {tenant: [1, {a: null}]}, reason_claim: why,
            timeout: 3s, max_concurrent: 8, per_second: 2.5, paused: true, max_age: 1h, sub_only_max_age: 1m,
            retry: {base: 1s, max_delay: 4s}, egress: {allow: [10.0.0.0/8]},
            tls: {ca_file: ca.pem}, proxy: {file: proxy}, headers: {X-Auth: {file: auth}, X-Plain: text},
            success_statuses: [409], retry_statuses: [404, 400]}"""
        files: set[Path] = set()
        build_context = BuildContext(
            settings=settings(tmp_path, f"[{{client_id: shop, notifier: {text}}}]"), algorithms_of=lambda _: frozenset()
        )
        found = read_registry(build_context, files, no_answer)[0].registry
        client = found.clients_of(ONE)["shop"]
        assert (client.token.typ, client.token.subject, client.token.lifetime) == (None, SubjectMode.SID_FIRST, 30.0)
        assert (dict(client.token.claims), client.token.reason_claim) == ({"tenant": [1, {"a": None}]}, "why")
        assert (client.timeout, client.max_concurrent, client.per_second, client.paused) == (3.0, 8, 2.5, True)
        assert (client.retry.base, client.retry.max_delay) == (1.0, 4.0)
        assert (client.retry.max_age, client.retry.sub_only_max_age) == (3600.0, 60.0)
        assert client.route.egress.allow == (ip_network("10.0.0.0/8"),)
        assert client.route.tls == TlsFiles(ca_file=tmp_path / "ca.pem")
        assert client.route.proxy == "http://u:hunter2@proxy:3128"
        assert client.route.headers == (("X-Auth", "Bearer hunter2"), ("X-Plain", "text"))
        assert client.response.success_statuses == {409}
        assert client.response.retry_statuses == {400, 404}
        assert "hunter2" not in repr(client)
        assert files == {tmp_path / name for name in ("clients.yaml", "ca.pem", "proxy", "auth")}

    def test_service_sections_are_the_defaults(self, tmp_path: Path) -> None:
        """`delivery` and `egress` apply to each client, also to clients of events."""
        sections = {
            "delivery": {"timeout": "2s", "max_age": "1h", "retry": {"max_delay": "2m"}},
            "egress": {"allow": ["10.0.0.0/8"], "allow_http": True},
        }
        found = registry(
            tmp_path, "[{client_id: shop, notifier: {retry: {base: 1s}, egress: {allow: []}}}]", **sections
        )
        client, unregistered = found.clients_of(ONE)["shop"], found.unregistered
        assert unregistered is not None
        assert not unregistered.registered
        retry = client.retry
        assert (client.timeout, retry.base, retry.max_delay, retry.max_age) == (2.0, 1.0, 120.0, 3600.0)
        assert (unregistered.timeout, unregistered.retry.base) == (2.0, 2.0)
        assert (client.route.egress.allow, client.route.egress.allow_http) == ((), True)
        assert unregistered.route.egress.allow == (ip_network("10.0.0.0/8"),)

    def test_settings_of_the_registry(self, tmp_path: Path) -> None:
        """`registry.inline` and `registry.grace`, and the publishers of an issuer, are in the snapshot."""
        plain = settings(tmp_path, "[]", registry={"file": "clients.yaml", "inline": "deny", "grace": "1m"})
        found = load_registry(plain)
        assert (found.inline, found.grace) == ("deny", 60.0)
        assert found.issuers[ONE].publishers is None

    def test_no_file(self) -> None:
        """Without a file the only clients are those in events."""
        found = load_registry(Settings())
        assert not found.clients
        assert found.unregistered is not None

    def test_http_where_it_is_allowed(self, tmp_path: Path) -> None:
        """Plain http needs `egress.allow_http`, of the service or of the client (B6)."""
        text = "[{client_id: shop, backchannel_logout_uri: 'http://shop.example.com/', notifier: {%s}}]"
        assert "allow_http" in mistakes(tmp_path, text % "")["clients.yaml[0].backchannel_logout_uri"]
        assert registry(tmp_path, text % "egress: {allow_http: true}").clients_of(ONE)
        assert registry(tmp_path, text % "", egress={"allow_http": True}).clients_of(ONE)


class TestPresets:
    def test_explicit_settings_win(self, tmp_path: Path) -> None:
        """A member beside a preset overrides it."""
        assert shop(tmp_path, "{preset: auth0_sample, typ: logout+jwt}").token.typ == "logout+jwt"
        assert shop(tmp_path, "{preset: auth0_sample, typ: none}").token.typ is None
        assert shop(tmp_path, "{preset: pac4j, subject: both}").token.subject is SubjectMode.BOTH
        assert shop(tmp_path, "{preset: duende_bff}").timeout == 10.0
        assert shop(tmp_path, "{preset: duende_bff, timeout: 3s}").timeout == 3.0


def test_many_clients_share_what_they_do_not_set(tmp_path: Path) -> None:
    """A large registry is loaded in file order, and its clients share their policies."""
    text = "\n".join(f"- {{client_id: c{number}, backchannel_logout_uri: '{HOOK}'}}" for number in range(1000))
    clients = list(registry(tmp_path, text).clients_of(ONE).values())
    assert [client.client_id for client in clients] == [f"c{number}" for number in range(1000)]
    assert {id(client.retry) for client in clients} == {id(clients[0].retry)}
    assert {id(client.token) for client in clients} == {id(clients[0].token)}

"""The clients file: metadata, presets and defaults become clients; what is wrong is told by its place in the file."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from notifier.adapters.config_file import load_settings
from notifier.adapters.registry_file import load_registry, read_registry
from notifier.domain.client import Algorithm, Client, SubjectMode, TlsFiles
from notifier.domain.errors import ConfigurationError
from notifier.domain.registry import Registry
from notifier.settings import Settings

ONE = "https://id.example.com"
TWO = "https://login.example.org"
HOOK = "https://shop.example.com/hook"


def settings(folder: Path, clients: str, *issuers: str, **sections: Any) -> Settings:
    """A service with these issuers (one, if none is named), this clients file and these sections."""
    (folder / "key.pem").write_text("a key")
    (folder / "clients.yaml").write_text(clients)
    document = {
        "issuers": {iss: {"keys": [{"file": "key.pem"}]} for iss in issuers or (ONE,)},
        "registry": {"file": "clients.yaml"},
        **sections,
    }
    (folder / "notifier.json").write_text(json.dumps(document))
    return load_settings(folder / "notifier.json", {})


def registry(folder: Path, clients: str, *issuers: str, **sections: Any) -> Registry:
    """What is registered then."""
    return load_registry(settings(folder, clients, *issuers, **sections))


def shop(folder: Path, notifier: str = "{}", **sections: Any) -> Client:
    """The only client, with this under `notifier`."""
    text = f"[{{client_id: shop, backchannel_logout_uri: '{HOOK}', notifier: {notifier}}}]"
    return registry(folder, text, **sections).clients_of(ONE)["shop"]


def mistakes(folder: Path, clients: str, *issuers: str, **sections: Any) -> dict[str, str]:
    """What is wrong, by path."""
    with pytest.raises(ConfigurationError) as caught:
        registry(folder, clients, *issuers, **sections)
    return {mistake.path: mistake.text for mistake in caught.value.mistakes}


class TestClients:
    def test_the_least_there_can_be(self, tmp_path: Path) -> None:
        """A client is its `client_id`; all else has a default, and without a URI it need not be told."""
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

    def test_other_metadata_is_ignored(self, tmp_path: Path) -> None:
        """Members of the standard's metadata that have nothing to do with logout tokens are passed over."""
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

    def test_everything_of_ours(self, tmp_path: Path) -> None:
        """All that may stand under `notifier` arrives in the client."""
        for name, text in (("auth", "Bearer hunter2\n"), ("proxy", "http://u:hunter2@proxy:3128"), ("ca.pem", "ca")):
            (tmp_path / name).write_text(text)
        text = """{
            typ: none, subject: sid_first, lifetime: 30s, claims: {tenant: [1, {a: null}]}, reason_claim: why,
            timeout: 3s, max_concurrent: 8, per_second: 2.5, paused: true, max_age: 1h, sub_only_max_age: 1m,
            retry: {base: 1s, jitter: 0}, circuit: {failures: 3}, egress: {allow: [10.0.0.0/8]},
            tls: {ca_file: ca.pem}, proxy: {file: proxy}, headers: {X-Auth: {file: auth}, X-Plain: text},
            success_statuses: [409], retry_statuses: [404, 400]}"""
        read = read_registry(settings(tmp_path, f"[{{client_id: shop, notifier: {text}}}]"))
        client = read.registry.clients_of(ONE)["shop"]
        assert (client.token.typ, client.token.subject, client.token.lifetime) == (None, SubjectMode.SID_FIRST, 30.0)
        assert (dict(client.token.claims), client.token.reason_claim) == ({"tenant": [1, {"a": None}]}, "why")
        assert (client.timeout, client.max_concurrent, client.per_second, client.paused) == (3.0, 8, 2.5, True)
        assert (client.retry.base, client.retry.jitter, client.retry.factor) == (1.0, 0.0, 3.0)
        assert (client.retry.max_age, client.retry.sub_only_max_age) == (3600.0, 60.0)
        assert (client.circuit.failures, client.circuit.failure_rate) == (3, 0.5)
        assert client.route.egress.allow == (ip_network("10.0.0.0/8"),)
        assert client.route.tls == TlsFiles(ca_file=tmp_path / "ca.pem")
        assert client.route.proxy == "http://u:hunter2@proxy:3128"
        assert client.route.headers == (("X-Auth", "Bearer hunter2"), ("X-Plain", "text"))
        assert client.response.success_statuses == {409}
        assert client.response.retry_statuses == {400, 404}
        assert "hunter2" not in repr(client)
        assert read.files == {tmp_path / name for name in ("clients.yaml", "ca.pem", "proxy", "auth")}

    def test_defaults_come_from_the_service(self, tmp_path: Path) -> None:
        """What `delivery` and `egress` say holds for each client, and for those that only an event names."""
        sections = {
            "delivery": {"timeout": "2s", "max_age": "1h", "retry": {"factor": 2}, "circuit": {"failures": 4}},
            "egress": {"allow": ["10.0.0.0/8"], "allow_http": True},
        }
        found = registry(
            tmp_path, "[{client_id: shop, notifier: {retry: {base: 1s}, egress: {allow: []}}}]", **sections
        )
        client, unregistered = found.clients_of(ONE)["shop"], found.unregistered
        assert unregistered is not None
        assert not unregistered.registered
        assert (client.timeout, client.retry.factor, client.retry.base, client.retry.max_age) == (2.0, 2.0, 1.0, 3600.0)
        assert (unregistered.timeout, unregistered.retry.base, unregistered.circuit.failures) == (2.0, 2.0, 4)
        assert client.circuit is unregistered.circuit
        assert (client.route.egress.allow, client.route.egress.allow_http) == ((), True)
        assert unregistered.route.egress.allow == (ip_network("10.0.0.0/8"),)

    def test_settings_of_the_registry(self, tmp_path: Path) -> None:
        """`registry.inline` and `registry.grace`, and who may speak for an issuer, are in the snapshot."""
        plain = settings(tmp_path, "[]", registry={"file": "clients.yaml", "inline": "deny", "grace": "1m"})
        found = load_registry(plain)
        assert (found.inline_allowed, found.grace) == (False, 60.0)
        assert found.issuers[ONE].publishers is None

    def test_no_file(self) -> None:
        """Without a file there are no clients but those that events name."""
        found = load_registry(Settings())
        assert not found.clients
        assert found.unregistered is not None

    def test_relative_to_a_base(self, tmp_path: Path) -> None:
        """A relative name of the file is taken from the base that is given."""
        made = settings(tmp_path, "[{client_id: shop}]")
        relative = made.registry.model_copy(update={"file": Path("clients.yaml")})
        found = load_registry(made.model_copy(update={"registry": relative}), tmp_path)
        assert list(found.clients_of(ONE)) == ["shop"]

    def test_http_where_it_is_allowed(self, tmp_path: Path) -> None:
        """Plain http needs `egress.allow_http`, of the service or of the client alone (B6)."""
        text = "[{client_id: shop, backchannel_logout_uri: 'http://shop.example.com/', notifier: {%s}}]"
        assert "allow_http" in mistakes(tmp_path, text % "")["clients.yaml[0].backchannel_logout_uri"]
        assert registry(tmp_path, text % "egress: {allow_http: true}").clients_of(ONE)
        assert registry(tmp_path, text % "", egress={"allow_http": True}).clients_of(ONE)


class TestPresets:
    @pytest.mark.parametrize(
        ("preset", "typ", "subject"),
        [
            ("mod_auth_openidc", "logout+jwt", SubjectMode.BOTH),
            ("express_openid_connect", "logout+jwt", SubjectMode.SID_FIRST),
            ("spring", "logout+jwt", SubjectMode.BOTH),
            ("duende_bff", "logout+jwt", SubjectMode.BOTH),
            ("keycloak", "logout+jwt", SubjectMode.BOTH),
            ("nextcloud", "logout+jwt", SubjectMode.BOTH),
            ("pac4j", "logout+jwt", SubjectMode.SID),
            ("rauthy", "logout+jwt", SubjectMode.BOTH),
            ("auth0_sample", "JWT", SubjectMode.BOTH),
        ],
    )
    def test_sets_what_the_receiver_needs(self, tmp_path: Path, preset: str, typ: str, subject: SubjectMode) -> None:
        """Each receiver of the table gets the token that it takes (R7, R8), RS256 unless told otherwise (R6)."""
        token = shop(tmp_path, f"{{preset: {preset}}}").token
        assert (token.typ, token.subject, token.alg) == (typ, subject, Algorithm.RS256)

    def test_explicit_settings_win(self, tmp_path: Path) -> None:
        """What stands beside a preset overrides it."""
        assert shop(tmp_path, "{preset: auth0_sample, typ: logout+jwt}").token.typ == "logout+jwt"
        assert shop(tmp_path, "{preset: auth0_sample, typ: none}").token.typ is None
        assert shop(tmp_path, "{preset: pac4j, subject: both}").token.subject is SubjectMode.BOTH

    def test_unknown(self, tmp_path: Path) -> None:
        """An unknown preset is told with the nearest one."""
        found = mistakes(tmp_path, "[{client_id: shop, notifier: {preset: mod-auth-oidc}}]")
        assert found == {
            "clients.yaml[0].notifier.preset": "there is no preset 'mod-auth-oidc'; did you mean mod_auth_openidc?"
        }


class TestMistakes:
    def test_all_at_once(self, tmp_path: Path) -> None:
        """One client's mistakes hide neither each other nor those of other clients."""
        text = f"""
- {{client_id: a, issuer: {ONE}, backchannel_logout_uri: "https://a/#b"}}
- {{client_id: b, issuer: {ONE}, notifier: {{typ: jwt, timeout: 3, tipe: x}}}}
- client
- {{client_id: a, issuer: {ONE}}}
- {{client_id: c}}
- {{client_id: d, issuer: https://id.example.org}}
- {{client_id: e, issuer: ["*", {ONE}]}}
- {{issuer: {ONE}}}
"""
        found = mistakes(tmp_path, text, ONE, TWO)
        assert list(found) == [
            "clients.yaml[0].backchannel_logout_uri",
            "clients.yaml[1].notifier.typ",
            "clients.yaml[1].notifier.timeout",
            "clients.yaml[1].notifier.tipe",
            "clients.yaml[2]",
            "clients.yaml[3].client_id",
            "clients.yaml[4].issuer",
            "clients.yaml[5].issuer",
            "clients.yaml[6].issuer",
            "clients.yaml[7].client_id",
        ]
        assert "fragment" in found["clients.yaml[0].backchannel_logout_uri"]
        assert found["clients.yaml[1].notifier.typ"] == "must be 'logout+jwt', 'JWT' or 'none'"
        assert (
            "did you mean ty" in found["clients.yaml[1].notifier.tipe"]
            or "typ" in found["clients.yaml[1].notifier.tipe"]
        )
        assert found["clients.yaml[2]"] == "must be a mapping (key: value)"
        assert found["clients.yaml[3].client_id"] == f"'a' of {ONE} is there already, at clients.yaml[0]"
        assert found["clients.yaml[4].issuer"] == "is required, since there are 2 issuers"
        assert found["clients.yaml[5].issuer"] == f"https://id.example.org is none of issuers; did you mean {ONE}?"
        assert "stands alone" in found["clients.yaml[6].issuer"]
        assert found["clients.yaml[7].client_id"] == "is required"

    @pytest.mark.parametrize(
        ("members", "path", "says"),
        [
            ("client_id: 5", "client_id", "put it in quotes"),
            ("client_id: ''", "client_id", "must not be empty"),
            ("issuer: []", "issuer", "must name at least one"),
            ("issuer: 5", "issuer", "must be a list"),
            ("backchannel_logout_uri: /hook", "backchannel_logout_uri", "must be an absolute URI"),
            ("backchannel_logout_uri: 'https://u:hunter2@a/'", "backchannel_logout_uri", "must not have a user name"),
            ("backchannel_logout_uri: 'https://10.0.0.1/'", "backchannel_logout_uri", "egress.allow"),
            ("backchanel_logout_uri: x", "backchanel_logout_uri", "did you mean backchannel_logout_uri?"),
            ("backchannelLogoutUri: x", "backchannelLogoutUri", "did you mean backchannel_logout_uri?"),
            (
                "backchannel_logout_session_required: maybe",
                "backchannel_logout_session_required",
                "must be a valid boolean",
            ),
            ("id_token_signed_response_alg: none", "id_token_signed_response_alg", "is always signed"),
            ("id_token_signed_response_alg: HS256", "id_token_signed_response_alg", "HS256 is not supported"),
            ("id_token_signed_response_alg: rs256", "id_token_signed_response_alg", "did you mean RS256?"),
            ("id_token_signed_response_alg: 5", "id_token_signed_response_alg", "must be 'RS256', 'RS384'"),
            (
                "id_token_encrypted_response_alg: RSA-OAEP",
                "id_token_encrypted_response_alg",
                "encrypted tokens are not",
            ),
            ("id_token_encrypted_response_enc: A128GCM", "id_token_encrypted_response_enc", "encrypted tokens are not"),
            ("subject_type: pairwize", "subject_type", "must be 'public' or 'pairwise'"),
            ("notifier: 5", "notifier", "must be a mapping"),
            ("notifier: {timout: 5s}", "notifier.timout", "did you mean timeout?"),
            ("notifier: {timeout: 5}", "notifier.timeout", "write 5s"),
            ("notifier: {timeout: 599.5s}", "notifier.timeout", "must be less than 10m"),
            ("notifier: {lifetime: 121s}", "notifier.lifetime", "must be at most 2m"),
            ("notifier: {lifetime: 0}", "notifier.lifetime", "must be longer than 0s"),
            ("notifier: {subject: session}", "notifier.subject", "must be 'both', 'sid_first', 'sid' or 'sub'"),
            ("notifier: {max_concurrent: 0}", "notifier.max_concurrent", "greater than or equal to 1"),
            ("notifier: {per_second: 0}", "notifier.per_second", "greater than 0"),
            ("notifier: {retry: {base: 2h}}", "notifier.retry", "must not be longer than max_delay"),
            ("notifier: {retry: {jitter: 1}}", "notifier.retry.jitter", "less than 1"),
            ("notifier: {retry: {bass: 1s}}", "notifier.retry.bass", "did you mean base?"),
            ("notifier: {circuit: {failures: 0}}", "notifier.circuit.failures", "greater than or equal to 1"),
            ("notifier: {egress: {deny: [all]}}", "notifier.egress.deny[0]", "must be a network"),
            ("notifier: {claims: {sid: x}}", "notifier.claims.sid", "belongs to the specification"),
            ("notifier: {claims: {nonce: x}}", "notifier.claims.nonce", "belongs to the specification"),
            ("notifier: {claims: {day: 2026-01-01}}", "notifier.claims.day", "must be a valid JSON value"),
            ("notifier: {reason_claim: events}", "notifier.reason_claim", "belongs to the specification"),
            ("notifier: {reason_claim: a, claims: {a: 1}}", "notifier", "both name a"),
            ("notifier: {headers: {Host: x}}", "notifier.headers.Host", "belongs to the request"),
            ("notifier: {headers: {content-type: x}}", "notifier.headers.content-type", "belongs to the request"),
            ("notifier: {headers: {Transfer-Encoding: x}}", "notifier.headers.Transfer-Encoding", "belongs to the"),
            ("notifier: {headers: {'X Y': x}}", 'notifier.headers["X Y"]', "is no name of a header"),
            ('notifier: {headers: {X: "a\\nhunter2"}}', "notifier.headers.X", "must be one line"),
            ("notifier: {headers: {X: {file: none}}}", "notifier.headers.X", "there is no file"),
            ("notifier: {headers: {X: {path: none}}}", "notifier.headers.X", "{file: PATH}"),
            ("notifier: {headers: {X: [hunter2]}}", "notifier.headers.X", "must be a text"),
            ("notifier: {headers: {X: a, x: b}}", "notifier", "names a header twice"),
            ("notifier: {proxy: 'socks5://u:hunter2@h'}", "notifier.proxy", "must be the URL of a proxy"),
            ("notifier: {tls: {ca_file: none}}", "notifier.tls.ca_file", "there is no file"),
            ("notifier: {tls: {key_file: key.pem}}", "notifier.tls", "needs cert_file"),
            ("notifier: {success_statuses: [100]}", "notifier.success_statuses[0]", "greater than or equal to 200"),
            ("notifier: {success_statuses: [409], retry_statuses: [409]}", "notifier", "409 is in success_statuses"),
            (
                "notifier: {subject: sub}, backchannel_logout_session_required: true",
                "notifier.subject",
                "asks for a sid",
            ),
        ],
    )
    def test_one(self, tmp_path: Path, members: str, path: str, says: str) -> None:
        """Each mistake is told by the path of its key, with what would be right and without what may be secret."""
        identity = "" if members.startswith("client_id") else "client_id: shop, "
        found = mistakes(tmp_path, f"[{{{identity}{members}}}]")
        assert list(found) == [f"clients.yaml[0].{path}"]
        (text,) = found.values()
        assert says in text
        assert "hunter2" not in text

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "is empty; write [] if there are no clients"),
            ("shop: {}", "must be a list of clients"),
            ("- {client_id: a", "line 2, column 1"),
            ("- client_id: a\n  client_id: b", "line 2, column 3: the key 'client_id' is there twice"),
        ],
    )
    def test_the_file(self, tmp_path: Path, text: str, says: str) -> None:
        """An empty or broken file is a mistake, so that one caught half-written never replaces the registry."""
        found = mistakes(tmp_path, text)
        assert list(found) == ["clients.yaml"]
        assert says in found["clients.yaml"]

    def test_there_are_no_issuers(self, tmp_path: Path) -> None:
        """A client of nobody is a mistake."""
        found = mistakes(tmp_path, f"[{{client_id: a}}, {{client_id: b, issuer: {ONE}}}]", issuers={})
        assert found == {
            "clients.yaml[0].issuer": "is required, since there are 0 issuers",
            "clients.yaml[1].issuer": f"{ONE} is none of issuers; there are none",
        }


def test_many_clients_share_what_they_do_not_set(tmp_path: Path) -> None:
    """A large registry is loaded in file order, and its clients share their policies."""
    text = "\n".join(f"- {{client_id: c{number}, backchannel_logout_uri: '{HOOK}'}}" for number in range(1000))
    clients = list(registry(tmp_path, text).clients_of(ONE).values())
    assert [client.client_id for client in clients] == [f"c{number}" for number in range(1000)]
    assert {id(client.retry) for client in clients} == {id(clients[0].retry)}
    assert {id(client.token) for client in clients} == {id(clients[0].token)}

"""Errors of a clients file are reported with their path in the file, all at once."""

from pathlib import Path

import pytest

from notifier.configuration.clients.clients_file import load_registry
from notifier.model.errors import ConfigurationError
from tests.configuration.clients.registry_sample import ONE, TWO, mistakes, settings

HOOK, ENCRYPTED = "backchannel_logout_uri: 'https://a/'", "id_token_encrypted_response_alg: RSA-OAEP"


class TestMistakes:
    def test_all_at_once(self, tmp_path: Path) -> None:
        """Errors of a client hide neither one another nor those of other clients."""
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
            "clients.yaml[0].backchannel_logout_uri", "clients.yaml[1].notifier.typ",
            "clients.yaml[1].notifier.timeout", "clients.yaml[1].notifier.tipe", "clients.yaml[2]",
            "clients.yaml[3].client_id", "clients.yaml[4].issuer", "clients.yaml[5].issuer", "clients.yaml[6].issuer",
            "clients.yaml[7].client_id",
        ]  # fmt: skip
        assert "fragment" in found["clients.yaml[0].backchannel_logout_uri"]
        assert found["clients.yaml[1].notifier.typ"] == "must be 'logout+jwt', 'JWT' or 'none'"
        assert (
            "did you mean ty" in found["clients.yaml[1].notifier.tipe"]
            or "typ" in found["clients.yaml[1].notifier.tipe"]
        )
        assert found["clients.yaml[2]"] == "must be a mapping (key: value)"
        assert found["clients.yaml[3].client_id"].startswith(f"'a' is registered at {ONE} already, by clients.yaml[0];")
        assert found["clients.yaml[4].issuer"] == "is required, since there are 2 issuers"
        assert found["clients.yaml[5].issuer"] == (
            f"https://id.example.org is not configured under issuers; did you mean {ONE}?"
        )
        assert "means all issuers" in found["clients.yaml[6].issuer"]
        assert found["clients.yaml[7].client_id"] == "is required"

    def test_member_of_the_wrong_type_hides_no_other_error(self, tmp_path: Path) -> None:
        """Errors beside a value of the wrong type are reported in the same run, without derived errors."""
        wrong = "backchannel_logout_uri: 'https://a/#b', issuer: https://none, notifier: {typ: jwt, timeout: 10m}"
        text = f"""
- {{client_id: a, {wrong}}}
- {{{wrong}}}
- {{client_id: a, issuer: {ONE}, notifier: {{typ: jwt}}}}
- {{client_id: a, issuer: {ONE}}}
- {{client_id: b, issuer: 5, backchannel_logout_uri: "http://10.0.0.1/", subject_type: x}}
"""
        assert set(mistakes(tmp_path, text, ONE, TWO)) == {
            "clients.yaml[0].notifier.typ", "clients.yaml[0].backchannel_logout_uri", "clients.yaml[0].issuer",
            "clients.yaml[1].client_id", "clients.yaml[1].notifier.typ", "clients.yaml[1].backchannel_logout_uri",
            "clients.yaml[1].issuer", "clients.yaml[2].notifier.typ", "clients.yaml[3].client_id",
            "clients.yaml[4].issuer", "clients.yaml[4].subject_type",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("members", "path", "expected"),
        [
            ("client_id: 5", "client_id", "put it in quotes"),
            ("issuer: []", "issuer", "must name at least one"),
            ("backchannel_logout_uri: /hook", "backchannel_logout_uri", "must be an absolute URI"),
            ("backchannel_logout_uri: 'https://u:hunter2@a/'", "backchannel_logout_uri", "must not have a user name"),
            ("backchannel_logout_uri: 'https://10.0.0.1/'", "backchannel_logout_uri", "egress.allow"),
            ("backchanel_logout_uri: x", "backchanel_logout_uri", "did you mean backchannel_logout_uri?"),
            ("id_token_signed_response_alg: none", "id_token_signed_response_alg", "must be 'RS256'"),
            ("id_token_signed_response_alg: HS256", "id_token_signed_response_alg", "must be 'RS256', 'RS384'"),
            ("id_token_signed_response_alg: rs256", "id_token_signed_response_alg", "must be 'RS256', 'RS384'"),
            ("id_token_encrypted_response_alg: RSA1_5", "id_token_encrypted_response_alg", "must be 'RSA-OAEP'"),
            ("id_token_encrypted_response_alg: dir", "id_token_encrypted_response_alg", "must be 'RSA-OAEP'"),
            ("id_token_encrypted_response_alg: 5", "id_token_encrypted_response_alg", "must be 'RSA-OAEP', "),
            ("id_token_encrypted_response_enc: XC20P", "id_token_encrypted_response_enc", "must be 'A128CBC-HS256', "),
            (f"{HOOK}, id_token_encrypted_response_enc: A128GCM", "id_token_encrypted_response_enc", "beside it"),
            (f"{HOOK}, {ENCRYPTED}", "id_token_encrypted_response_alg", "register its jwks or jwks_uri"),
            (f"{HOOK}, {ENCRYPTED}, jwks: {{}}", "jwks", "is no JWK Set"),
            (f"{HOOK}, {ENCRYPTED}, jwks_uri: 'https://10.0.0.1/'", "jwks_uri", "egress.allow"),
            ("notifier: 5", "notifier", "must be a mapping"),
            ("notifier: {preset: mod-auth-oidc}", "notifier.preset", "did you mean mod_auth_openidc?"),
            ("notifier: {timeout: 599.5s}", "notifier.timeout", "must be less than 599s"),
            ("notifier: {lifetime: 121s}", "notifier.lifetime", "must be at most 2m"),
            ("notifier: {lifetime: 0}", "notifier.lifetime", "must be longer than 0s"),
            ("notifier: {retry: {base: 2h}}", "notifier.retry", "must not be longer than max_delay"),
            ("notifier: {retry: {bass: 1s}}", "notifier.retry.bass", "did you mean base?"),
            ("notifier: {claims: {sid: x}}", "notifier.claims.sid", "belongs to the specification"),
            ("notifier: {claims: {day: 2026-01-01}}", "notifier.claims.day", "must be a valid JSON value"),
            ("notifier: {reason_claim: events}", "notifier.reason_claim", "belongs to the specification"),
            ("notifier: {reason_claim: a, claims: {a: 1}}", "notifier", "both name a"),
            ("notifier: {headers: {Host: x}}", "notifier.headers.Host", "belongs to the request"),
            ("notifier: {headers: {content-type: x}}", "notifier.headers.content-type", "belongs to the request"),
            ("notifier: {headers: {expect: 100-continue}}", "notifier.headers.expect", "belongs to the"),
            ("notifier: {headers: {'X Y': x}}", 'notifier.headers["X Y"]', "is not a valid name of a header"),
            ('notifier: {headers: {X: "a\\nhunter2"}}', "notifier.headers.X", "must be one line"),
            (f"{HOOK}, notifier: {{headers: {{X: {{file: none}}}}}}", "notifier.headers.X", "there is no file"),
            ("notifier: {headers: {X: [hunter2]}}", "notifier.headers.X", "must be a text"),
            ("notifier: {headers: {X: a, x: b}}", "notifier", "names a header twice"),
            ("notifier: {proxy: 'socks5://u:hunter2@h'}", "notifier.proxy", "must be the URL of a proxy"),
            ("notifier: {proxy: {file: '~nobody-/x'}}", "notifier.proxy", "there is no such home"),
            ("notifier: {tls: {ca_file: none}}", "notifier.tls.ca_file", "there is no file"),
            ("notifier: {tls: {key_file: key.pem}}", "notifier.tls", "needs cert_file"),
            ("notifier: {success_statuses: [409], retry_statuses: [409]}", "notifier", "409 is in success_statuses"),
            (
                "notifier: {subject: sub}, backchannel_logout_session_required: true",
                "notifier.subject",
                "needs a sid in each token",
            ),
        ],
    )
    def test_single_error(self, tmp_path: Path, members: str, path: str, expected: str) -> None:
        """Each error has the path of its key and the expected value, without possible secrets."""
        identity = "" if members.startswith("client_id") else "client_id: shop, "
        found = mistakes(tmp_path, f"[{{{identity}{members}}}]")
        assert list(found) == [f"clients.yaml[0].{path}"]
        (text,) = found.values()
        assert expected in text
        assert "hunter2" not in text

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "is empty; write [] if there are no clients"),
            ("shop: {}", "must be a list of clients"),
            ("- {client_id: a", "line 2, column 1"),
            ("- client_id: a\n  client_id: b", "line 2, column 3: the key 'client_id' is there twice"),
        ],
    )
    def test_the_file(self, tmp_path: Path, text: str, expected: str) -> None:
        """An empty or broken file is an error, so that a half-written file never replaces the registry."""
        found = mistakes(tmp_path, text)
        assert list(found) == ["clients.yaml"]
        assert expected in found["clients.yaml"]

    def test_client_without_issuers_is_an_error(self, tmp_path: Path) -> None:
        """A client without an issuer is an error."""
        found = mistakes(tmp_path, f"[{{client_id: a}}, {{client_id: b, issuer: {ONE}}}]", issuers={})
        assert found == {
            "clients.yaml[0].issuer": "is required, since there are 0 issuers",
            "clients.yaml[1].issuer": f"{ONE} is not configured under issuers; there are none",
        }


@pytest.mark.parametrize(
    ("members", "path", "expected"),
    [
        ("frontchannel_logout_uri: 'https://a.example.com/out', backchannel_logout_uri: 'https://a.example.com/bc'",
         "notifier.front_channel", "remove one of the two"),
        ("client_name: A", "notifier.front_channel", "has no frontchannel_logout_uri"),
        ("frontchannel_logout_uri: '/out'", "frontchannel_logout_uri", "absolute"),
        ("frontchannel_logout_uri: 'http://a.example.com/out'", "frontchannel_logout_uri", "egress.allow_http"),
        ("frontchannel_logout_uri: 'https://a.example.com/out', redirect_uris: ['https://b.example.com/cb']",
         "frontchannel_logout_uri", "one of the client's redirect_uris"),
    ],
)  # fmt: skip
def test_front_channel_client_of_the_worker_must_be_callable(
    members: str, path: str, expected: str, tmp_path: Path
) -> None:
    """No other channel exists: a warning for a page is an error here."""
    found = mistakes(
        tmp_path, f"- {{client_id: a, issuer: {ONE}, notifier: {{front_channel: server}}, {members}}}", ONE
    )
    assert list(found) == [f"clients.yaml[0].{path}"]
    assert all(expected in each for each in found.values())


def test_error_contains_the_client_and_its_path(tmp_path: Path) -> None:
    """Otherwise the operator would have to count to the 312th client of a file."""
    rows = f"[{{client_id: a, issuer: {ONE}}}, {{client_id: shop, issuer: {ONE}, notifier: {{typ: x}}}}]"
    with pytest.raises(ConfigurationError, match=r"clients\.yaml\[1\] \(shop\)\.notifier\.typ: must be"):
        load_registry(settings(tmp_path, rows, ONE))

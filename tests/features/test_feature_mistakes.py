"""Errors that the settings of several features refuse: empty secrets, and misplaced members."""

from pathlib import Path

import pytest

from notifier.features.sources.source_settings import SourceSettings
from notifier.features.sources.sources_part import read_source_secrets
from tests.settings.config_sample import require_single_mistake

KEYS = "issuers: {'https://a': {keys: [%s]}}"
SOURCE = "registry: {sources: [%s]}"
KEYCLOAK = SOURCE % "{keycloak: {url: 'https://k', realm: r, client_id: c, %s}}"
HTTP = SOURCE % "{http: {url: 'https://k', headers: {Authorization: %s}}}"
SQL = SOURCE % "{sql: {url: '%s', preset: duende}}"
UPSTREAM = "upstreams: {u: {issuer: 'https://u', client_id: c, resolve: {sql: {url_file: F, preset: duende}}}}"
FILES = {
    "registry.sources[0].sql.url_file": SOURCE % "{sql: {url_file: F, preset: duende}}",
    "registry.sources[0].keycloak.client_secret_file": KEYCLOAK % "client_secret_file: F",
    "registry.sources[0].auth0.client_secret_file": SOURCE
    % "{auth0: {url: 'https://k', client_id: c, client_secret_file: F}}",
    "registry.sources[0].authentik.token_file": SOURCE % "{authentik: {url: 'https://k', token_file: F}}",
    "registry.sources[0].http.headers.Authorization": HTTP % "{file: F}",
    "sources.s.http.hmac.secret_file": "sources: {s: {http: {hmac: {header: X-A, secret_file: F}}}}",
    "sources.s.http.value_file": "sources: {s: {http: {header: X-A, value_file: F}}}",
    "upstreams.u.resolve.sql.url_file": UPSTREAM,
    'issuers["https://a"].keys[0].pkcs11.pin_file': KEYS % "{pkcs11: {module: m, token: t, label: l, pin_file: F}}",
    'issuers["https://a"].keys[0].vault.token_file': KEYS
    % "{vault: {address: 'https://v', key: k, version: 1, token_file: F}}",
    'issuers["https://a"].keys[0].vault.approle.secret_id_file': KEYS
    % "{vault: {address: 'https://v', key: k, version: 1, approle: {role_id: r, secret_id_file: F}}}",
}


@pytest.mark.parametrize("setting", FILES)
def test_an_empty_file(tmp_path: Path, setting: str) -> None:
    """The start refuses a file that has blank lines and invisible characters alone."""
    (tmp_path / "F").write_text("\ufeff \u00a0\r\n", "utf-8", newline="")
    (tmp_path / "m").touch()
    require_single_mistake(tmp_path, FILES[setting], setting, f"{tmp_path}/F is empty; write the secret into it")


@pytest.mark.parametrize("value", ["Bearer", "bearer \n", "Basic\n"])
def test_a_scheme_without_a_secret_is_refused(tmp_path: Path, value: str) -> None:
    """A header that a script makes of a variable that is not set would let everybody in who sends the scheme."""
    (tmp_path / "F").write_text(value)
    sources = {"s": SourceSettings.model_validate({"http": {"header": "Authorization", "value_file": tmp_path / "F"}})}
    secrets, (mistake,) = read_source_secrets(sources)
    assert secrets == {}
    assert "has a scheme without a secret behind it" in mistake.text


@pytest.mark.parametrize(
    ("text", "path", "phrase"),
    [
        (KEYCLOAK % "client_secret: ' '", "registry.sources[0].keycloak.client_secret", "empty"),
        (HTTP % "''", "registry.sources[0].http.headers.Authorization", "empty"),
        (SQL % "postgresql://u:@h/d", "registry.sources[0].sql.url", "has an empty password"),
        (SQL % "mysql://h/d ", "registry.sources[0].sql.url", "ends with a blank"),
        ("sources: {preset: keycloak_ssf}", "sources.preset", "must be a mapping"),
        (
            "upstreams: {u: {issuer: 'https://u', client_id: ['c '], resolve: {same_sub: {}}}}",
            "upstreams.u.client_id[0]",
            "ends with a blank",
        ),
    ],
)
def test_a_mistake_names_its_cause(tmp_path: Path, text: str, path: str, phrase: str) -> None:
    """An empty secret in the configuration, a blank copied along with a name, and a member one level too high."""
    require_single_mistake(tmp_path, text, path, phrase)

"""Errors that the settings of several features refuse: empty secrets, and misplaced members."""

from pathlib import Path

import pytest

from notifier.features.sources.source_settings import SourceSettings
from notifier.features.sources.sources_part import read_source_secrets
from tests.settings.config_sample import mistakes, write

KEYS = "issuers: {'https://a': {keys: [%s]}}"
SOURCE = "registry: {sources: [%s]}"
UPSTREAM = "upstreams: {u: {issuer: 'https://u', client_id: c, resolve: {sql: {url_file: F, preset: duende}}}}"
FILES = {
    "registry.sources[0].sql.url_file": SOURCE % "{sql: {url_file: F, preset: duende}}",
    "registry.sources[0].keycloak.client_secret_file": SOURCE
    % "{keycloak: {url: 'https://k', realm: r, client_id: c, client_secret_file: F}}",
    "registry.sources[0].auth0.client_secret_file": SOURCE
    % "{auth0: {url: 'https://k', client_id: c, client_secret_file: F}}",
    "registry.sources[0].authentik.token_file": SOURCE % "{authentik: {url: 'https://k', token_file: F}}",
    "registry.sources[0].http.headers.Authorization": SOURCE
    % "{http: {url: 'https://k', headers: {Authorization: {file: F}}}}",
    "sources.s.http.hmac.secret_file": "sources: {s: {http: {hmac: {header: X-A, secret_file: F}}}}",
    "sources.s.http.value_file": "sources: {s: {http: {header: X-A, value_file: F}}}",
    "upstreams.u.resolve.sql.url_file": UPSTREAM,
    'issuers["https://a"].keys[0].pkcs11.pin_file': KEYS % "{pkcs11: {module: m, token: t, label: l, pin_file: F}}",
    'issuers["https://a"].keys[0].vault.token_file': KEYS
    % "{vault: {address: 'https://v', key: k, version: 1, token_file: F}}",
    'issuers["https://a"].keys[0].vault.approle.secret_id_file': KEYS
    % "{vault: {address: 'https://v', key: k, version: 1, approle: {role_id: r, secret_id_file: F}}}",
}
TEXTS = {
    "registry.sources[0].keycloak.client_secret": SOURCE
    % "{keycloak: {url: 'https://k', realm: r, client_id: c, client_secret: %s}}",
    "registry.sources[0].http.headers.Authorization": SOURCE
    % "{http: {url: 'https://k', headers: {Authorization: %s}}}",
}


@pytest.mark.parametrize(
    ("setting", "content"), [*((each, "") for each in FILES), ("upstreams.u.resolve.sql.url_file", "\ufeff \u00a0\r\n")]
)
def test_an_empty_file(tmp_path: Path, setting: str, content: str) -> None:
    """The start refuses a file that is empty, or has blank lines and invisible characters alone."""
    (tmp_path / "F").write_text(content, "utf-8", newline="")
    (tmp_path / "m").touch()
    found = mistakes(write(tmp_path, FILES[setting]))
    assert found == {setting: f"{tmp_path}/F is empty; write the secret into it"}


@pytest.mark.parametrize("setting", TEXTS)
@pytest.mark.parametrize("text", ["''", "' '", r'"\n"'])
def test_an_empty_text(tmp_path: Path, setting: str, text: str) -> None:
    """The start refuses a secret in the configuration itself that is empty or has blanks alone."""
    found = mistakes(write(tmp_path, TEXTS[setting].replace("%s", text)))
    assert list(found) == [setting]
    assert "empty" in found[setting]


def test_an_empty_password_in_the_url_of_a_database(tmp_path: Path) -> None:
    """A colon with nothing behind it is refused, and a blank at the end is named."""
    for url, phrase in (("postgresql://u:@h/d", "has an empty password"), ("mysql://h/d ", "ends with a blank")):
        found = mistakes(write(tmp_path, SOURCE % f"{{sql: {{url: '{url}', preset: duende}}}}"))
        assert phrase in found["registry.sources[0].sql.url"]


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
        ("sources: {preset: keycloak_ssf}", "sources.preset", "must be a mapping"),
        (
            "upstreams: {u: {issuer: 'https://u', client_id: ['c '], resolve: {same_sub: {}}}}",
            "upstreams.u.client_id[0]",
            "ends with a blank",
        ),
    ],
)
def test_a_mistake_names_its_cause(tmp_path: Path, text: str, path: str, phrase: str) -> None:
    """A member one level too high, and a blank copied along with a name."""
    found = mistakes(write(tmp_path, text))
    assert list(found) == [path]
    assert phrase in found[path]

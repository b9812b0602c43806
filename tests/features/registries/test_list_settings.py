"""Settings of registry sources: mistakes, issuers, and the files of secrets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.loading import load
from notifier.configuration.secret_files import secrets_of
from notifier.features import FEATURES
from notifier.features.registries.list_settings import HttpListSettings
from notifier.model.errors import ConfigurationError
from notifier.model.registry import Registry
from tests.configuration.clients.registry_sample import ONE, TWO, mistakes, settings
from tests.settings.whole_settings import SETTINGS

# ── Mistakes in the settings of registry sources that are read over HTTP. Each is found at start, with its path ───


HYDRA = {"admin_url": "http://hydra-admin:4445"}
AUTH0 = {"url": "https://acme.eu.auth0.com", "client_id": "notifier", "client_secret_file": "key.pem"}
BASIC = {"Authorization": "Basic cmVhZGVyOmh1bnRlcjI="}
WSO2 = {"url": "https://is.example.com/t/acme", "headers": BASIC}


@pytest.mark.parametrize(
    ("source", "phrase"),
    [
        ({"hydra": HYDRA}, "registry.sources[0]: needs an issuer: Hydra's list of clients does not name it"),
        ({"issuer": ONE, "hydra": {}}, "registry.sources[0].hydra.admin_url: "),
        ({"issuer": ONE, "hydra": {"admin_url": "hydra-admin:4445"}}, "hydra.admin_url: must be an absolute URL"),
        ({"http": {"url": "http://[::1]evil.example"}}, "http.url: must be an absolute URL"),
        ({"issuer": ONE, "hydra": {"admin_url": "http://h:4445/admin/clients"}}, "must end before /admin/clients"),
        ({"http": {"url": "https://u:hunter2@id.example.com/"}}, "http.url: must hold no user and password"),
        ({"http": {"url": "https://x/", "headers": {"Host": "y"}}}, "the header Host belongs to the request itself"),
        ({"http": {"url": "https://x/", "headers": {"X": {"file": "gone"}}}}, "there is no file"),
        ({"auth0": {**AUTH0, "url": "https://acme.eu.auth0.com/api/v2/"}}, "auth0.url: must end before /api/v2"),
        ({"auth0": {**AUTH0, "client_secret_file": "gone"}}, "auth0.client_secret_file: there is no file"),
        ({"authentik": {"url": "https://a/?x=1", "token_file": "key.pem"}}, "authentik.url: must not have a query"),
        ({"wso2": {**WSO2, "headers": {"X-Tenant": "acme"}}}, "wso2: needs headers with Authorization"),
        ({"wso2": {**WSO2, "username": "reader"}}, "wso2.username: is gone: give headers"),
        ({"auth0": {**AUTH0, "url": "http://acme.eu.auth0.com"}}, "auth0.url: must begin with https://"),
        ({"auth0": {**AUTH0, "allow_http": True}}, "auth0.allow_http: is gone: Auth0 is reached by https alone"),
        ({"http": {"url": "https://x/"}, "max_answer": "1GiB"}, "[0].max_answer: is gone: it is 16MiB now"),
    ],
)
def test_a_mistake_names_its_place_and_the_way_out(source: dict[str, Any], phrase: str, tmp_path: Path) -> None:
    """No mistake shows a secret."""
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, "[]", registry={"sources": [source]})
    assert phrase in str(caught.value)
    assert "hunter2" not in str(caught.value)


KEYCLOAK = {"realm": "demo", "client_id": "notifier", "client_secret_file": "key.pem"}
SENDS_A_SECRET: Mapping[str, Mapping[str, Any]] = {
    "keycloak": KEYCLOAK, "wso2": WSO2, "authentik": {"token_file": "key.pem"},
    "hydra": {"headers": BASIC}, "http": {"headers": BASIC},
}  # fmt: skip


@pytest.mark.parametrize("kind", SENDS_A_SECRET)
def test_no_secret_goes_over_http(kind: str, tmp_path: Path) -> None:
    """Anybody on the way could read it. On this machine there is no way; another is the operator's to name."""
    address = "admin_url" if kind == "hydra" else "url"

    def read(url: str, **further: Any) -> None:
        source = {"issuer": ONE, kind: {**SENDS_A_SECRET[kind], address: url, **further}}
        settings(tmp_path, "[]", registry={"sources": [source]})

    with pytest.raises(ConfigurationError) as caught:
        read("http://kc:8080")
    assert f"registry.sources[0].{kind}: {address} must begin with https://" in str(caught.value)
    assert "allow_http: true" in str(caught.value)
    read("http://kc:8080", allow_http=True)
    for safe in ("https://kc:8080", "http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:8080"):
        read(safe)


def test_http_hides_no_other_mistake(tmp_path: Path) -> None:
    """All are listed together: errors of the sources together, of another source, and of a file's clients."""
    (tmp_path / "shop.yaml").write_text("- {client_id: shop, backchannel_logout_url: https://shop.example/}\n")
    (tmp_path / "key.pem").write_text("a secret")
    in_clear = {"issuer": ONE, "keycloak": {**KEYCLOAK, "url": "http://kc:8080"}}

    def phrase(*sources: Mapping[str, Any]) -> str:
        path = tmp_path / "n.yaml"
        path.write_text(
            json.dumps({"issuers": {ONE: {"keys": [{"file": "key.pem"}]}}, "registry": {"sources": sources}})
        )
        with pytest.raises(ConfigurationError) as caught:
            load(path, {}, FEATURES)
        assert str(caught.value).count("registry.sources[0].keycloak: url must begin with https://") == 1
        return str(caught.value)

    assert "backchannel_logout_url" in phrase(in_clear, {"file": "shop.yaml"})
    assert "two sources are called keycloak" in phrase(in_clear, {**in_clear, "every": "2m"})
    assert "registry.sources[1]: needs an issuer" in phrase(in_clear, {"hydra": HYDRA})


def test_a_source_that_needs_https_is_not_requested_without_it(tmp_path: Path) -> None:
    """Neither by `check` nor by a worker's reload: the error is listed, and the other sources are read."""
    (tmp_path / "key.pem").write_text("a secret")
    sources = [
        {"name": "clear", "issuer": ONE, "keycloak": {**KEYCLOAK, "url": "http://kc:8080"}},
        {"name": "own", "issuer": ONE, "http": {"url": "http://list/", "headers": {"A": "b"}}},
        {"name": "safe", "issuer": ONE, "keycloak": {**KEYCLOAK, "url": "https://kc:8080"}},
    ]
    path = tmp_path / "n.yaml"
    path.write_text(json.dumps({"issuers": {ONE: {"keys": [{"file": "key.pem"}]}}, "registry": {"sources": sources}}))
    asked: list[str] = []
    with pytest.raises(ConfigurationError):
        load(path, {}, FEATURES, answer_of=lambda source, _folder: asked.append(source.source_name))
    assert asked == ["safe"]


def test_a_session_look_up_sends_no_secret_over_http(tmp_path: Path) -> None:
    """It is the same rule, at `resolve.http`."""

    def read(**http: Any) -> None:
        asked = {"url": "http://login.internal/sessions", **http}
        settings(
            tmp_path,
            "[]",
            upstreams={"up": {"issuer": "https://up.example", "client_id": "us", "resolve": {"http": asked}}},
        )

    with pytest.raises(ConfigurationError, match=r"upstreams\.up\.resolve\.http: url must begin with https://"):
        read(headers={"A": "b"})
    read()
    read(headers={"A": "b"}, allow_http=True)


def test_no_header_is_in_the_repr(tmp_path: Path) -> None:
    """Headers hold tokens."""
    (tmp_path / "token").write_text("Bearer hunter2\n")
    headers = {"Authorization": {"file": "token"}}
    sources = [
        {"http": {"url": "https://x/", "headers": headers}},
        {"issuer": ONE, "hydra": {"admin_url": "https://hydra-admin:4445", "headers": headers}},
        {"wso2": {"url": WSO2["url"], "headers": headers}},
    ]
    read = settings(tmp_path, "[]", registry={"sources": sources})
    http = read.registry.sources[0].of_kind(HttpListSettings)
    assert http.headers == {"Authorization": "Bearer hunter2"}
    assert "hunter2" not in repr(read)


# ── The issuer of a source's clients, where its kind determines it ────────────────────────────────────────────────


def test_issuers_of_sources(tmp_path: Path) -> None:
    """A source's issuer is configured, whether a setting names it or the kind determines it."""
    sources = [
        {"name": "a", "issuer": "https://id.example.co", "http": {"url": "https://id.example.com/clients"}},
        {"name": "b", "sql": {"url": "sqlite:///x", "preset": "duende"}},
        {"name": "c", "sql": {"url": "sqlite:///x", "query": "SELECT issuer, client_id FROM c"}},
        {"name": "d", "keycloak": {
            "url": "https://kc.example.com", "realm": "a b", "client_id": "n", "client_secret": "s"
        }},
    ]  # fmt: skip
    registry = {"sources": sources, "defaults": {"https://kc.example.com/realms/a": {"timeout": "3s"}}}
    found = mistakes(tmp_path, "[]", ONE, TWO, registry=registry)
    assert list(found) == [
        *(f"registry.sources[{nth}].issuer" for nth in range(4)),
        'registry.defaults["https://kc.example.com/realms/a"]',
    ]  # fmt: skip
    assert f"did you mean {ONE}?" in found["registry.sources[0].issuer"]
    assert "2 issuers" in found["registry.sources[1].issuer"]
    assert "https://kc.example.com/realms/a%20b is not" in found["registry.sources[3].issuer"]


# ── The files with which a worker proves itself to registries are looked after like its own secrets ───────────────


def test_the_secret_of_a_source_is_one_of_the_secrets(tmp_path: Path) -> None:
    """By the setting that names it."""
    (tmp_path / "keycloak").write_text("secret")
    keycloak = {"url": "https://kc.example.com", "realm": "demo", "client_id": "notifier"}
    keycloak["client_secret_file"] = str(tmp_path / "keycloak")
    settings = SETTINGS.model_validate({"registry": {"sources": [{"keycloak": keycloak}]}})
    found = secrets_of(settings, Registry(), ())
    assert found == {"registry.sources.keycloak.keycloak.client_secret_file": tmp_path / "keycloak"}

"""`check` and `run` report every error of every file at once, without derived errors."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.configuration.clients.client_metadata import RegistryBuilder
from notifier.configuration.clients.registry_checks import examine_tls_files
from notifier.configuration.file_mistakes import find_start_errors, leave_out_files
from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.settings.service_settings import Settings
from notifier.settings.usable_settings import usable_settings
from tests.settings.whole_settings import SETTINGS
from tests.tokens.key_folder import pem

ISS = "https://id.example.com"
OTHER = "https://login.example.org"
CLIENTS = """
- {client_id: shop, backchannel_logout_uri: "https://shop.example.com/#x", id_token_signed_response_alg: ES256}
- {client_id: shop, issuer: https://id.example.org}
- {client_id: old, notifier: {typ: jwt}}
"""
TOKENS = "- {name: idp, token: t, scopes: [publich]}\n- {name: far, token: u, scopes: [read], issuers: [https://x]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a valid key, clients file and tokens file."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "clients.yaml").write_text("[]")
    (tmp_path / "tokens.yaml").write_text("[]")
    return tmp_path


def mistakes_of(
    folder: Path, document: object, environ: Mapping[str, str] | None = None, **files: str
) -> dict[str, str]:
    """Return the errors of this configuration by path; `files`: the text of each referenced YAML file, by its stem."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "n.yaml").write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ConfigurationError) as caught:
        load(folder / "n.yaml", environ or {}, FEATURES, find_more=find_start_errors)
    return {mistake.path: mistake.text for mistake in caught.value.mistakes}


def service(**sections: Any) -> dict[str, Any]:
    """Return a service of one issuer with these sections."""
    issuers = {ISS: {"keys": [{"file": "key.pem"}]}}
    return {"issuers": issuers, "registry": {"file": "clients.yaml"}, "api": {"tokens_file": "tokens.yaml"}, **sections}


def test_one_file_hides_no_other(folder: Path) -> None:
    """The service's file, the clients', the tokens', a key, a secret and both kinds of TLS files, in one run."""
    for name in ("bad.pem", "cert.pem"):
        (folder / name).write_text("no key")
    (folder / "secret").write_bytes(b"\xff")
    tls = {"cert_file": "cert.pem", "key_file": "cert.pem"}
    document = service(
        queue={"url": "amqps://mq", "password_file": "secret", "tls": tls, "prefetch": {"bulk": 0}},
        api={"tokens_file": "tokens.yaml", "tls": tls},
        issuers={ISS: {"keys": [{"file": "gone.pem"}, {"file": "bad.pem"}]}},
        log={"subject_key_file": "secret"},
        outcome="all",
    )
    found = mistakes_of(folder, document, {"NOTIFIER_LOG__LEVL": "info"}, clients=CLIENTS, tokens=TOKENS)
    assert set(found) == {
        "NOTIFIER_LOG__LEVL", "queue.prefetch.bulk", "outcome", f'issuers["{ISS}"].keys[0].file',
        f'issuers["{ISS}"].keys[1].file', "clients.yaml[0].backchannel_logout_uri", "clients.yaml[1].issuer",
        "clients.yaml[2].notifier.typ", "tokens.yaml[0].scopes[0]", "tokens.yaml[1].issuers", "api.tls", "queue.tls",
        str(folder / "secret"),
    }  # fmt: skip
    assert found[f'issuers["{ISS}"].keys[0].file'].startswith("there is no file")
    assert "neither PEM" in found[f'issuers["{ISS}"].keys[1].file']


TWO_SOURCES = {"registry": {"sources": [{"name": "a", "file": "gone"}, {"name": "b", "file": "words.yaml"}]}}
QUEUE = {"url": "amqps://mq", "username": "u", "password_file": "lines"}
CERT, KEY, CA = ({member: "words"} for member in ("cert_file", "key_file", "ca_file"))


@pytest.mark.parametrize("absence", ["gone", "empty"])
@pytest.mark.parametrize(
    ("sections", "paths"),
    [
        ({"api": {"tls": {**CERT, "key_file": "gone"}}}, ["api.tls.key_file", "api.tls"]),
        ({"api": {"tls": {"cert_file": "gone", **KEY, "client_ca_file": "words"}}}, ["api.tls.cert_file", "api.tls"]),
        ({"web": {"tls": {"cert_file": "gone", **KEY}}}, ["web.tls.cert_file", "web.tls"]),
        ({"queue": {**QUEUE, "tls": {"ca_file": "gone", **CERT, **KEY}}}, ["queue.tls.ca_file", "lines", "queue.tls"]),
        ({"queue": {**QUEUE, "password_file": "gone", "tls": CA}}, ["queue.password_file", "queue.tls"]),
        (TWO_SOURCES, ["registry.sources[0].file", "words.yaml"]),
    ],
)
def test_a_missing_file_hides_no_wrong_file_of_its_section(
    folder: Path, absence: str, sections: dict[str, Any], paths: list[str]
) -> None:
    """Nor does an empty one where it counts as missing: a secret. Each file is reported once."""
    (folder / "words").write_text("no key")
    (folder / "lines").write_text("a\nb")
    (folder / "empty").write_text("")
    is_secret = paths[0] == "queue.password_file"
    document = json.dumps(service(**sections)).replace('"gone"', f'"{absence if is_secret else "gone"}"')
    found = mistakes_of(folder, document, words="[1")
    assert [path.removeprefix(f"{folder}/") for path in found] == paths
    assert not [text for path, text in found.items() if path != paths[0] and "gone" in text]


def test_a_missing_file_of_a_client_hides_no_other(folder: Path) -> None:
    """Of the same client: its TLS files, its headers, and an algorithm that no key has."""
    (folder / "words").write_text("no key")
    own = {"tls": {"ca_file": "gone", "cert_file": "words"}, "headers": {"x": {"file": "away"}, "y": {"file": "lines"}}}
    (folder / "lines").write_text("a\nb")
    client = {"client_id": "shop", "backchannel_logout_uri": "https://shop.example.com/", "notifier": own}
    (folder / "clients.yaml").write_text(json.dumps([client]))
    (folder / "n.yaml").write_text(json.dumps(service()))

    def find_more(_settings: Any, registry: Any, _layers: Any, reported: Any) -> list[InputIssue]:
        return examine_tls_files(registry, 0.0, reported)[0]

    with pytest.raises(ConfigurationError) as caught:
        load(folder / "n.yaml", {}, FEATURES, find_more=find_more)
    texts = [str(mistake).removeprefix("clients.yaml[0] (shop).notifier.") for mistake in caught.value.mistakes]
    assert texts[0] == f"tls.ca_file: there is no file {folder}/gone"
    assert texts[1] == f"headers.x: there is no file {folder}/away"
    assert texts[2].endswith("lines must hold one line of text")
    assert "needs a token signed with RS256" in texts[3]
    assert f"tls: {folder}/words is not PEM, and has no certificate" in texts[4]
    assert len(texts) == 5
    assert "gone" not in texts[4]


HTTP = '[{client_id: shop, backchannel_logout_uri: "http://10.0.0.1/", id_token_signed_response_alg: ES256}]'


@pytest.mark.parametrize(
    ("sections", "clients", "paths"),
    [
        ({"egress": {"allow_htp": True}}, HTTP, {"egress.allow_htp"}),
        ({"egress": {"allow": ["10.0.0.1/8"]}}, HTTP, {"egress.allow[0]"}),
        ({"egres": {"allow": ["10.0.0.0/8"], "allow_http": True}}, HTTP, {"egres"}),
        ({"egress": "all"}, CLIENTS.splitlines()[1], {"egress", "clients.yaml[0].backchannel_logout_uri"}),
        ({"delivery": {"retri": {}}}, "[{client_id: shop, notifier: {retry: {base: 2h}}}]", {"delivery.retri"}),
        ({"delivery": {"timeout": 1}}, "[{client_id: shop, notifier: {retry: {base: 2h}}}]", {"delivery.timeout"}),
        ({"issuers": {"id.example.com": {"keys": [{"file": "key.pem"}]}}}, CLIENTS, None),
        ({"issuers": {}}, CLIENTS, {"issuers"}),
        ({"issuers": [ISS]}, CLIENTS, {"issuers"}),
        ({"issuer": {}, "issuers": {OTHER: {"keys": [{"file": "key.pem"}]}}}, CLIENTS, {"issuer"}),
    ],
)
def test_derived_errors_are_not_reported(
    folder: Path, sections: dict[str, Any], clients: str, paths: set[str] | None
) -> None:
    """An invalid section may have made the client valid; independent errors are reported all the same."""
    found = mistakes_of(folder, service(**sections), clients=clients)
    if clients == CLIENTS:
        paths = {'issuers["id.example.com"]'} if paths is None else paths
        paths |= {"clients.yaml[0].backchannel_logout_uri", "clients.yaml[2].notifier.typ"}
    assert set(found) == paths


def test_tokens_of_invalid_issuers_are_not_checked(folder: Path) -> None:
    """Independent errors of a token are reported."""
    found = mistakes_of(folder, service(issuers={"id.example.com": {}}), tokens=TOKENS)
    assert "tokens.yaml[0].scopes[0]" in found
    assert "tokens.yaml[1].issuers" not in found


def test_name_of_an_invalid_issuer_is_kept(folder: Path) -> None:
    """Its clients are known, but not its algorithms; those of another issuer are."""
    issuers = {ISS: {"keys": [{"file": "key.pem"}, {"file": "gone.pem"}]}, OTHER: {"keys": [{"file": "key.pem"}]}}
    uri = "https://shop.example.com/"
    clients = [
        {"client_id": "a", "issuer": ISS, "backchannel_logout_uri": uri},
        {"client_id": "b", "issuer": OTHER, "backchannel_logout_uri": uri},
        {"client_id": "c", "issuer": "https://none.example"},
    ]
    found = mistakes_of(folder, service(issuers=issuers), clients=json.dumps(clients))
    assert set(found) == {f'issuers["{ISS}"].keys[1].file', "clients.yaml[2].issuer", f"client 'b' of {OTHER}"}


def test_invalid_client_does_not_hide_one_without_a_signing_key(folder: Path) -> None:
    """Both are reported in one run."""
    clients = "[{client_id: a, notifier: {typ: x}}, {client_id: b, backchannel_logout_uri: 'https://b.example.com/'}]"
    assert set(mistakes_of(folder, service(), clients=clients)) == {
        "clients.yaml[0].notifier.typ",
        f"client 'b' of {ISS}",
    }


def test_listeners_at_one_address_hide_no_error(folder: Path) -> None:
    """Nor does an open listener without tokens."""
    same = {"listen": "127.0.0.1:9464", "tokens_file": "tokens.yaml"}
    found = mistakes_of(folder, service(api=same), clients=CLIENTS, tokens=TOKENS)
    assert {"", "clients.yaml[2].notifier.typ", "tokens.yaml[0].scopes[0]"} <= set(found)
    found = mistakes_of(folder, service(api={"listen": "0.0.0.0:1"}), clients=CLIENTS)
    assert {"api", "clients.yaml[2].notifier.typ"} <= set(found)


@pytest.mark.parametrize("document", ["queue: [1", "- queue"])
def test_unreadable_file_does_not_hide_clients(folder: Path, document: str) -> None:
    """If the environment sets them."""
    environ = {"NOTIFIER_REGISTRY__FILE": str(folder / "clients.yaml")}
    found = mistakes_of(folder, document, environ, clients=CLIENTS)
    assert set(found) == {"n.yaml", "clients.yaml[0].backchannel_logout_uri", "clients.yaml[2].notifier.typ"}


@pytest.mark.parametrize(
    "environ",
    [
        {"NOTIFIER_ISSUERS": "{"},
        {"NOTIFIER_ISSUER": "{}"},
        {"NOTIFIER_EGRESS__ALLOW": "[", "NOTIFIER_ISSUERS__X": "1"},
        {"NOTIFIER_EGRES__ALLOW_HTTP": "true", "NOTIFIER_ISSUERS__X": "1"},
    ],
)
def test_invalid_variable_makes_its_section_unknown(folder: Path, environ: dict[str, str]) -> None:
    """As an invalid member of the file does."""
    clients = f'[{{client_id: a, issuer: "{OTHER}", backchannel_logout_uri: "http://10.0.0.1/"}}]'
    document = service(egress={"allow_http": True, "allow": ["10.0.0.0/8"]} if len(environ) == 1 else {})
    assert set(mistakes_of(folder, document, environ, clients=clients)) == set(environ)


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(sorted(SETTINGS.model_fields)) | st.text(max_size=4) | st.integers(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from([ISS, "x:1", "1s"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([ISS, "keys", "file", "listen", "url", "tls", "retry", "inline"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_any_invalid_document_yields_settings_and_errors(document: dict[Any, Any]) -> None:
    """The remaining settings are valid, every removed setting has an error, and the document is unchanged."""
    before = json.dumps(document, default=str)
    parts = usable_settings(document, {"base": Path("/nowhere"), "files": set()}, SETTINGS)
    assert json.dumps(document, default=str) == before
    assert parts.mistakes or not parts.invalid_sections
    assert set(parts.keys) == set(parts.settings.issuers)


def test_many_missing_files_are_compared_with_each_text_in_linear_time() -> None:
    """A search for each of 4,000 files in each of 4,000 texts took 8 s."""

    def count_lines(count: int) -> int:
        files = frozenset(Path(f"/etc/keys/{nth}.pem") for nth in range(count))
        mistakes = [InputIssue("issuers", f"there is no key {nth}") for nth in range(count)]
        lines = 0

        def trace(_frame: object, event: str, _argument: object) -> Any:
            nonlocal lines
            lines += event in ("call", "line")
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            assert [*leave_out_files(mistakes, files)] == mistakes
        finally:
            sys.settrace(before)
        return lines

    assert count_lines(160) < 3 * count_lines(80)


def test_a_row_with_a_missing_file_copies_no_earlier_ones(folder: Path) -> None:
    """A copy for each of 200,000 rows would take 20,000,000,000 steps."""
    document = {"issuers": {ISS: {"keys": [{"file": "key.pem"}]}}}
    builder = RegistryBuilder(Settings.model_validate(document, context={"base": folder}))
    files = builder.unusable_files
    for nth in range(3):
        row = {"client_id": f"c{nth}", "notifier": {"tls": {"ca_file": f"{nth}.pem"}}}
        builder.add(row, f"clients.yaml[{nth}]", {"base": folder})
    assert files is builder.unusable_files
    assert files == {folder / f"{nth}.pem" for nth in range(3)}

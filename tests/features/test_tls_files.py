"""`check` finds wrong TLS files of the servers that features call."""

import json
from pathlib import Path

from notifier.configuration.file_mistakes import find_tls_mistakes
from notifier.configuration.loading import load
from notifier.features import FEATURES
from tests.configuration.test_all_mistakes import CA, ISS, OTHER, service
from tests.tokens.key_folder import pem


def test_wrong_tls_files_of_servers_are_found(tmp_path: Path) -> None:
    """In each section in which notifier calls a server: of issuers, keys, registry sources and upstreams."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    for name, text in (("clients.yaml", "[]"), ("tokens.yaml", "[]"), ("words", "no key")):
        (tmp_path / name).write_text(text)
    vault = {"address": "https://v.example.com", "key": "k", "version": 1, "token_file": "words", "tls": CA}
    source = {"name": "l", "issuer": ISS, "http": {"url": "https://l.example.com/", "tls": CA}}
    upstream = {"issuer": OTHER, "client_id": "x", "tls": CA, "resolve": {"same_sub": {}}}
    document = service(
        issuers={ISS: {"keys": [{"file": "key.pem"}, {"vault": vault}], "tls": CA}},
        registry={"sources": [source], "defaults": {ISS: {"tls": CA}}},
        web={},
        upstreams={"u": upstream},
    )
    (tmp_path / "n.yaml").write_text(json.dumps(document))
    found = find_tls_mistakes(load(tmp_path / "n.yaml", {}, FEATURES).settings, ())
    assert sorted(mistake.path for mistake in found) == [
        f'issuers["{ISS}"].keys[1].vault.tls', f'issuers["{ISS}"].tls', f'registry.defaults["{ISS}"].tls',
        "registry.sources[0].http.tls", "upstreams.u.tls",
    ]  # fmt: skip
    assert {"no certificate" in mistake.text for mistake in found} == {True}

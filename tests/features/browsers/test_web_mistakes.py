"""What is wrong in the section `web` is told with all else, in one go."""

import json
from pathlib import Path

from notifier.configuration.loading import load
from notifier.features import FEATURES
from notifier.features.browsers.web_keys import PagesPart
from tests.configuration.test_all_mistakes import ISS, OTHER, service, told
from tests.tokens.key_folder import pem


def test_one_mistake_hides_no_other(tmp_path: Path) -> None:
    """A certificate, the keys of pages, an issuer that is none of ours, and a section beside it."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "cert.pem").write_text("no key")
    tls = {"cert_file": "cert.pem", "key_file": "cert.pem"}
    issuers = {OTHER: {"url": "https://login.example.org/"}}
    document = service(web={"tls": tls, "keys_file": "cert.pem", "issuers": issuers}, outcome="all")
    found = told(tmp_path, document, clients="[]", tokens="[]")
    assert set(found) == {"web.tls", "web.keys_file", f'web.issuers["{OTHER}"]', "outcome"}


def test_keys_are_required_where_pages_are_served(tmp_path: Path) -> None:
    """The addresses of front-channel pages are sealed. Nothing else that the listener serves needs keys."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    pages = {"issuers": {ISS: {"url": f"{ISS}/notify"}}}
    found = told(tmp_path, service(web=pages), clients="[]", tokens="[]")
    assert "keys_file is required, since it seals" in found["web"]
    for web in ({}, {"check_session": {"login": {"issuer": ISS, "formula": "duende"}}}):
        (tmp_path / "n.yaml").write_text(json.dumps(service(web=web)))
        loaded = load(tmp_path / "n.yaml", {}, FEATURES)
        assert loaded.part(PagesPart).keys is None

"""What is wrong in the section `web` is told with all else, in one go."""

from pathlib import Path

from tests.configuration.test_all_mistakes import OTHER, service, told
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

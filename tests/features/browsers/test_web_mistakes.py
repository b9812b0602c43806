"""What is wrong in the section `web` is told with all else, in one go."""

from pathlib import Path

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


def test_what_was_a_setting_says_what_it_is_now(tmp_path: Path) -> None:
    """As for all sections."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    document = service(web={"keys_file": "key.pem", "issuers": {ISS: {"url": f"{ISS}/notify", "frames": 9}}})
    found = told(tmp_path, document, clients="[]", tokens="[]")
    assert found[f'web.issuers["{ISS}"].frames'] == "is gone: it is 25 now; remove it"

"""A reload takes the pages' settings, as it takes all others."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet, InvalidToken

from notifier.features.browsers.web_keys import PagesPart
from notifier.features.browsers.web_settings import web_of
from tests.configuration.test_live_configuration import live, write
from tests.tokens.key_folder import ISS, pem


def test_pages_follow_a_reload_and_their_listener_does_not(tmp_path: Path) -> None:
    """Issuers and keys of pages are taken at once; the address, and the whole section, need a restart."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "clients.yaml").write_text("[]")
    (tmp_path / "web.keys").write_bytes(Fernet.generate_key())
    face = {"listen": "127.0.0.1:0", "keys_file": "web.keys", "issuers": {ISS: {"url": "https://id.example.com/out"}}}
    running = live(tmp_path, web=face)
    first = running.now.part(PagesPart).keys
    (tmp_path / "web.keys").write_bytes(Fernet.generate_key())
    (tmp_path / "own.keys").write_bytes(Fernet.generate_key())
    own = {"url": "https://id.example.com/out", "keys_file": "own.keys"}
    write(tmp_path, web={**face, "issuers": {ISS: own}})
    assert running.reload(asked=False)
    keys = running.now.part(PagesPart).keys
    assert keys is not None
    before = keys.of(ISS).encrypt(b"x")
    (tmp_path / "own.keys").write_bytes(Fernet.generate_key())
    assert running.reload(asked=False)
    keys = running.now.part(PagesPart).keys
    assert keys is not None
    with pytest.raises(InvalidToken):
        keys.of(ISS).decrypt(before)
    write(tmp_path, web={**face, "issuers": {}})
    assert running.reload(asked=False)
    assert (running.reloads.wait_for_restart, running.now.part(PagesPart).keys is first) == ((), False)
    section = web_of(running.now.settings)
    assert section is not None
    assert section.issuers == {}
    write(tmp_path, web={**face, "listen": "127.0.0.1:8090"})
    assert running.reload(asked=False)
    assert running.reloads.wait_for_restart == ("web.listen",)
    write(tmp_path)
    assert running.reload(asked=False)
    assert running.reloads.wait_for_restart == ("web",)

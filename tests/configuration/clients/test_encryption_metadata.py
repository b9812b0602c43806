"""What a registration says of encrypted tokens, wherever it comes from: algorithms, keys, and the way to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.clients.remote_rows import clean
from notifier.model.client import ClientKeysPlace, ContentEncryption, Encryption, KeyManagement, TlsFiles
from notifier.model.delivery import Inline
from notifier.model.errors import Mistake
from notifier.model.registry import Registry
from tests.configuration.clients.registry_sample import HOOK, ONE, registry
from tests.tokens.encryption_keys import keys, made, public

KEYS = "https://shop.example.com/jwks"


def registered(folder: Path, **members: Any) -> Registry:
    """One client that asks for encrypted tokens."""
    asked = {"client_id": "shop", "backchannel_logout_uri": HOOK, "id_token_encrypted_response_alg": "RSA-OAEP"}
    return registry(folder, json.dumps([asked | members]))


def asked(folder: Path, **members: Any) -> Encryption:
    found = registered(folder, **members).clients_of(ONE)["shop"].encryption
    assert found is not None
    return found


def place(found: Encryption) -> ClientKeysPlace:
    assert isinstance(found.keys, ClientKeysPlace)
    return found.keys


def test_algorithms_and_keys_are_as_they_are_registered(tmp_path: Path) -> None:
    """A128CBC-HS256 unless it says otherwise (OpenID Connect Registration §2); `jwks` comes before `jwks_uri`."""
    found = asked(tmp_path, jwks_uri=KEYS)
    assert (found.alg, found.enc) == (KeyManagement.RSA_OAEP, ContentEncryption.A128CBC_HS256)
    assert place(found).uri == KEYS
    key = public(made("RSA"), kid="e1")
    found = asked(tmp_path, jwks_uri=KEYS, jwks={"keys": [key]}, id_token_encrypted_response_enc="A256GCM")
    assert (found.enc, found.keys) == (ContentEncryption.A256GCM, keys(key))


@pytest.mark.parametrize("jwks", [None, "", [], {"keys": []}])
def test_an_empty_set_is_absent(tmp_path: Path, jwks: object) -> None:
    """Serializers write it where `jwks_uri` is registered."""
    assert place(asked(tmp_path, jwks_uri=KEYS, jwks=jwks)).uri == KEYS
    raw = {"client_id": "shop", "jwks": jwks, "id_token_encrypted_response_alg": "RSA-OAEP", "redirect_uris": []}
    row = clean(raw, "[0]")
    assert not isinstance(row, Mistake)
    assert row.get("jwks", {"keys": []}) == {"keys": []}
    assert "redirect_uris" not in row


def test_without_the_algorithm_tokens_are_signed_only(tmp_path: Path) -> None:
    """Whatever keys it has, broken ones too: they are for something else."""
    for members in ({"jwks_uri": "http://10.0.0.1/"}, {"jwks": "none"}, {"jwks": {"keys": [{"kty": "RSA"}]}}):
        found = registered(tmp_path, id_token_encrypted_response_alg=None, **members)
        assert found.clients_of(ONE)["shop"].encryption is None


def test_the_way_to_the_keys_is_the_clients_without_its_secrets(tmp_path: Path) -> None:
    """Our certificate is shown to the client's own server alone, and no header to anybody."""
    for name in ("ca.pem", "cert.pem", "cert.key"):
        (tmp_path / name).write_text("a file")
    tls = {"ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "cert.key"}
    notifier = {"tls": tls, "headers": {"X-Key": "hunter2"}, "proxy": "http://proxy.example.com:3128"}
    own = place(asked(tmp_path, jwks_uri=KEYS, notifier=notifier)).route
    assert (own.headers, own.proxy, own.tls.cert_file) == ((), notifier["proxy"], tmp_path / "cert.pem")
    elsewhere = place(asked(tmp_path, jwks_uri="https://keys.example.org/", notifier=notifier)).route
    assert elsewhere.tls == TlsFiles(ca_file=tmp_path / "ca.pem")


def test_another_address_of_an_event_leaves_them_as_they_are(tmp_path: Path) -> None:
    """What is sent there can be opened by the client's key alone; and a client without an address has them too."""
    found = registered(tmp_path, jwks_uri=KEYS)
    inline = Inline(backchannel_logout_uri="https://elsewhere.example.org/")
    client = found.resolve(ONE, "shop", inline)
    assert client is not None
    assert client.encryption == found.clients_of(ONE)["shop"].encryption
    silent = registered(tmp_path, backchannel_logout_uri=None).resolve(ONE, "shop", inline)
    assert silent is not None
    assert silent.encryption == Encryption(alg=KeyManagement.RSA_OAEP, keys=())


@pytest.mark.parametrize("jwks", [{"keys": [{"kty": "oct", "k": "hunter2"}]}, "hunter2", ["hunter2"]])
def test_no_secret_of_a_server_is_kept(jwks: Any) -> None:
    """And no keys at all of clients that want nothing encrypted: they would fill memory and cache."""
    raw = {"client_id": "shop", "backchannel_logout_uri": HOOK, "jwks": jwks, "jwks_uri": KEYS}
    row = clean(raw | {"id_token_encrypted_response_alg": "RSA-OAEP"}, "[0]")
    assert not isinstance(row, Mistake)
    assert "hunter2" not in str(row)
    assert clean(row, "[0]") == row, "as the cache gives it back"
    assert clean(raw, "[0]") == {"client_id": "shop", "backchannel_logout_uri": HOOK, "jwks_uri": KEYS}

"""PEM files that were damaged when they were copied: each reader names the damage and the way out."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from notifier.model.client import TlsFiles
from notifier.model.errors import ConfigurationError, OurFault
from notifier.network.http.pem_files import connecting_context, listening_context
from notifier.settings.policies import ListenerTls
from notifier.tokens.key_files import KeySource, load_key
from tests.support.certificates import authority

DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"\n", "is empty"),
    "line breaks written out": (lambda pem: pem.replace(b"\n", b"\\n"), r'line breaks: printf %b "$(cat FILE)"'),
    "base64 twice": (base64.encodebytes, "is base64 of the file that is meant; decode it once: base64 -d"),
    "base64 twice, in one line": (base64.b64encode, "is base64 of the file that is meant"),
    "no line breaks": (lambda pem: pem.replace(b"\n", b" "), "has lost its line breaks"),
    "indented": (lambda pem: b"".join(b"    " + line for line in pem.splitlines(True)), "is indented"),
    "UTF-16": (lambda pem: pem.decode().encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "DER": (lambda pem: base64.b64decode(b"".join(pem.splitlines()[1:-1])), "is DER, not PEM; convert it: openssl"),
}


def certificate_and_key(folder: Path) -> tuple[Path, Path]:
    """A certificate and its private key, each in a file."""
    whole = authority(folder).issue("localhost").read_bytes()
    at = whole.index(b"-----BEGIN PRIVATE KEY")
    parts = whole[:at] + whole[whole.index(b"-----END PRIVATE KEY-----\n") + 26 :], whole[at:]
    key = parts[1][: parts[1].index(b"-----END PRIVATE KEY-----\n") + 26]
    (folder / "cert.pem").write_bytes(parts[0])
    (folder / "key.pem").write_bytes(key)
    load_pem_private_key(key, None)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("damaged", ["cert.pem", "key.pem", "ca.pem", "signing key"])
def test_each_reader_names_the_damage(tmp_path: Path, damage: str, damaged: str) -> None:
    """Certificates, their keys and authorities of both kinds of connection, and signing keys; by the file's name."""
    cert, key = certificate_and_key(tmp_path)
    spoil, says = DAMAGES[damage]
    file = key if damaged == "signing key" else tmp_path / damaged
    file.write_bytes(spoil(file.read_bytes()))
    if damaged == "signing key":
        with pytest.raises(ConfigurationError) as refused:
            load_key(KeySource(path=file))
        assert f"{file} " in str(refused.value)
        assert says in str(refused.value)
        return
    own = {} if damaged == "ca.pem" else {"cert_file": cert, "key_file": key}
    ca_file = tmp_path / "ca.pem"
    with pytest.raises(OurFault) as fault:
        connecting_context(TlsFiles(ca_file=ca_file, **own))
    assert str(fault.value).startswith(f"{file} ")
    assert says in str(fault.value)
    with pytest.raises(OurFault) as fault:
        listening_context(
            ListenerTls.model_construct(
                cert_file=cert, key_file=key, client_ca_file=ca_file if damaged == "ca.pem" else None
            )
        )
    assert says in str(fault.value)


@pytest.mark.parametrize("form", [["pkcs8", "-topk8", "-v2", "aes256"], ["ec", "-aes256"]])
def test_an_encrypted_key_is_named(tmp_path: Path, form: list[str]) -> None:
    """In both forms that openssl writes, at a connection, a listener and an issuer."""
    cert, key = certificate_and_key(tmp_path)
    kind, *options = form
    locked = tmp_path / "locked.pem"
    command = ["openssl", kind, *options, "-in", str(key), "-out", str(locked), "-passout", "pass:x1234"]
    subprocess.run(command, check=True, capture_output=True)
    says = f"{locked} is encrypted; store it decrypted"
    with pytest.raises(OurFault, match="is encrypted") as fault:
        connecting_context(TlsFiles(ca_file=tmp_path / "ca.pem", cert_file=cert, key_file=locked))
    assert says in str(fault.value)
    with pytest.raises(OurFault, match="is encrypted") as fault:
        listening_context(ListenerTls.model_construct(cert_file=cert, key_file=locked, client_ca_file=None))
    assert says in str(fault.value)
    with pytest.raises(ConfigurationError) as refused:
        load_key(KeySource(path=locked))
    assert says in str(refused.value)


def test_a_jwk_in_base64_is_named(tmp_path: Path) -> None:
    """A secret store's value is often encoded once more."""
    (tmp_path / "k").write_bytes(base64.b64encode(b'{"kty": "EC"}'))
    with pytest.raises(ConfigurationError, match="is base64 of the file that is meant"):
        load_key(KeySource(path=tmp_path / "k"))

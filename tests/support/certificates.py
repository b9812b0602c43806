"""A test certificate authority: servers with valid, expired and misnamed certificates, and mutual TLS."""

import datetime as dt
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authority with its certificate in `ca_file`; issued files are written to the same folder."""

    ca_file: Path
    _key: ec.EllipticCurvePrivateKey
    _certificate: x509.Certificate

    def issue(self, name: str, *names: str, expired: bool = False) -> Path:
        """Issue a PEM file with key and certificate for these names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = _now() - dt.timedelta(days=1) if expired else _now() + dt.timedelta(days=1)
        certificate = (
            _builder(name, self._certificate.subject, key, end)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(each) for each in (name, *names)]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        path = self.ca_file.with_name(f"{name}{'-expired' if expired else ''}.pem")
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        return path

    def issue_with_expired(self, name: str) -> Path:
        """Issue a PEM file with key and certificate, and an expired certificate behind it, as of a cross-signed CA."""
        expired = self.issue("cross-signed", expired=True).read_text()
        path = self.issue(name)
        path.write_text(path.read_text() + expired[expired.index("-----BEGIN CERTIFICATE") :])
        return path

    def intermediate(self, directory: Path) -> "Authority":
        """Create an intermediate authority; its `ca_file` holds only its own certificate."""
        directory.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder("Intermediate CA", self._certificate.subject, key, _now() + dt.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        ca_file = directory / "ca.pem"
        ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        return Authority(ca_file=ca_file, _key=key, _certificate=certificate)

    def server(
        self, *names: str, expired: bool = False, mutual: bool = False, newest: ssl.TLSVersion | None = None
    ) -> ssl.SSLContext:
        """Return a server's TLS context; `mutual` requires a client certificate of this authority; `newest` is the
        maximum version.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*(names or ("localhost", "127.0.0.1")), expired=expired))
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        if newest is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = newest
        return context


def authority(directory: Path, name: str = "Test CA") -> Authority:
    """Create an authority with its files in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(name, _name(name), key, _now() + dt.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return Authority(ca_file=ca_file, _key=key, _certificate=certificate)


ODD_CERTIFICATES = {
    "version 2": ("a003020102", "a003020101"),
    "version 4": ("a003020102", "a003020103"),
    "year 0": (b"20600101000000Z".hex(), b"00000101000000Z".hex()),
    "30 February": (b"20600101000000Z".hex(), b"20600230000000Z".hex()),
}
"""By kind: bytes of a certificate, and those in their place. OpenSSL loads the result; cryptography raises an error."""


def odd_certificate(kind: str) -> str:
    """Return a key and its certificate of this kind, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _builder("odd", _name("odd"), key, dt.datetime(2060, 1, 1, tzinfo=dt.UTC)).sign(key, hashes.SHA256())
    old, new = map(bytes.fromhex, ODD_CERTIFICATES[kind])
    certificate = made.public_bytes(Encoding.DER)
    assert certificate.count(old) == 1
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return private + ssl.DER_cert_to_PEM_cert(certificate.replace(old, new))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - dt.timedelta(days=3))
        .not_valid_after(end)
    )

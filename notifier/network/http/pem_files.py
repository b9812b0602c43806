"""Loads PEM files into TLS contexts, and explains why a file is unusable.

Certificates are checked the same way on all versions of Python. Since 3.13 Python's default refuses a private
authority's certificates without key usage or authority key identifier (VERIFY_X509_STRICT), and accepts an intermediate
certificate as the end of a chain (VERIFY_X509_PARTIAL_CHAIN); before, it does neither. Here the first is always off,
and the second always on: each certificate in `ca_file` is trusted.

The empty password makes an encrypted key an error. Without it OpenSSL would ask for a password on the terminal.
"""

import base64
import re
import ssl
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cryptography import x509

from notifier.model.client import TlsFiles
from notifier.model.errors import InternalFault
from notifier.model.moment import format_moment_for_people
from notifier.model.outcome import Cause
from notifier.network.counted_tls import CountedContext, new_context
from notifier.settings.policies import ListenerTls

MAX_EXAMINED_BYTES = 65_536  # of a file that are searched for a known mistake
_BEGIN = b"-----BEGIN "
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_PKCS12 = bytes.fromhex("06092a864886f70d0107")  # the object identifier of PKCS #7, in which PKCS #12 has its content
_JAVA_KEY_STORE = bytes.fromhex("feedfeed")
_Issue: TypeAlias = tuple[tuple[Path, ...], str]
"""The files that cannot be used, and why."""


def set_verify_flags(context: ssl.SSLContext) -> None:
    """Set the verification flags of a context that differ between versions of Python."""
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT


def build_client_context(files: TlsFiles, *, with_system: bool = True) -> ssl.SSLContext:
    """Return the context of an outgoing connection. Without `ca_file` it trusts the system's authorities.

    `with_system=False`: it does not, to check the files alone: the system's authorities take 20 to 50 ms. Raises
    InternalFault(cause=tls_files) that names each unusable file.
    """
    context, issues = _load_client_files(files, with_system=with_system)
    _raise_any(issues)
    return context


def find_client_issues(files: TlsFiles, known: Collection[Path] = ()) -> list[str]:
    """Return why the files of an outgoing connection cannot be used, except for faults of the `known` files."""
    return _texts_of(_load_client_files(files, with_system=False)[1], known)


def find_listener_issues(files: ListenerTls, known: Collection[Path] = ()) -> list[str]:
    """Return why the files of a listener cannot be used, except for faults of the `known` files."""
    return _texts_of(_load_listener_files(files)[1], known)


def _load_client_files(files: TlsFiles, *, with_system: bool) -> tuple[ssl.SSLContext, list[_Issue]]:
    context = new_context(ssl.PROTOCOL_TLS_CLIENT)
    issues: list[_Issue] = []
    if files.ca_file is not None:
        issues += _load_authorities(context, files.ca_file)
    elif with_system:
        try:
            context.load_default_certs()
        except (OSError, ValueError) as error:
            issues.append(((), f"the system's authorities cannot be used: {_words(error)}"))
    set_verify_flags(context)
    if files.cert_file is not None:
        issues += _load_certificate(context, files.cert_file, files.key_file)
    return context, issues


def build_server_context(files: ListenerTls) -> CountedContext:
    """Return the context of a listener. With `client_ca_file`, clients need a certificate of that authority.

    Raises InternalFault(cause=tls_files) that names each unusable file.
    """
    context, issues = _load_listener_files(files)
    _raise_any(issues)
    return context


def _load_listener_files(files: ListenerTls) -> tuple[CountedContext, list[_Issue]]:
    context = new_context(ssl.PROTOCOL_TLS_SERVER)
    issues = [*_load_certificate(context, files.cert_file, files.key_file)]
    if files.client_ca_file is not None:
        issues += _load_authorities(context, files.client_ca_file)
        set_verify_flags(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context, issues


def _raise_any(issues: Sequence[_Issue]) -> None:
    if issues:
        raise InternalFault(Cause.TLS_FILES, "; ".join(_texts_of(issues)))


def _texts_of(issues: Sequence[_Issue], known: Collection[Path] = ()) -> list[str]:
    return [text for files, text in issues if not any(file in known for file in files)]


class Certificate(NamedTuple):
    """A certificate and its validity, in epoch seconds."""

    parsed: x509.Certificate
    valid_from: float
    valid_until: float


def parse_certificates(pem: bytes) -> list[Certificate]:
    """Return the certificates; an empty list if there are none, or one of them cannot be parsed. Never raises.

    OpenSSL also loads certificates of unknown X.509 versions and with impossible dates.
    """
    try:
        return [
            Certificate(each, each.not_valid_before_utc.timestamp(), each.not_valid_after_utc.timestamp())
            for each in x509.load_pem_x509_certificates(pem)
        ]
    except Exception:  # noqa: BLE001  such as InvalidVersion, which is not a ValueError
        return []


def read_expiries_in(file: Path) -> list[float]:
    """Return when each certificate of the file expires, in epoch seconds. Blocks, and never raises.

    The list is empty if the file cannot be read, or `parse_certificates` returns none.
    """
    try:
        pem = file.read_bytes()
    except (OSError, ValueError):
        return []
    return [certificate.valid_until for certificate in parse_certificates(pem)]


def read_expiry_in(file: Path) -> float | None:
    """Return when notifier's certificate in the file expires, in epoch seconds; None if it cannot be read. Blocks.

    It is the file's first certificate. The rest of a chain may contain an expired cross-signed authority, which servers
    do not need.
    """
    return next(iter(read_expiries_in(file)), None)


def describe_expired(file: Path | None, expired_at: float) -> str:
    """Return that notifier's certificate has expired, and when."""
    return f"notifier's certificate {file} expired at {format_moment_for_people(expired_at)}"


def find_pem_issue(raw: bytes) -> str | None:
    """Return a common reason why a PEM file cannot be used, and the remedy; None if it has no such reason."""
    if not raw.strip():
        return "is empty"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is UTF-16 text; save it as UTF-8"
    if _BEGIN not in raw:
        if _PKCS12 in raw[:64]:
            return "is PKCS#12, not PEM; convert it: openssl pkcs12 -in FILE -nodes -out FILE.pem"
        if raw.startswith(_JAVA_KEY_STORE):
            return "is a Java key store, not PEM; export its entry: keytool -exportcert -rfc -keystore FILE -alias NAME"
        if raw.startswith(b"\x30"):
            return "is DER, not PEM; convert it: openssl x509 (or pkey) -inform der -in FILE -out FILE.pem"
        return "is base64 of the file that is meant; decode it once: base64 -d" if _is_coded_twice(raw) else None
    if b"\\n" in raw:
        return r'has \n written out in place of line breaks; write line breaks: printf %b "$(cat FILE)"'
    if b"\n" not in raw.strip() and b"\r" not in raw.strip():
        return "has lost its line breaks; copy it again with them"
    if re.search(rb"(?m)^[ \t]+-----BEGIN ", raw):
        return "is indented; remove the blanks before each line"
    if b"BEGIN ENCRYPTED PRIVATE KEY" in raw or b"4,ENCRYPTED" in raw:
        return "is encrypted; store it decrypted (openssl pkey -in FILE), readable for notifier alone"
    return None


def _is_coded_twice(raw: bytes) -> bool:
    try:
        decoded = base64.b64decode(b"".join(raw.split()), validate=True)
    except ValueError:
        return False
    return _BEGIN in decoded or decoded.lstrip().startswith(b"{")


def _find_known_issues(*files: tuple[Path, str]) -> Iterator[_Issue]:
    """Yield each of these files that cannot be read, or be used for a common reason, and the reason.

    Each has the name of what it must hold: `certificate` or `private key`.
    """
    for file, wanted in files:
        try:
            with file.open("rb") as opened:
                raw = opened.read(MAX_EXAMINED_BYTES)
        except OSError as error:
            yield (file,), f"{file} cannot be read: {error.strerror}"
        else:
            if (mistake := find_pem_issue(raw) or _find_missing_part(raw, wanted)) is not None:
                yield (file,), f"{file} {mistake}"


def _find_missing_part(raw: bytes, wanted: str) -> str | None:
    labels = {label.decode() for label in _LABEL.findall(raw)}
    if any(label.endswith(wanted.upper()) for label in labels):
        return None
    found = f"holds {' and '.join(sorted(labels))}" if labels else "is not PEM"
    return f"{found}, and has no {wanted}: there is no line -----BEGIN {wanted.upper()}-----"


_OTHER_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the second for a key of another type


def _load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> Iterator[_Issue]:
    """Load a certificate and its key. Yield why they cannot be used."""
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as error:
        named = cert_file if key_file is None else f"{cert_file}, {key_file}"
        if isinstance(error, ssl.SSLError) and error.reason in _OTHER_KEY:
            text = f"{named}: the key does not belong to the certificate"
        else:
            text = f"{named}: cannot be used as certificate and key: {_words(error)}"
        issues = _find_known_issues((cert_file, "certificate"), (key_file or cert_file, "private key"))
        yield from dict.fromkeys(issues) or [((cert_file, key_file or cert_file), text)]


def _load_authorities(context: ssl.SSLContext, ca_file: Path) -> Iterator[_Issue]:
    """Load the certificates of authorities. Yield why they cannot be used."""
    try:
        context.load_verify_locations(ca_file)
        if context.cert_store_stats()["x509"] == 0:  # a list of revoked certificates alone is loaded, too
            raise ValueError("it has no certificate")  # noqa: TRY301
    except (OSError, ValueError) as error:
        text = f"{ca_file}: cannot be used as certificates of authorities: {_words(error)}"
        yield from [*_find_known_issues((ca_file, "certificate"))] or [((ca_file,), text)]


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is not PEM"
    return getattr(error, "strerror", None) or str(error)

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
from contextlib import suppress
from pathlib import Path

from notifier.model.client import TlsFiles
from notifier.model.errors import InternalFault
from notifier.model.outcome import Cause
from notifier.network.counted_tls import new_context
from notifier.settings.policies import ListenerTls

MAX_EXAMINED_BYTES = 65_536  # of a file that are searched for a known mistake
_BEGIN = b"-----BEGIN "


def set_verify_flags(context: ssl.SSLContext) -> None:
    """Set the verification flags of a context that differ between versions of Python."""
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT


def build_client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of an outgoing connection. Without `ca_file` it trusts the system's authorities.

    Raises InternalFault(cause=tls_files) that names the file.
    """
    context = new_context(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if files.ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(files.ca_file)
    except (OSError, ValueError) as error:
        raise _to_ca_fault(files.ca_file, error) from error
    set_verify_flags(context)
    if files.cert_file is not None:
        _load_certificate(context, files.cert_file, files.key_file)
    return context


def build_server_context(files: ListenerTls) -> ssl.SSLContext:
    """Return the context of a listener. With `client_ca_file`, clients need a certificate of that authority.

    Raises InternalFault(cause=tls_files) that names the file.
    """
    context = new_context(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(context, files.cert_file, files.key_file)
    if files.client_ca_file is not None:
        try:
            context.load_verify_locations(files.client_ca_file)
        except (OSError, ValueError) as error:
            raise _to_ca_fault(files.client_ca_file, error) from error
        set_verify_flags(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def find_pem_issue(raw: bytes) -> str | None:
    """Return a common reason why a PEM file cannot be used, and the remedy; None if it has no such reason."""
    if not raw.strip():
        return "is empty"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is UTF-16 text; save it as UTF-8"
    if _BEGIN not in raw:
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


def _find_known_issue(*files: Path | None) -> str | None:
    """Return the first of these files that cannot be used for a common reason, and the reason."""
    for file in filter(None, files):
        with suppress(OSError), file.open("rb") as opened:
            if (mistake := find_pem_issue(opened.read(MAX_EXAMINED_BYTES))) is not None:
                return f"{file} {mistake}"
    return None


def _load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as error:
        named = cert_file if key_file is None else f"{cert_file}, {key_file}"
        text = f"{named}: cannot be used as certificate and key: {_words(error)}"
        raise InternalFault(Cause.TLS_FILES, _find_known_issue(cert_file, key_file) or text) from error


def _to_ca_fault(ca_file: Path | None, error: OSError | ValueError) -> InternalFault:
    text = f"{ca_file}: cannot be used as certificates of authorities: {_words(error)}"
    return InternalFault(Cause.TLS_FILES, _find_known_issue(ca_file) or text)


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is not PEM"
    return getattr(error, "strerror", None) or str(error)

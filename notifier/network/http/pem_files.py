"""Loads PEM files into TLS contexts, and says why a file cannot be used. TLS 1.2 is the oldest version.

The empty password makes an encrypted key an error. Without it OpenSSL would ask for a password on the terminal.
"""

import ssl
from pathlib import Path

from notifier.model.client import TlsFiles
from notifier.model.errors import OurFault
from notifier.model.outcome import Cause
from notifier.settings.policies import ListenerTls


def connecting_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of a connection that we open. Without `ca_file` it trusts the system's authorities.

    Raises OurFault(cause=tls_files) that names the file.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
    except (OSError, ValueError) as error:
        raise _no_authorities(files.ca_file, error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.cert_file is not None:
        _load_certificate(context, files.cert_file, files.key_file)
    return context


def listening_context(files: ListenerTls) -> ssl.SSLContext:
    """Return the context of a listener. With `client_ca_file`, clients need a certificate of that authority.

    Raises OurFault(cause=tls_files) that names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_certificate(context, files.cert_file, files.key_file)
    if files.client_ca_file is not None:
        try:
            context.load_verify_locations(files.client_ca_file)
        except (OSError, ValueError) as error:
            raise _no_authorities(files.client_ca_file, error) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as error:
        named = cert_file if key_file is None else f"{cert_file}, {key_file}"
        raise OurFault(Cause.TLS_FILES, f"{named}: cannot be used as certificate and key: {_words(error)}") from error


def _no_authorities(ca_file: Path | None, error: OSError | ValueError) -> OurFault:
    return OurFault(Cause.TLS_FILES, f"{ca_file}: cannot be used as certificates of authorities: {_words(error)}")


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is not PEM"
    return getattr(error, "strerror", None) or str(error)

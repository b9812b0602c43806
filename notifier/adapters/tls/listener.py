"""The TLS of a listener: certificate, key, and the authorities of client certificates, read anew when a file changes.

The files are looked at (three calls of `stat`) at each handshake, so a renewed certificate serves the next connection.
What cannot be used keeps the old, and is logged once: a certificate is often written before its key.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from notifier.adapters.configuration.file_watch import Stamp, stamp_of
from notifier.adapters.tls.pem_files import listening_context
from notifier.domain.errors import ConfigurationError, Mistake, OurFault


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTlsFiles:
    """PEM files. With `client_ca_file` only clients with a certificate of that authority are let in."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class ServerTls:
    """Holds the newest context that could be made. Raises ConfigurationError where there is none to begin with."""

    def __init__(self, files: ServerTlsFiles, key: str) -> None:
        self._files = files
        self._stamp = self._look()
        try:
            self._current = _load(files)
            self.context = _load(files)  # what the listener has for good; the handshake goes on in the current one
        except OurFault as fault:
            raise ConfigurationError([Mistake(f"{key}.tls", str(fault))]) from fault
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: Any, _context: Any) -> None:
        """Of OpenSSL, at each handshake, whether or not a name was asked for."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._renew()
        connection.context = self._current

    def _renew(self) -> None:
        try:
            self._current = _load(self._files)
        except OurFault as fault:
            structlog.get_logger().error("listener_tls_failed", reason=str(fault), kept="the old")
        else:
            structlog.get_logger().info("listener_tls_renewed", cert_file=str(self._files.cert_file))

    def _look(self) -> tuple[Stamp | None, ...]:
        files = self._files
        return tuple(
            stamp_of(path) for path in (files.cert_file, files.key_file, files.client_ca_file) if path is not None
        )


def _load(files: ServerTlsFiles) -> ssl.SSLContext:
    context = listening_context(cert_file=files.cert_file, key_file=files.key_file, client_ca_file=files.client_ca_file)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # a session that is resumed would be one of the certificate before
    return context

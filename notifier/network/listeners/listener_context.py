"""Makes the TLS context of a listener. It follows its files: a renewed certificate serves the next connection.

Each handshake looks at the files (three calls of `stat`). If the new files cannot be used, the old context stays and
the log says so once: a certificate is often written before its key.
"""

import ssl
from typing import Any

import structlog

from notifier.model.errors import ConfigurationError, Mistake, OurFault
from notifier.network.http.pem_files import listening_context
from notifier.settings.file_watch import Stamps, stamps_of
from notifier.settings.policies import ListenerTls


class ListenerContext:
    """Holds the newest context that could be made. Raises ConfigurationError if the first one cannot be made."""

    def __init__(self, files: ListenerTls, key: str) -> None:
        """`key` names the listener's section in errors: `api`."""
        self._files = files
        self._stamps = self._look()
        try:
            self._current = _load(files)
            self.context = _load(files)  # the listener keeps this one; each handshake switches to the current one
        except OurFault as fault:
            raise ConfigurationError([Mistake(f"{key}.tls", str(fault))]) from fault
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: Any, _context: Any) -> None:
        """OpenSSL calls this at each handshake, with or without a server name."""
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            self._renew()
        connection.context = self._current

    def _renew(self) -> None:
        try:
            self._current = _load(self._files)
        except OurFault as fault:
            structlog.get_logger().error("listener_tls_failed", reason=str(fault), kept="the old")
        else:
            structlog.get_logger().info("listener_tls_renewed", cert_file=str(self._files.cert_file))

    def _look(self) -> Stamps:
        files = self._files
        return stamps_of(filter(None, (files.cert_file, files.key_file, files.client_ca_file)))


def _load(files: ListenerTls) -> ssl.SSLContext:
    context = listening_context(files)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # a resumed session would still show the old certificate
    return context

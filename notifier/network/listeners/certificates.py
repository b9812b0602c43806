"""Provides the TLS context of a listener, and the expiry of each certificate that notifier presents.

A listener's context follows its files, which are checked once a second, in a thread: a file system that is dead must
not block the event loop. If the new files are unusable, the old context stays in use, and the fault is logged once,
because a certificate is often written before its key.
"""

import asyncio
import ssl
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from notifier.model.errors import ConfigurationError, InputIssue, InternalFault
from notifier.model.own_thread import run_in_thread
from notifier.model.registry import Registry
from notifier.network.counted_tls import CountedContext
from notifier.network.http.pem_files import build_server_context, read_expiry_in
from notifier.settings.file_watch import find_hanging, read_each, stamp_of, stamps_of
from notifier.settings.policies import ListenerTls
from notifier.settings.service_settings import Settings

CHECK_INTERVAL_SECONDS = 1.0


class ListenerContext:
    """Holds the newest usable context. Raises ConfigurationError if the first context cannot be built."""

    def __init__(self, files: ListenerTls, key: str) -> None:
        """`key` is the listener's section in errors: `api`."""
        self._files = files
        self._stamps = stamps_of(filter(None, (files.cert_file, files.key_file, files.client_ca_file)))
        try:
            self._current = _load_context(files)
            self.context = _load_context(files)  # the listener's context; each handshake switches to the current one
        except InternalFault as fault:
            raise ConfigurationError([InputIssue(f"{key}.tls", str(fault))]) from fault
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: Any, _context: Any) -> None:
        """Called by OpenSSL at each handshake, with or without a server name."""
        connection.context = self._current

    async def follow_files(self) -> None:
        """Use changed files, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            await self.check_files()

    async def check_files(self) -> None:
        """Use changed files from now on. Files that hang are checked later."""
        stamps = self._stamps | await read_each(self._stamps, stamp_of)
        if stamps == self._stamps or await find_hanging(stamps):
            return
        self._stamps = stamps
        try:
            self._current = await run_in_thread(partial(_load_context, self._files), "TLS files of a listener")
        except InternalFault as fault:
            structlog.get_logger().error("listener_tls_failed", reason=str(fault), kept="the old")
        else:
            structlog.get_logger().info("listener_tls_renewed", cert_file=str(self._files.cert_file))


def _load_context(files: ListenerTls) -> CountedContext:
    context = build_server_context(files)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # a resumed session would still show the old certificate
    return context


def find_presented_files(settings: Settings, registry: Registry) -> dict[tuple[str, str], Path]:
    """Return notifier's certificate files, by their use (`api`, `web`, `queue` or `client`) and name."""
    parts = (("api", settings.api), ("web", settings.web), ("queue", settings.queue))
    files = [(use, part.tls.cert_file) for use, part in parts if part is not None and part.tls is not None]
    for clients in registry.clients.values():
        files += [("client", client.route.tls.cert_file) for client in clients.values()]
    return {(use, str(file)): file for use, file in files if file is not None}


def read_expiries(files: Iterable[tuple[tuple[str, str], Path]]) -> list[tuple[str, str, float]]:
    """Return the use and name of each file, and when notifier's certificate in it expires, in epoch seconds.

    A file that cannot be read is left out, since its user reports it. Blocks on files.
    """
    ends = ((use, name, read_expiry_in(path)) for (use, name), path in files)
    return [(use, name, expires_at) for use, name, expires_at in ends if expires_at is not None]

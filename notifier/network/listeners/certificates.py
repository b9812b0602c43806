"""Finds when the certificates that we present expire: those of listeners, and ours for the broker and for clients."""

from collections.abc import Iterable
from pathlib import Path

from cryptography import x509

from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings


def presented(settings: Settings, registry: Registry) -> dict[tuple[str, str], Path]:
    """Return our certificate files, by their use (`api`, `web`, `queue` or `client`) and name."""
    files: dict[tuple[str, str], Path] = {}
    if settings.api is not None and settings.api.tls is not None:
        files["api", str(settings.api.tls.cert_file)] = settings.api.tls.cert_file
    if settings.web is not None and settings.web.tls is not None:
        files["web", str(settings.web.tls.cert_file)] = settings.web.tls.cert_file
    if settings.queue.tls is not None and settings.queue.tls.cert_file is not None:
        files["queue", str(settings.queue.tls.cert_file)] = settings.queue.tls.cert_file
    for clients in registry.clients.values():
        for client in clients.values():
            if client.route.tls.cert_file is not None:
                files["client", str(client.route.tls.cert_file)] = client.route.tls.cert_file
    return files


def expiries(files: Iterable[tuple[tuple[str, str], Path]]) -> list[tuple[str, str, float]]:
    """Return the use and name of each file, and when the first certificate in it expires, in epoch seconds.

    A file that cannot be read is left out, since its user reports it. Blocks on files.
    """
    ends = []
    for (use, name), path in files:
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            continue
        ends.append((use, name, min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)))
    return ends

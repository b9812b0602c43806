"""When the certificates that we present run out: those of the API's listener, of the broker's and the clients' mTLS."""

from collections.abc import Iterable
from pathlib import Path

from cryptography import x509

from notifier.domain.registry import Registry
from notifier.settings import Settings


def presented(settings: Settings, registry: Registry) -> dict[tuple[str, str], Path]:
    """The files with certificates of ours, by what they are for and their name: `api`, `queue` or `client`."""
    found: dict[tuple[str, str], Path] = {}
    if settings.api is not None and settings.api.tls is not None:
        found["api", str(settings.api.tls.cert_file)] = settings.api.tls.cert_file
    if settings.queue.tls is not None and settings.queue.tls.cert_file is not None:
        found["queue", str(settings.queue.tls.cert_file)] = settings.queue.tls.cert_file
    for clients in registry.clients.values():
        for client in clients.values():
            if client.route.tls.cert_file is not None:
                found["client", str(client.route.tls.cert_file)] = client.route.tls.cert_file
    return found


def expiries(files: Iterable[tuple[tuple[str, str], Path]]) -> list[tuple[str, str, float]]:
    """What each is for, its name, and when the first certificate in it runs out, in epoch seconds.

    What cannot be read is left out: whoever uses it says so. Blocks on files.
    """
    found = []
    for (use, name), path in files:
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            continue
        found.append((use, name, min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)))
    return found

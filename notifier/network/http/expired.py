"""Finds the day on which a server's certificate expired. The failed handshake does not tell it."""

import asyncio
import ssl
from datetime import UTC, datetime

from cryptography import x509

_HAS_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL


async def day_of_end(
    error: ssl.SSLCertVerificationError, address: str, port: int, name: str, deadline: float | None = None
) -> str:
    """Return the day, ` on 2026-01-31`; empty if the error is another one, or if the server does not show it in time.

    It connects once more, takes any certificate, sends nothing, and hangs up. `deadline` is of the loop's clock. Never
    raises.
    """
    if error.verify_code != _HAS_EXPIRED:
        return ""
    try:
        async with asyncio.timeout_at(deadline):
            end = await _end(address, port, name)
    except (OSError, ValueError):  # TimeoutError is an OSError
        return ""
    return f" on {end:%Y-%m-%d}" if end < datetime.now(UTC) else ""


async def _end(address: str, port: int, name: str) -> datetime:
    """When the certificate there ends. Raises OSError or ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    transport, _ = await asyncio.get_running_loop().create_connection(
        asyncio.Protocol, address, port, ssl=context, server_hostname=name.rstrip(".")
    )
    try:
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(shown).not_valid_after_utc
    finally:
        transport.abort()

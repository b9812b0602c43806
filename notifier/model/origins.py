"""Finds the origin and host of a URI, as browsers define them."""

from urllib.parse import urlsplit

from notifier.model.egress import address_of

_PORTS = {"https": 443, "http": 80}


def origin_of(uri: str) -> str | None:
    """Return the origin of a URI as browsers write it (RFC 6454 §6.2); None if it has no http or https origin.

    An IP address is written in its usual form, whatever its form in the URI.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host:
        return None
    host = f"[{host}]" if ":" in host else host
    if (address := address_of(host)) is not None:
        host = f"[{address}]" if address.version == 6 else str(address)
    port_suffix = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{port_suffix}"


def host_of(uri: str) -> str | None:
    """Return the host of a URI, in the form in which browsers compare hosts for cookies: no port, no final dot."""
    origin = origin_of(uri)
    return None if origin is None else (urlsplit(origin).hostname or "").removesuffix(".")

"""Finds the origin and host of a URI, as browsers define them."""

from urllib.parse import urlsplit

from notifier.model.egress import address_of

_PORTS = {"https": 443, "http": 80}


def origin_of(uri: str) -> str | None:
    """Return the origin as browsers write it (RFC 6454 §6.2), each address in one form. None if not http or https."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host:
        return None
    shown = f"[{host}]" if ":" in host else host
    if (address := address_of(shown)) is not None:
        shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{parts.scheme}://{shown}" + ("" if port in (None, _PORTS[parts.scheme]) else f":{port}")


def host_of(uri: str) -> str | None:
    """Return the host as browsers compare it: cookies are sent to each port of it. A final dot is ignored."""
    origin = origin_of(uri)
    return None if origin is None else (urlsplit(origin).hostname or "").removesuffix(".")

"""Reads a client's redirect URIs from a server's list. Some servers take patterns, whose origins nobody can list."""

from notifier.model.origins import origin_of


def redirect_uris(listed: object, front_channel: object = None) -> list[str] | None:
    """Return the redirect URIs that name an origin; None if none does.

    With a pattern, the client may have any further origin. Then the origin of its `front_channel` URI is its own, too,
    since only the server can judge it (F1).
    """
    texts = [uri for uri in listed if isinstance(uri, str)] if isinstance(listed, list | tuple) else []
    exact = [uri for uri in texts if "*" not in (origin_of(uri) or "*")]
    patterns = any(_is_pattern(uri) for uri in texts if uri not in exact)
    if patterns and isinstance(front_channel, str) and (own := origin_of(front_channel)) is not None:
        exact.append(own)
    return exact or None


def _is_pattern(uri: str) -> bool:
    """False for the address of an app, such as `com.example.app:/callback`, which has no origin."""
    return "*" in uri or uri.startswith("regexp=")

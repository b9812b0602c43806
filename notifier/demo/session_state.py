"""The `session_state` of an authentication response: OpenID Connect Session Management 1.0 §2."""

import hashlib


def session_state(client_id: str, origin: str, browser_state: str, salt: str) -> str:
    """As the specification's example makes it. `origin` is that of the redirect URI, as browsers write it."""
    text = f"{client_id} {origin} {browser_state} {salt}"
    return f"{hashlib.sha256(text.encode()).hexdigest()}.{salt}"

import hashlib
import secrets
from urllib.parse import urlsplit


def session_state(client_id: str, redirect_uri: str, browser_state: str, salt: str | None = None) -> str:
    """The `session_state` of an authentication response (Session Management 1.0 §2)."""
    salt = salt or secrets.token_hex(16)
    text = f"{client_id} {origin(redirect_uri)} {browser_state} {salt}"
    return f"{hashlib.sha256(text.encode()).hexdigest()}.{salt}"


def origin(uri: str) -> str:
    """As browsers write it."""
    parts = urlsplit(uri)
    host = (parts.hostname or "").encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, default) else f":{parts.port}")

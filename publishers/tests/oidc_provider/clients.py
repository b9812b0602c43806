"""The clients of the provider, each of another kind."""

from collections.abc import Mapping
from typing import Any

SECRET = "s" * 40
ANSWERS_AT = "https://clients.example.com"
"""Where the browser is sent back to; nobody listens there, and nobody asks."""

_WITH_SID = {"backchannel_logout_session_required": True}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "shop": _WITH_SID,
    "mail": {**_WITH_SID, "id_token_signed_response_alg": "ES256"},
    "wiki": {},  # its ID token has no `sid`
    "pair": {**_WITH_SID, "subject_type": "pairwise"},
    "bare": {},  # it has no `backchannel_logout_uri`
}
ALL = tuple(KINDS)
NOTIFIED = tuple(name for name in ALL if name != "bare")
WITH_SID = ("shop", "mail", "pair")


def client(client_id: str) -> dict[str, Any]:
    """Its metadata, without `backchannel_logout_uri`."""
    return {
        "client_id": client_id,
        "client_secret": SECRET,
        "redirect_uris": [f"{ANSWERS_AT}/{client_id}/signed-in"],
        "post_logout_redirect_uris": [f"{ANSWERS_AT}/{client_id}/signed-out"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        **KINDS[client_id],
    }


def registrations(receivers: str) -> list[dict[str, Any]]:
    """All of them, as the provider is configured. Logout tokens go to `receivers`, to paths of the clients' names."""
    return [
        {**client(name), **({"backchannel_logout_uri": f"{receivers}/{name}"} if name in NOTIFIED else {})}
        for name in ALL
    ]

"""An upstream OpenID Provider as tests have it: the claims of its logout tokens, and who verifies them."""

from collections.abc import Mapping
from typing import Any

from joserfc.jwk import Key

from notifier.features.upstreams.upstream_settings import UpstreamSettings
from notifier.features.upstreams.upstream_token import LOGOUT_EVENT, LogoutTokenVerifier
from notifier.tokens.transmitter_keys import TransmitterKeys
from tests.tokens.transmitter import Transmitter, key, public, signed

UPSTREAM = "https://op.example.com"
OURS = "notifier"
NOW = 1_750_000_000.0
RULES = UpstreamSettings.model_validate(
    {"issuer": UPSTREAM, "client_id": [OURS, "former"], "resolve": {"same_sub": {}}}
)
CLAIMS: Mapping[str, Any] = {
    "iss": UPSTREAM, "aud": OURS, "iat": int(NOW) - 3, "exp": int(NOW) + 117, "jti": "j1",
    "sub": "raw-sub-77", "sid": "raw-sid-88", "events": {LOGOUT_EVENT: {}},
}  # fmt: skip


def logout_token(of: Key | None = None, header: Mapping[str, Any] | None = None, **claims: Any) -> bytes:
    """A token with these claims changed. What is None is left out."""
    whole = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return signed(whole, of, **{"typ": "logout+jwt", **(header or {})})


class UpstreamProvider(Transmitter):
    """Publish one key, or be unavailable."""

    def __init__(self, rules: UpstreamSettings = RULES, now: float = NOW) -> None:
        super().__init__(public(key("P-256")))
        self.keys = TransmitterKeys(rules.issuer, self.read, lambda: self.monotonic, self.pause)
        self.judge = LogoutTokenVerifier(self.keys, rules, lambda: now)

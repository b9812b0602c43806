"""Verifies logout tokens with every check that any receiver of docs/specification.md makes.

It checks the signature by the issuer's JWK Set with a pinned algorithm, `typ`, `iss`, `aud`, `iat`, `exp`, a new `jti`
(R2), `events` with exactly `{}` (R4), no `nonce` (B14), `sub` or `sid` (B12). No other module verifies these tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import jwt

from notifier.model.moment import Clock

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_LIFETIME_SECONDS = 120  # seconds between `iat` and `exp` (B29)
MAX_REMEMBERED_TOKENS = 100_000  # older tokens are refused by MAX_AGE_SECONDS
MAX_AGE_SECONDS = 30  # since `iat`: the shortest limit of known receivers (rauthy)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A valid logout token. `sid` is empty if the token ends all sessions of `sub` (B13); `sub` may be empty, too."""

    jti: str
    sub: str
    sid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidToken:
    """The rule that an invalid logout token breaks. The text never quotes the token."""

    reason: str


class TokenCheck:
    """Verifies the tokens sent to one client, and stores each `jti`. `jwks` is the issuer's published JWK Set."""

    def __init__(self, *, iss: str, client_id: str, alg: str, jwks: Mapping[str, Any], clock: Clock) -> None:
        self._iss = iss
        self._client_id = client_id
        self._alg = alg
        self._keys = {key["kid"]: jwt.PyJWK(key, algorithm=alg) for key in jwks["keys"] if self._is_usable_key(key)}
        self._clock = clock
        self._seen: dict[str, None] = {}  # in order, so that the oldest is dropped first

    def _is_usable_key(self, key: Mapping[str, Any]) -> bool:
        return "kid" in key and key.get("alg", self._alg) == self._alg

    def verify(self, token: str) -> VerifiedToken | InvalidToken:
        """Return the session of a token, or its error. A `jti` counts as seen once its token was valid."""
        signed = self._verify_signature(token)
        if isinstance(signed, InvalidToken):
            return signed
        if (wrong := self._find_wrong_claim(signed)) is not None:
            return InvalidToken(reason=wrong)
        jti = signed["jti"]
        if jti in self._seen:
            return InvalidToken(reason="jti was seen before")
        self._seen[jti] = None
        if len(self._seen) > MAX_REMEMBERED_TOKENS:
            del self._seen[next(iter(self._seen))]
        return VerifiedToken(jti=jti, sub=signed.get("sub", ""), sid=signed.get("sid", ""))

    def _verify_signature(self, token: str) -> dict[str, Any] | InvalidToken:
        """Return the claims if header and signature are valid. The header selects the key, not the algorithm."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            return InvalidToken(reason="no JWS in compact form")
        if header.get("alg") != self._alg:
            return InvalidToken(reason=f"alg is not {self._alg}")
        if header.get("typ") != "logout+jwt":
            return InvalidToken(reason="typ is not logout+jwt")
        key = self._keys.get(header.get("kid", ""))
        if key is None:
            return InvalidToken(reason="kid names no key of the issuer")
        try:
            # `_find_wrong_claim` checks the times with the injected clock.
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[self._alg],
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False},
            )
        except jwt.InvalidSignatureError:
            return InvalidToken(reason="the signature does not verify")
        except jwt.PyJWTError as error:
            return InvalidToken(reason=f"not decodable: {type(error).__name__}")
        return claims

    def _find_wrong_claim(self, claims: Mapping[str, Any]) -> str | None:
        """Return the first rule that the claims break; None if all hold."""
        iat, exp, now = claims.get("iat"), claims.get("exp"), self._clock()
        if not _is_moment(iat) or not _is_moment(exp):
            return "iat and exp are not both whole numbers of seconds"
        subjects = [claims[name] for name in ("sub", "sid") if name in claims]
        rules = (
            (claims.get("iss") == self._iss, "iss is another issuer"),
            (claims.get("aud") == self._client_id, "aud is not this client as a string"),
            (iat <= now, "iat lies in the future"),
            (now - iat <= MAX_AGE_SECONDS, f"iat is older than {MAX_AGE_SECONDS} s"),
            (exp > now, "exp has passed"),
            (0 < exp - iat <= MAX_LIFETIME_SECONDS, f"exp is not within {MAX_LIFETIME_SECONDS} s of iat"),
            (_is_text(claims.get("jti")), "jti is not a string"),
            (claims.get("events") == {LOGOUT_EVENT: {}}, "events is not exactly the logout event with {}"),
            ("nonce" not in claims, "nonce must not be there"),
            (bool(subjects) and all(map(_is_text, subjects)), "neither sub nor sid, or not as strings"),
        )
        return next((text for holds, text in rules if not holds), None)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_moment(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

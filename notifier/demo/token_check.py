"""Verifies logout tokens with every check that any receiver of docs/specification.md makes.

Signature by the issuer's JWK Set with the algorithm pinned, `typ`, `iss`, `aud`, `iat`, `exp`, `jti` never seen before
(R2), `events` exactly `{}` inside (R4), no `nonce` (B14), `sub` or `sid` (B12). No other module verifies these tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import jwt

from notifier.model.moment import Clock

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LONGEST_LIFE = 120  # seconds between `iat` and `exp` (B29)
MOST_SEEN = 100_000  # what is older than LONGEST_AGE is refused for its age anyway
LONGEST_AGE = 30  # seconds since `iat`: the narrowest window in the field, rauthy's


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A valid logout token. `sid` is empty if the token ends all sessions of `sub` (B13); `sub` may be empty too."""

    jti: str
    sub: str
    sid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """An invalid logout token, and the rule that it breaks. Never quotes the token."""

    reason: str


class TokenCheck:
    """Verifies the tokens sent to one client, and remembers each `jti`. `jwks` is the issuer's JWK Set as published."""

    def __init__(self, *, iss: str, client_id: str, alg: str, jwks: Mapping[str, Any], clock: Clock) -> None:
        self._iss = iss
        self._client_id = client_id
        self._alg = alg
        self._keys = {key["kid"]: jwt.PyJWK(key, algorithm=alg) for key in jwks["keys"] if self._fits(key)}
        self._clock = clock
        self._seen: dict[str, None] = {}  # in order, so that the oldest can go

    def _fits(self, key: Mapping[str, Any]) -> bool:
        return "kid" in key and key.get("alg", self._alg) == self._alg

    def read(self, token: str) -> Verified | Invalid:
        """Verify a token: its session, or what is wrong. A `jti` counts as seen once its token was valid."""
        signed = self._read_signed(token)
        if isinstance(signed, Invalid):
            return signed
        wrong = self._wrong_claim(signed)
        if wrong is not None:
            return Invalid(reason=wrong)
        jti = signed["jti"]
        if jti in self._seen:
            return Invalid(reason="jti was seen before")
        self._seen[jti] = None
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return Verified(jti=jti, sub=signed.get("sub", ""), sid=signed.get("sid", ""))

    def _read_signed(self, token: str) -> dict[str, Any] | Invalid:
        """The claims, if header and signature are valid. The header chooses the key, but not the algorithm."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            return Invalid(reason="no JWS in compact form")
        if header.get("alg") != self._alg:
            return Invalid(reason=f"alg is not {self._alg}")
        if header.get("typ") != "logout+jwt":
            return Invalid(reason="typ is not logout+jwt")
        key = self._keys.get(header.get("kid", ""))
        if key is None:
            return Invalid(reason="kid names no key of the issuer")
        try:
            # The times are checked below, with a clock that is an argument.
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[self._alg],
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False},
            )
        except jwt.InvalidSignatureError:
            return Invalid(reason="the signature does not verify")
        except jwt.PyJWTError as error:
            return Invalid(reason=f"not decodable: {type(error).__name__}")
        return claims

    def _wrong_claim(self, claims: Mapping[str, Any]) -> str | None:
        """Say which rule the claims break first. None if they break none."""
        iat, exp, now = claims.get("iat"), claims.get("exp"), self._clock()
        if not _is_moment(iat) or not _is_moment(exp):
            return "iat and exp are not both whole numbers of seconds"
        subjects = [claims[name] for name in ("sub", "sid") if name in claims]
        rules = (
            (claims.get("iss") == self._iss, "iss is another issuer"),
            (claims.get("aud") == self._client_id, "aud is not this client as a string"),
            (iat <= now, "iat lies in the future"),
            (now - iat <= LONGEST_AGE, f"iat is older than {LONGEST_AGE} s"),
            (exp > now, "exp has passed"),
            (0 < exp - iat <= LONGEST_LIFE, f"exp is not within {LONGEST_LIFE} s of iat"),
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

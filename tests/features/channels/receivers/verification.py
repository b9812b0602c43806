"""What the stand-ins check of a JWT: its signature, its header, its moments."""

import base64
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import import_key

MAX_SKEW_SECONDS = 5


class RefusedTokenError(Exception):
    """The receiver refuses the token for this reason."""


def require(condition: object, text: str) -> None:
    """Raise RefusedTokenError unless the condition holds."""
    if not condition:
        raise RefusedTokenError(text)


def peek_claims(token: str) -> dict[str, Any]:
    """Return the unverified claims, by which a receiver chooses the issuer. Raises RefusedTokenError."""
    return _decode(token)[1]


def verify_signature(
    token: str,
    jwks: Mapping[str, Sequence[Mapping[str, Any]]],
    algorithms: Collection[str],
    *,
    key_has_alg: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token that one of the keys has signed. Raises RefusedTokenError.

    `key_has_alg`: the key must name its algorithm.
    """
    header, claims = _decode(token)
    require(header.get("alg") in algorithms, f"alg {header.get('alg')}")
    found = [jwk for jwk in jwks["keys"] if jwk.get("kid") == header.get("kid")]
    require(len(found) == 1, f"{len(found)} keys have the kid {header.get('kid')}")
    jwk = dict(found[0])
    require(jwk.get("alg", None if key_has_alg else header["alg"]) == header["alg"], "alg of the key")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            jws.deserialize_compact(token, import_key(jwk), algorithms=[header["alg"]])
    except (JoseError, ValueError) as error:
        raise RefusedTokenError(f"signature: {error}") from None
    return header, claims


def require_moments(claims: Mapping[str, Any], now: float, *, longest: float | None = None) -> None:
    """Raise RefusedTokenError unless `iat` and `exp` are whole seconds around `now`, at most `longest` apart."""
    iat, exp = claims.get("iat"), claims.get("exp")
    require(type(iat) is int and type(exp) is int, "iat and exp are not whole seconds")
    assert isinstance(iat, int)
    assert isinstance(exp, int)
    require(iat <= now + MAX_SKEW_SECONDS, "iat in the future")
    require(now < exp, "expired")
    require(longest is None or exp - iat <= longest, f"exp is {exp - iat} s after iat")


def _decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = token.split(".")
    require(len(parts) == 3, "not a signed JWT in compact form")
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except ValueError:
        raise RefusedTokenError("not base64url of JSON") from None
    require(isinstance(header, dict) and isinstance(claims, dict), "not JSON objects")
    return header, claims

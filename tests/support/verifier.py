"""A strict receiver for tests: it accepts what every receiver of docs/specification.md accepts, and no more.

It uses joserfc, another library than the signer's, so that a shared error would have to be in both.
"""

import base64
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import import_key

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def verify(
    token: str,
    jwks: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    iss: str,
    aud: str,
    now: float,
    typ: str | None = "logout+jwt",
    algs: Collection[str] = ALGORITHMS,
) -> dict[str, Any]:
    """Return the claims of a valid logout token (B10–B18, B29, R1, R4, R5, R7, R10); else raise AssertionError with the
    cause.

    `now` is the time of receipt, in epoch seconds; `typ` None: the header must have none.
    """
    header, claims = _parts(token)
    _check_header(header, typ, algs)
    _check_signature(token, header, jwks)
    _check_claims(claims, iss, aud, now)
    return claims


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(text)


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    segments = token.split(".")
    _require(len(segments) == 3 and all(segments), "not a compact JWS of three parts (B16)")
    header, payload = (_json_object(segment) for segment in segments[:2])
    return header, payload


def _json_object(segment: str) -> dict[str, Any]:
    _require("=" not in segment, "base64url with padding (RFC 7515 §2)")
    try:
        raw = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
        value = json.loads(raw.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except ValueError as error:
        raise AssertionError(f"not base64url of JSON: {error}") from error
    _require(isinstance(value, dict), "not a JSON object")
    return dict(value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    _require(len(members) == len(pairs), "a member stands twice (RFC 7519 §4)")
    return members


def _no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def _check_header(header: dict[str, Any], typ: str | None, algs: Collection[str]) -> None:
    wanted = {"alg", "kid"} if typ is None else {"alg", "kid", "typ"}
    _require(set(header) == wanted, f"the header has {sorted(header)}, not {sorted(wanted)} (R1, R7)")
    _require(header.get("typ") == typ, f"typ is {header.get('typ')!r}, not {typ!r} (B18, R7)")
    _require(header["alg"] in algs, f"alg is {header['alg']!r}, not of {sorted(algs)} (B23)")
    _require(isinstance(header["kid"], str) and header["kid"] != "", "kid is not a string with content (R1)")


def _check_signature(token: str, header: dict[str, Any], jwks: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    found = [jwk for jwk in jwks["keys"] if jwk.get("kid") == header["kid"]]
    _require(len(found) == 1, f"{len(found)} keys of the JWKS have kid {header['kid']!r} (R1)")
    (jwk,) = found
    _require(not _PRIVATE_MEMBERS & set(jwk), "the JWKS holds a private key")
    _require(jwk.get("use", "sig") == "sig", "the key is not for signatures")
    _require(jwk.get("alg", header["alg"]) == header["alg"], f"alg is not the key's own ({jwk.get('alg')!r})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA is deprecated by name only (RFC 9864)
            jws.deserialize_compact(token, import_key(dict(jwk)), algorithms=[header["alg"]])
    except (JoseError, ValueError) as error:
        raise AssertionError(f"the signature does not verify: {error}") from error


def _check_claims(claims: dict[str, Any], iss: str, aud: str, now: float) -> None:
    missing = {"iss", "aud", "iat", "exp", "jti", "events"} - set(claims)
    _require(not missing, f"claims are missing: {sorted(missing)} (B10)")
    _require("nonce" not in claims, "there is a nonce (B14)")
    _require(claims["iss"] == iss, f"iss is {claims['iss']!r}, not {iss!r} (B10)")
    _require(claims["aud"] == aud, f"aud is {claims['aud']!r}, not the string {aud!r} (R5)")
    _require(isinstance(claims["jti"], str) and claims["jti"] != "", "jti is not a string with content (R1)")
    _require(claims["events"] == {LOGOUT_EVENT: {}}, f"events is {claims['events']!r} (B11, R4)")
    given = [claims[name] for name in ("sub", "sid") if name in claims]
    _require(len(given) > 0, "neither sub nor sid (B12)")
    _require(all(isinstance(value, str) and value != "" for value in given), "sub or sid is no string with content")
    iat, exp = claims["iat"], claims["exp"]
    _require(type(iat) is int and type(exp) is int, "iat and exp are not whole seconds")
    _require(iat <= now, f"iat is {iat - now:.3f} s in the future (R10)")
    _require(iat < exp, "exp is not after iat")
    _require(exp - iat <= 120 and exp <= now + 120, f"exp is {exp - iat} s after iat, {exp - now:.3f} s ahead (B29)")
    _require(now < exp, f"expired {now - exp:.3f} s ago (B10)")

"""Judges a Security Event Token (SET, RFC 8417) that a transmitter pushed (RFC 8935). Others check signatures.

A token that is not accepted gets one of the error codes of RFC 8935 §2.4.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from notifier.model.client import Algorithm
from notifier.model.documents.cloudevents import read_json
from notifier.model.errors import InputIssue, MalformedEvent
from notifier.model.moment import is_in_milliseconds

SetError = Literal["invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed"]
SET_ALGORITHMS = frozenset(map(str, Algorithm))  # public keys alone: with HS256 the published key would be the secret
SET_TYPES = ("secevent+jwt", "application/secevent+jwt")
VERIFICATIONS = frozenset(
    f"https://schemas.openid.net/secevent/{of}/event-type/verification" for of in ("ssf", "sse", "risc")
)  # Shared Signals Framework 1.0 §8.1.4, and what it was called before
MAX_SKEW_SECONDS = 300.0  # seconds that the transmitter's clock may be ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSet:
    """The claims of a token that was verified, as the JSON that was signed."""

    claims: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnacceptedSet:
    """Why a token is not accepted. `description` is safe to show to strangers."""

    err: SetError
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysUnavailable:
    """The token cannot be verified yet, since the keys of its issuer could not be read."""

    text: str


def check_claims(claims: Mapping[str, object], *, issuer: str, audience: str, now: float) -> UnacceptedSet | None:
    """Return what is wrong with the claims of a token whose signature is good; None if nothing is.

    How old a token is does not matter: a transmitter may send it late, and the age of an event is judged later.
    """
    if claims.get("iss") != issuer:
        return UnacceptedSet(err="invalid_issuer", description="iss is another issuer")
    aud = claims.get("aud")
    if audience not in (aud if isinstance(aud, list) else [aud]):
        return UnacceptedSet(err="invalid_audience", description="aud does not name this receiver")
    mistake = _find_error(claims, now)
    return None if mistake is None else UnacceptedSet(err="invalid_request", description=mistake)


def is_verification(claims: object) -> bool:
    """Return True for the claims of a test token, by which a transmitter checks delivery and which ends nothing."""
    events = claims.get("events") if isinstance(claims, dict) else None
    return isinstance(events, dict) and bool(events) and events.keys() <= VERIFICATIONS


def _find_error(claims: Mapping[str, object], now: float) -> str | None:
    jti, iat, events = claims.get("jti"), claims.get("iat"), claims.get("events")
    if not isinstance(jti, str) or not jti:
        return "jti is missing"
    if not _number(iat) or iat <= 0:
        return "iat is not a number of seconds"
    if iat > now + MAX_SKEW_SECONDS:
        return _format_future("iat", iat)
    if not isinstance(events, dict) or not events:
        return "events is not an object with an event"
    exp, nbf = claims.get("exp", now), claims.get("nbf", now)
    if not _number(exp) or exp < now - MAX_SKEW_SECONDS:
        return "exp has passed"
    if not _number(nbf):
        return "nbf is not a number of seconds"
    return _format_future("nbf", nbf) if nbf > now + MAX_SKEW_SECONDS else None


def _format_future(name: str, moment: float) -> str:
    unit = "is in milliseconds; it must be in seconds" if is_in_milliseconds(moment) else "is in the future"
    return f"{name} {unit}"


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_claims(body: bytes, max_bytes: int, *, signed: bool) -> object:
    """Return the claims: of a compact JWS if `signed` (its signature was verified on receipt), or of plain JSON."""
    if not signed or len(body) > max_bytes:
        return read_json(body, max_bytes)  # raises if the body is too long
    parts = body.strip().split(b".")
    if len(parts) != 3:
        raise _malformed("it must have three parts with dots between them (RFC 7515 §7.1)")
    try:
        claims = base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4))
    except (binascii.Error, ValueError):
        raise _malformed("its claims are not base64url") from None
    return read_json(claims, max_bytes)


def _malformed(why: str) -> MalformedEvent:
    return MalformedEvent([InputIssue("", f"is no Security Event Token: {why}")])
